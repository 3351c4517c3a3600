// The window and the filters as controls. It shows what is chosen and tells what somebody chooses; it keeps nothing.

import {fill, h} from "../dom.js";
import {t} from "../words.js";
import {nameOf} from "./charts.js";
import {FIELDS, WINDOWS, anyFilter, fault} from "./filters.js";

const PARTS = {function: "by_function", location: "by_location", terminal_device_id: "by_terminal", operator: "by_operator", reason: "by_reason"};

export class FilterBar {
  /** `choose(chosen)`: somebody wants this. `suggest()`: a window to begin a custom one with. */
  constructor({choose, suggest}) {
    Object.assign(this, {choose, suggest});
    this.windows = WINDOWS.map((name) => h("button", {class: "chip", type: "button", "data-window": name,
      onclick: () => this.#window(name)}, t(`window_${name}`)));
    this.from = this.#moment("from");
    this.to = this.#moment("to");
    this.fault = h("p", {class: "fault", id: "window-fault", role: "alert"});
    this.custom = h("div", {class: "custom", hidden: true}, this.#field("from", this.from), this.#field("to", this.to), this.fault);
    this.selects = Object.fromEntries(FIELDS.map((field) => [field,
      h("select", {class: "input", id: `filter-${field}`, onchange: () => this.#filter(field)})]));
    this.clear = h("button", {class: "button quiet small clear", type: "button", onclick: () => this.#clear()}, t("filters_clear"));
    this.fold = h("button", {class: "button quiet fold", type: "button", "aria-expanded": "false", "aria-controls": "filters",
      onclick: () => this.#unfold()});
    this.fields = h("div", {class: "filters folded", id: "filters"}, FIELDS.map((field) => this.#field(field, this.selects[field])), this.clear);
    this.element = h("div", {class: "card stack choice"},
      h("div", {class: "chips", role: "group", "aria-label": t("window")}, this.windows), this.custom, this.fold, this.fields);
  }

  /** What is chosen, and the figures of its window without filters, which say what can be chosen. */
  show(chosen, choices) {
    this.chosen = chosen;
    for (const each of this.windows) each.setAttribute("aria-pressed", String(each.dataset.window === chosen.window));
    this.custom.hidden = chosen.window !== "custom";
    if (chosen.window === "custom" && !this.custom.contains(document.activeElement)) {
      [this.from.value, this.to.value] = [forInput(chosen.from), forInput(chosen.to)];
      this.#wrong(null);
    }
    for (const field of FIELDS) this.#options(field, chosen[field] ?? "", choices);
    const on = FIELDS.filter((field) => chosen[field]).length;
    fill(this.fold, on ? t("filters_on", {count: on}) : t("filters"));
    this.clear.hidden = !anyFilter(chosen);
  }

  #options(field, value, choices) {
    const parts = field === "result"
      ? ["success", "reject"].map((code) => ({value: code, name: t(code)}))
      : (choices?.[PARTS[field]] ?? []).filter((part) => part.code !== null).map((part) => ({value: part.code, name: nameOf(field, part)}))
        .sort((a, b) => a.name.localeCompare(b.name));
    // A value of the address that has no scans in this window is still what is chosen.
    if (value && !parts.some((part) => part.value === value)) parts.push({value, name: nameOf(field, {code: value})});
    const select = this.selects[field];
    const seen = JSON.stringify(parts);
    if (select.dataset.seen !== seen) { // else an open list would close under somebody's finger
      select.dataset.seen = seen;
      fill(select, h("option", {value: ""}, t("any")), parts.map((part) => h("option", {value: part.value}, part.name)));
    }
    select.value = value;
    select.classList.toggle("on", Boolean(value));
  }

  #window(name) {
    if (name !== "custom") return this.choose({...this.chosen, window: name, from: undefined, to: undefined});
    if (this.chosen.window === "custom") return this.from.focus();
    const {start, end} = this.suggest();
    this.choose({...this.chosen, window: "custom", from: toMinute(start), to: toMinute(end, 1)});
    return this.from.focus();
  }

  #typed() {
    const [from, to] = [this.from, this.to].map((input) => (input.value ? new Date(input.value) : null));
    const wrong = fault(from, to);
    this.#wrong(wrong);
    if (wrong === null) this.choose({...this.chosen, window: "custom", from, to});
  }

  #wrong(key) {
    fill(this.fault, key === null ? null : t(key));
    for (const input of [this.from, this.to]) input.setAttribute("aria-invalid", String(key !== null));
  }

  #filter(field) {
    this.choose({...this.chosen, [field]: this.selects[field].value || undefined});
  }

  #clear() {
    this.choose({...this.chosen, ...Object.fromEntries(FIELDS.map((field) => [field, undefined]))});
    this.selects[FIELDS[0]].focus();
  }

  #unfold() {
    const open = this.fields.classList.toggle("folded") === false;
    this.fold.setAttribute("aria-expanded", String(open));
  }

  #field(name, input) {
    return h("div", {class: "field"}, h("label", {for: input.id}, t(name)), input);
  }

  #moment(name) {
    return h("input", {class: "input", id: `window-${name}`, type: "datetime-local", "aria-describedby": "window-fault",
      onchange: () => this.#typed()});
  }
}

/** A moment for <input type=datetime-local>: the device's clock, to the minute. */
function forInput(at) {
  const local = new Date(at.getTime() - at.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 16);
}

function toMinute(at, more = 0) {
  const minute = new Date(at);
  minute.setSeconds(0, 0);
  return new Date(minute.getTime() + more * 60_000);
}
