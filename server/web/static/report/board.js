// The report itself: what is chosen, the figures of it, and everything that shows them.

import {Refused, serverNow} from "../api.js";
import {fill, h, say} from "../dom.js";
import {t} from "../words.js";
import {charts} from "./charts.js";
import {TooLarge, fileName, save} from "./file.js";
import {FilterBar} from "./filterbar.js";
import {anyFilter, asked, read, sameFilters, span, write} from "./filters.js";
import {Freshness} from "./freshness.js";
import {Headline} from "./headline.js";
import {Live} from "./live.js";
import {loginForm} from "./login.js";
import {Newest} from "./newest.js";
import {count} from "./numbers.js";
import {ask, logOut} from "./session.js";
import {zoneOfDevice} from "./timeline.js";

export class Board {
  /** Nothing can be shown: `foreign(name)`: that account is no analyst's; `expired(words)`: the login is over. */
  constructor({foreign, expired, name}) {
    Object.assign(this, {foreign, expired, name});
    this.chosen = read(location.search);
    this.shown = null; // {chosen, figures, span} of what is on the screen
    this.choices = null; // {window, figures}: without filters
    this.trouble = "";
    this.live = new Live({load: (signal) => this.#load(signal), goesOn: () => this.#span().live, told: (what) => this.#told(what)});
    this.bar = new FilterBar({choose: (chosen) => this.#choose(chosen), suggest: () => this.#span()});
    this.fresh = new Freshness({pause: (paused) => { this.live.pause(paused); this.#status(); }, refresh: () => this.live.now()});
    this.headline = new Headline();
    this.charts = charts();
    this.newest = new Newest();
    this.door = h("div", {class: "door"});
    this.csv = h("button", {class: "button small", type: "button", onclick: () => this.#file()}, t("csv"));
    this.csvSaid = h("p", {class: "small csv-said", role: "status"});
    this.title = h("h1", {tabindex: "-1"}, t("report_title"));
    this.figures = h("div", {class: "figures", "aria-busy": "true"},
      this.headline.element, h("div", {class: "charts"}, this.charts.cards.map((card) => card.element), this.newest.element));
    this.element = h("main", {class: "page wide stack", id: "main"},
      h("div", {class: "row apart top"}, this.title, h("div", {class: "row wrap"}, this.csv)), this.csvSaid,
      this.fresh.line, this.fresh.notice, this.door, this.bar.element, this.figures);
  }

  begin() {
    this.watch = () => this.#back();
    window.addEventListener("popstate", this.watch);
    this.bar.show(this.chosen, null);
    this.#status();
    this.title.focus();
    this.live.now();
  }

  end() {
    window.removeEventListener("popstate", this.watch);
    this.live.end();
  }

  #span = () => span(this.chosen, new Date(serverNow()));

  #choose(chosen) {
    // A window that is being typed passes through many: going back leaves it as a whole.
    const typed = chosen.window === "custom" && this.chosen.window === "custom" && sameFilters(chosen, this.chosen);
    this.chosen = chosen;
    const address = write(chosen, location.search);
    if (address !== location.search) history[typed ? "replaceState" : "pushState"](null, "", address);
    this.#turn();
  }

  #back() {
    this.chosen = read(location.search);
    this.#turn();
  }

  #turn() {
    this.bar.show(this.chosen, this.choices?.figures);
    this.figures.setAttribute("aria-busy", "true");
    this.turned = true;
    this.#status();
    this.live.now();
  }

  async #load(signal) {
    const chosen = this.chosen;
    const ahead = serverNow() - Date.now();
    let window = this.#span();
    let figures = await this.#figures(chosen, window, signal);
    // The answer told that this device's clock is wrong: the window is asked for anew, by the server's.
    if (window.live && Math.abs(serverNow() - Date.now() - ahead) > 1_000) {
      window = this.#span();
      figures = await this.#figures(chosen, window, signal);
    }
    const key = chosen.window === "custom" ? `${chosen.from} ${chosen.to}` : chosen.window;
    let choices = this.choices;
    if (!anyFilter(chosen)) choices = {key, figures};
    else if (choices?.key !== key) choices = {key, figures: await this.#figures({window: chosen.window}, window, signal)};
    await this.newest.load(chosen, window, this.shown?.chosen === chosen, signal);
    if (signal.aborted) return;
    this.choices = choices;
    this.shown = {chosen, figures, window};
    this.#show();
  }

  #figures(chosen, window, signal) {
    const query = asked(chosen, window);
    query.set("unit", window.unit);
    query.set("zone", zoneOfDevice());
    return ask("/reports/figures", query, {signal});
  }

  #show() {
    const {chosen, figures, window} = this.shown;
    this.bar.show(chosen, this.choices.figures);
    this.headline.show(figures, window.live);
    this.charts.show(figures, anyFilter(chosen));
    this.newest.show(figures);
    this.figures.setAttribute("aria-busy", "false");
    if (this.turned) say(t("in_and_out", {in: count(figures.all.success), out: count(figures.all.reject)}));
    this.turned = false;
  }

  #told({state, fault}) {
    this.waiting = state === "waiting";
    if (state === "fresh") this.trouble = "";
    if (state === "failed") {
      if (fault instanceof Refused && fault.status === 403) return this.foreign(this.name);
      if (fault instanceof Refused && fault.status === 401) this.#expired(fault.code);
      else if (fault instanceof Refused && fault.code === "INVALID_RANGE") this.trouble = "too_much";
      else this.trouble = fault instanceof Refused ? "unanswered" : "offline";
    }
    this.#status();
  }

  #status() {
    this.fresh.show({
      at: this.shown ? new Date(this.shown.figures.answered_at) : null,
      live: this.#span().live,
      paused: this.live.paused,
      trouble: this.trouble,
      waiting: this.waiting,
    });
    this.figures.classList.toggle("stale", Boolean(this.trouble));
  }

  /** The figures stay, marked as of when; the login stands above them. */
  #expired(code) {
    this.live.blocked = true;
    this.trouble = "expired";
    logOut();
    const why = t(code === "OPERATOR_DISABLED" ? "disabled" : "session_over");
    if (!this.shown) return this.expired(why);
    const time = this.fresh.clock(new Date(this.shown.figures.answered_at));
    const notice = h("div", {class: "notice wait"}, h("strong", {}, why), h("p", {}, t("kept_as_of", {time})));
    say(why);
    fill(this.door, loginForm({notice, then: async (name) => {
      this.name = name;
      this.live.blocked = false;
      this.trouble = "";
      fill(this.door);
      this.title.focus();
      await this.live.now();
    }}));
  }

  async #file() {
    const {chosen, window} = this.shown ?? {chosen: this.chosen, window: this.#span()};
    const name = fileName(window);
    this.csv.disabled = true;
    const tell = (text) => fill(this.csvSaid, text);
    try {
      await save(asked(chosen, window), name, (bytes) => tell(t("csv_at", {count: Math.ceil(bytes / 1024)})));
      tell(t("csv_done", {name}));
    } catch (fault) {
      if (fault.status === 401) this.#expired("TOKEN_EXPIRED");
      tell(t(fault instanceof TooLarge ? "csv_too_large" : fault.status === 401 ? "session_over" : "csv_broken"));
    } finally {
      this.csv.disabled = false;
      this.#status();
    }
  }
}
