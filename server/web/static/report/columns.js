// Stacked columns over time. Each can be read by pointer, by touch and with the arrow keys; one Tab enters the chart.

import {fill, h} from "../dom.js";
import {fills, frame, legend, swatch, ticks, whenResized, widthOf} from "./chart.js";
import {count, short} from "./numbers.js";

const HEIGHT = 260;
const TOP = 22; // room for a number above the highest column
const FOOT = 28;
const LABEL_ROOM = 62; // between the beginnings of two labels of the axis
const WIDEST = 56;
const VALUE_FONT = "bold 12px system-ui, sans-serif";

export class Columns {
  /** `series`: [{look, name}], the lowest first. */
  constructor({title, series}) {
    this.title = title;
    this.series = series;
    this.bands = null; // nothing is known yet: not even an axis is drawn
    this.steps = [1];
    this.description = "";
    this.active = null; // id of the column that is pointed at, or was last
    this.pointed = false;
    this.plot = h("div", {class: "plot"});
    this.tip = h("div", {class: "tip", hidden: true, "aria-hidden": "true"});
    this.element = h("div", {class: "chart columns-chart"}, legend(series), h("div", {class: "stage"}, this.plot, this.tip));
    const at = (event) => this.#point(event);
    this.plot.addEventListener("pointermove", at);
    this.plot.addEventListener("pointerdown", at);
    this.plot.addEventListener("mousedown", (event) => event.preventDefault()); // it would take the focus away again
    this.plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.#unpoint());
    this.plot.addEventListener("keydown", (event) => this.#walk(event));
    this.plot.addEventListener("focusin", (event) => this.#enter(event.target.dataset.id));
    this.plot.addEventListener("focusout", () => this.#unpoint());
    whenResized(this.plot, (width) => this.#draw(width));
  }

  /** `bands`: [{id, told, tick, rank, values}]; labels stand where `rank` is a multiple of the first of `steps` that fits. */
  show({bands, steps, description}) {
    Object.assign(this, {bands, steps, description});
    if (!bands.some((band) => band.id === this.active)) this.active = null;
    if (this.plot.clientWidth) this.#draw(this.plot.clientWidth);
  }

  #draw(width) {
    if (this.bands === null) return;
    const focused = this.plot.contains(document.activeElement);
    const most = Math.max(0, ...this.bands.map((band) => sum(band.values)));
    const levels = ticks(most);
    const top = levels.at(-1);
    const left = Math.ceil(Math.max(...levels.map((level) => widthOf(short(level), "13px system-ui, sans-serif")))) + 10;
    const band = (width - left - 6) / Math.max(1, this.bands.length);
    this.left = left;
    this.band = band;
    const y = (value) => HEIGHT - FOOT - (value / top) * (HEIGHT - FOOT - TOP);
    // A number above every column, or above none.
    const room = Math.max(0, ...this.bands.map((each) => widthOf(short(sum(each.values)), VALUE_FONT))) + 4;
    const numbered = band >= room;
    const paint = fills(this.series.map(({look}) => look));
    const svg = frame("columns", "group", width, HEIGHT, this.title, this.description);
    svg.append(
      paint.defs,
      h("svg:g", {class: "grid", "aria-hidden": "true"}, levels.map((level) => [
        h("svg:line", {x1: left, x2: width - 4, y1: y(level), y2: y(level)}),
        h("svg:text", {x: left - 8, y: y(level) + 4, "text-anchor": "end"}, short(level)),
      ])),
      h("svg:g", {class: "bands"}, this.bands.map((each, index) => this.#column(each, left + index * band, band, y, paint, numbered))),
      h("svg:g", {class: "axis", "aria-hidden": "true"}, this.#labels(left, band)),
    );
    fill(this.plot, svg);
    if (focused && this.bands.length) this.#element(this.active ?? this.bands.at(-1).id)?.focus({preventScroll: true});
    else if (this.pointed) this.#tell();
  }

  #column(band, x, room, y, paint, numbered) {
    const gap = room > 8 ? room * 0.2 : room > 3 ? 1 : 0;
    const width = Math.min(WIDEST, room - gap);
    const inset = x + (room - width) / 2;
    const total = sum(band.values);
    let below = 0;
    const parts = band.values.map((value, index) => {
      if (value <= 0) return null;
      const [from, to] = [y(below), y(below + value)];
      below += value;
      const height = Math.max(1.5, from - to);
      return h("svg:rect", {x: inset, y: from - height, width, height, ...paint.of(this.series[index].look)});
    });
    const told = [`${band.told}:`, ...this.series.map(({name}, index) => `${name} ${count(band.values[index])}`)].join(" ");
    const stop = this.active === band.id || (this.active === null && band === this.bands.at(-1)) ? 0 : -1;
    return h("svg:g", {class: "band", role: "img", "aria-label": told, tabindex: stop, "data-id": band.id},
      h("svg:rect", {class: "lane", x, y: TOP - 16, width: room, height: HEIGHT - FOOT - TOP + 16}),
      parts,
      total > 0 && numbered
        ? h("svg:text", {class: "value", x: x + room / 2, y: y(total) - 6, "text-anchor": "middle", "aria-hidden": "true"}, short(total))
        : null);
  }

  #labels(left, band) {
    const step = this.steps.find((each) => each * band >= LABEL_ROOM) ?? Math.ceil(LABEL_ROOM / band);
    return this.bands.map((each, index) => {
      const middle = left + (index + 0.5) * band;
      const fits = middle - widthOf(each.tick) / 2 > 0 && middle + widthOf(each.tick) / 2 < left + band * this.bands.length + 6;
      if (each.rank % step !== 0 || !fits) return null;
      return h("svg:text", {x: middle, y: HEIGHT - 8, "text-anchor": "middle"}, each.tick);
    });
  }

  #point(event) {
    if (!this.bands?.length) return;
    const x = event.clientX - this.plot.getBoundingClientRect().left - this.left;
    const index = Math.floor(x / this.band);
    if (x < 0 || index >= this.bands.length) return;
    this.#enter(this.bands[index].id);
    // A finger has no place of its own on the page: the focus holds the column until it goes elsewhere.
    if (event.type === "pointerdown") this.#element(this.active)?.focus({preventScroll: true});
  }

  #walk(event) {
    const here = this.bands.findIndex((band) => band.id === this.active);
    const there = {ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: this.bands.length - 1}[event.key];
    if (event.key === "Escape") this.#unpoint();
    if (there === undefined || here < 0) return;
    event.preventDefault();
    const band = this.bands[Math.min(this.bands.length - 1, Math.max(0, there))];
    this.#element(band.id)?.focus({preventScroll: true});
  }

  #enter(id) {
    if (id === undefined) return;
    this.#element(this.active)?.setAttribute("tabindex", "-1");
    for (const each of this.plot.querySelectorAll(".band[tabindex='0']")) each.setAttribute("tabindex", "-1");
    this.active = id;
    this.pointed = true;
    this.#element(id)?.setAttribute("tabindex", "0");
    this.#tell();
  }

  #unpoint() {
    this.pointed = false;
    this.tip.hidden = true;
    for (const each of this.plot.querySelectorAll(".pointed")) each.classList.remove("pointed");
  }

  #tell() {
    const index = this.bands.findIndex((band) => band.id === this.active);
    for (const each of this.plot.querySelectorAll(".pointed")) each.classList.remove("pointed");
    if (index < 0) return this.#unpoint();
    const band = this.bands[index];
    this.#element(band.id)?.classList.add("pointed");
    fill(this.tip, h("p", {class: "when"}, band.told), [...this.series.keys()].reverse().map((at) =>
      h("p", {}, swatch(this.series[at].look), h("span", {class: "grow"}, this.series[at].name), h("b", {}, count(band.values[at])))));
    this.tip.hidden = false;
    // Beside the column, so that it hides none of it.
    const [before, after] = [this.left + index * this.band - this.tip.offsetWidth - 6, this.left + (index + 1) * this.band + 6];
    const last = this.plot.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, after <= last ? after : Math.min(before, last))}px`;
  }

  #element(id) {
    return this.plot.querySelector(`.band[data-id="${CSS.escape(String(id))}"]`);
  }
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
