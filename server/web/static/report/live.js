// When to ask again: every few seconds while the page is seen and the window goes on, less often where an answer takes
// long, later and later while no answer comes. One question at a time: a new one gives the older one up.

import {Refused, Unreached} from "../api.js";

const EVERY_MS = 5_000;
const REST = 20; // times the time that the last answer took: the record has others to serve
const LONGEST_MS = 60_000;

export class Live {
  /** `load(signal)`: asks and shows unless it is aborted, throws what it cannot; `told({state, fault})`: fresh, waiting or failed. */
  constructor({load, goesOn, told}) {
    Object.assign(this, {load, goesOn, told});
    this.paused = false;
    this.blocked = false; // nobody is logged in: asking is no use
    this.ended = false;
    this.failures = 0;
    this.asking = null;
    this.timer = null;
    this.watch = new AbortController();
    const on = (target, name, act) => target.addEventListener(name, act, {signal: this.watch.signal});
    on(document, "visibilitychange", () => (document.hidden ? this.#rest() : this.#wanted() && this.now()));
    on(window, "online", () => this.#wanted() && this.now());
    on(window, "offline", () => {
      this.failures = Math.max(1, this.failures);
      this.told({state: "failed", fault: null});
    });
    on(window, "pagehide", () => this.#rest());
    on(window, "pageshow", (event) => event.persisted && this.#wanted() && this.now());
  }

  /** Ask at once, whatever was planned. */
  async now() {
    this.#rest();
    if (this.blocked) return;
    this.asking?.abort();
    const {signal} = (this.asking = new AbortController());
    const began = performance.now();
    this.told({state: "waiting"});
    try {
      await this.load(signal);
      if (signal.aborted) return;
      this.failures = 0;
      this.told({state: "fresh"});
    } catch (fault) {
      if (signal.aborted) return;
      if (!(fault instanceof Refused || fault instanceof Unreached)) throw fault; // a mistake of this page
      this.failures += 1;
      this.told({state: "failed", fault});
      if (fault instanceof Refused && !fault.transient) return; // the same question would get the same answer
    }
    const took = performance.now() - began;
    if (this.#wanted()) this.#plan(this.failures ? EVERY_MS * 2 ** Math.min(4, this.failures - 1) : Math.max(EVERY_MS, REST * took));
  }

  pause(paused) {
    this.paused = paused;
    if (paused) this.#rest();
    else this.now();
  }

  /** No question and no timer is left. */
  end() {
    this.ended = true;
    this.#rest();
    this.asking?.abort();
    this.watch.abort();
  }

  #wanted() {
    return !this.ended && !this.blocked && !document.hidden && (this.failures > 0 || (!this.paused && this.goesOn()));
  }

  #plan(wait) {
    this.#rest();
    this.timer = setTimeout(() => this.now(), Math.min(LONGEST_MS, wait));
  }

  #rest() {
    clearTimeout(this.timer);
    this.timer = null;
  }
}
