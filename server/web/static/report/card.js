// A chart in its card, with the table of the same numbers behind a button.

import {fill, h} from "../dom.js";
import {t} from "../words.js";

export class ChartCard {
  /** `chart`: with an element and show(). `wide`: takes the whole row. `noted`: keeps a line for a note. */
  constructor({id, title, chart, wide = false, noted = false}) {
    this.title = title;
    this.chart = chart;
    this.note = h("p", {class: "soft small note", hidden: !noted}, "\u00a0");
    this.nothing = h("p", {class: "nothing soft", hidden: true});
    this.table = h("div", {class: "scroll tall", tabindex: "0", role: "region", "aria-label": title, hidden: true});
    this.toggle = h("button", {class: "button quiet small", type: "button", onclick: () => this.#turn()});
    this.element = h("section", {class: wide ? "card panel wide" : "card panel", id, "aria-labelledby": `${id}-title`},
      h("div", {class: "row apart"}, h("h2", {id: `${id}-title`}, title), this.toggle),
      this.note, this.chart.element, this.nothing, this.table);
    this.#name();
  }

  /** `drawn`: for the chart. `table`: {head: [words], rows: [[name, ...numbers as words]]}. `nothing`: words, when there is none. */
  show({drawn, table, note = "", nothing = null}) {
    const seen = JSON.stringify([drawn, table, note, nothing]);
    if (seen === this.seen) return; // so that nothing moves, and nothing is read out again, while nothing happens
    this.seen = seen;
    fill(this.note, note);
    fill(this.nothing, nothing);
    this.chart.show(drawn);
    fill(this.table, h("table", {class: "table"},
      h("caption", {class: "only-read"}, this.title),
      h("thead", {}, h("tr", {}, table.head.map((word, index) => h("th", {scope: "col", class: index ? "number" : null}, word)))),
      h("tbody", {}, table.rows.map(([name, ...numbers]) =>
        h("tr", {}, h("th", {scope: "row"}, name), numbers.map((number) => h("td", {class: "number"}, number)))))));
    this.empty = nothing !== null;
    this.#lay();
  }

  #turn() {
    this.asTable = !this.asTable;
    this.#name();
    this.#lay();
  }

  #name() {
    fill(this.toggle, t(this.asTable ? "as_chart" : "as_table"));
    this.toggle.setAttribute("aria-label", t(this.asTable ? "as_chart_of" : "as_table_of", {title: this.title}));
  }

  #lay() {
    this.nothing.hidden = !this.empty;
    this.chart.element.hidden = Boolean(this.asTable || this.empty);
    this.table.hidden = !this.asTable || Boolean(this.empty);
    this.toggle.hidden = Boolean(this.empty);
  }
}
