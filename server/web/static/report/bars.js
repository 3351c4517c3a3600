// Bars side by side, one row each: its name and its numbers in words above the bar, so that no number has to be guessed.

import {fill, h} from "../dom.js";
import {cut, fills, frame, legend, whenResized, widthOf} from "./chart.js";

const ROW = 46;
const BAR = 16;

export class Bars {
  /** `series`: [{look, name}]. `whole`: each row fills the width, as parts of itself; else rows are compared. */
  constructor({title, series, whole = false}) {
    this.title = title;
    this.series = series;
    this.whole = whole;
    this.rows = [];
    this.plot = h("div", {class: "plot"});
    this.element = h("div", {class: "chart"}, series.length > 1 ? legend(series) : null, this.plot);
    whenResized(this.plot, (width) => this.#draw(width));
  }

  /** `rows`: [{id, name, told, values}]; `told`: the numbers in words. */
  show({rows}) {
    this.rows = rows;
    if (this.plot.clientWidth) this.#draw(this.plot.clientWidth);
  }

  #draw(width) {
    const most = Math.max(1, ...this.rows.map((row) => total(row)));
    const paint = fills(this.series.map(({look}) => look));
    const description = this.rows.map((row) => `${row.name}: ${row.told}`).join("; ");
    const svg = frame("bars", "img", width, Math.max(ROW, this.rows.length * ROW), this.title, description);
    svg.append(paint.defs, ...this.rows.map((row, index) => this.#row(row, index * ROW, width, most, paint)));
    fill(this.plot, svg);
  }

  #row(row, y, width, most, paint) {
    const all = this.whole ? Math.max(1, total(row)) : most;
    const room = width - widthOf(row.told) - 16;
    let x = 1;
    const parts = row.values.map((value, index) => {
      if (value <= 0) return null;
      const long = Math.max(2, (value / all) * (width - 2));
      const shape = h("svg:rect", {x, y: y + 22, width: Math.max(0, Math.min(long, width - 1 - x)), height: BAR, rx: 2, ...paint.of(this.series[index].look)});
      x += long;
      return shape;
    });
    return h("svg:g", {"data-id": row.id},
      h("svg:text", {class: "name", x: 0, y: y + 14}, cut(row.name, room)),
      h("svg:text", {class: "told", x: width, y: y + 14, "text-anchor": "end"}, row.told),
      h("svg:rect", {class: "track", x: 0, y: y + 22, width, height: BAR, rx: 3}),
      parts);
  }
}

const total = (row) => row.values.reduce((sum, value) => sum + value, 0);
