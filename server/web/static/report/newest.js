// The newest scans one by one. A refresh puts new ones on top and keeps those that were asked for by "more".

import {fill, h} from "../dom.js";
import {t} from "../words.js";
import {asked} from "./filters.js";
import {ask} from "./session.js";
import {writer, zoneOfDevice} from "./timeline.js";
import {reasonInWords} from "./words.js";

const PAGE = 20;
const HEAD = ["time", "verdict", "function", "location", "gate", "ticket"];

export class Newest {
  constructor() {
    this.events = [];
    this.cursor = null;
    this.extended = false;
    this.names = {};
    this.rows = h("div", {role: "rowgroup"});
    this.fault = h("p", {class: "fault", role: "alert"});
    this.button = h("button", {class: "button quiet", type: "button", hidden: true, onclick: () => this.#more()}, t("more"));
    this.end = h("p", {class: "soft small", hidden: true}, t("all_shown"));
    this.table = h("div", {class: "events", role: "table", "aria-labelledby": "newest-title"},
      h("div", {role: "rowgroup", class: "head"}, h("div", {role: "row"}, HEAD.map((key) => h("span", {role: "columnheader"}, t(key))))),
      this.rows);
    this.element = h("section", {class: "card panel wide", id: "newest", "aria-labelledby": "newest-title"},
      h("h2", {id: "newest-title"}, t("newest")), this.table, this.fault,
      h("div", {class: "row"}, this.button, this.end));
  }

  /** The first page of these filters. `again`: they are the same as before. */
  async load(chosen, span, again, signal) {
    const page = await ask("/reports/redemptions", `${asked(chosen, span)}&limit=${PAGE}`, {signal});
    if (signal.aborted) return;
    this.chosen = chosen;
    const known = new Set(this.events.map((event) => event.event_id));
    const fresh = page.redemptions.filter((event) => !known.has(event.event_id));
    if (again && this.extended && fresh.length < page.redemptions.length) {
      this.events = [...fresh, ...this.events].filter((event) => Date.parse(event.ts) >= span.start.getTime());
    } else {
      this.events = page.redemptions;
      this.cursor = page.next_cursor;
      this.extended = false;
    }
  }

  /** Show them with the names that the figures have for functions and venues. */
  show(figures) {
    for (const part of [...figures.by_function, ...figures.by_location]) if (part.label) this.names[part.code] = part.label;
    this.element.hidden = this.events.length === 0; // the chart above says that there are none
    this.#draw();
  }

  #draw() {
    this.button.hidden = this.cursor === null;
    this.end.hidden = this.cursor !== null || this.events.length === 0;
    const seen = this.events.map((event) => event.event_id).join();
    if (seen === this.seen) return;
    this.seen = seen;
    const write = writer(zoneOfDevice(), {day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit"});
    fill(this.rows, this.events.map((event) => this.#row(event, write)));
  }

  #row(event, write) {
    const passed = event.result === "success";
    const cell = (key, ...content) => h("span", {role: "cell", class: `cell ${key}`}, content);
    return h("div", {role: "row", "data-id": event.event_id},
      cell("time figure", write(new Date(event.ts))),
      cell("verdict", h("span", {class: passed ? "tag go" : "tag stop"}, t(event.result)),
        passed ? null : h("span", {class: "why"}, reasonInWords(event.reason)),
        event.uploaded ? h("span", {class: "why", title: write(new Date(event.scanned_at))}, t("uploaded")) : null),
      cell("function", this.names[event.function] ?? event.function),
      cell("location", this.names[event.location] ?? event.location ?? "–"),
      cell("gate", [event.terminal_device_id, event.operator].filter(Boolean).join(" · ")),
      cell("ticket mono", event.ticket_code));
  }

  async #more() {
    this.button.disabled = true;
    this.extended = true; // already now: a refresh in between must not begin anew
    fill(this.fault);
    const {chosen, cursor} = this;
    const query = asked(chosen, {start: new Date(0), end: new Date(0)});
    query.delete("from"); // the cursor knows its window
    query.delete("to");
    query.set("cursor", cursor);
    query.set("limit", PAGE);
    try {
      const page = await ask("/reports/redemptions", query);
      if (this.chosen !== chosen || this.cursor !== cursor) return; // somebody chose something else meanwhile
      this.events = [...this.events, ...page.redemptions];
      this.cursor = page.next_cursor;
      this.#draw();
    } catch {
      fill(this.fault, t("more_failed"));
    } finally {
      this.button.disabled = false;
    }
  }
}
