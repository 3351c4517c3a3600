// Which charts there are, and how the server's figures become their bars, columns and tables.

import {t} from "../words.js";
import {Bars} from "./bars.js";
import {ChartCard} from "./card.js";
import {Columns} from "./columns.js";
import {count, share} from "./numbers.js";
import {STEPS, timeline, zoneInWords} from "./timeline.js";
import {reasonInWords} from "./words.js";

const BARS_MOST = 8; // what has more is summed up in the chart; the table has all
const verdicts = () => [{look: "in", name: t("success")}, {look: "out", name: t("reject")}];

/** What a part of the figures is called. */
export const nameOf = (field, part) => {
  if (part.code === null) return t("none_named");
  return field === "reason" ? reasonInWords(part.code) : part.label ?? part.code;
};

/** The cards, in their order, and what shows figures in them. */
export function charts() {
  const card = (id, {noted, ...options} = {}, kind = Bars) =>
    new ChartCard({id, title: t(id), noted, wide: kind === Columns, chart: new kind({title: t(id), series: verdicts(), ...options})});
  const time = card("over_time", {noted: true}, Columns);
  const parts = {
    function: card("by_function"), location: card("by_location"),
    terminal_device_id: card("by_terminal"), operator: card("by_operator"),
  };
  const reasons = card("by_reason", {series: [verdicts()[1]]});
  const stock = card("stock", {noted: true, whole: true, series: ["sold", "held", "free"].map((look) => ({look, name: t(look)}))});
  const answers = {function: "by_function", location: "by_location", terminal_device_id: "by_terminal", operator: "by_operator"};
  return {
    cards: [time, ...Object.values(parts), reasons, stock],
    show(figures, filtered) {
      const empty = figures.all.success + figures.all.reject === 0;
      time.show({...overTime(figures), nothing: empty ? t(filtered ? "nothing_filtered" : "nothing") : null});
      for (const [field, its] of Object.entries(parts)) its.show(byPart(field, figures[answers[field]]));
      reasons.show({...byReason(figures.by_reason), nothing: figures.all.reject ? null : t("no_refusals")});
      for (const its of [...Object.values(parts), reasons]) its.element.hidden = empty; // it is said once
      stock.show({...byStock(figures.stock), nothing: figures.stock.length ? null : t("no_products")});
    },
  };
}

function overTime(figures) {
  const bands = timeline(figures);
  const rows = bands.map(({told, values: [success, reject]}) => [told, count(success), count(reject), count(success + reject)]);
  return {
    drawn: {bands, steps: STEPS[figures.unit], description: t("over_time_description", {bands: bands.length})},
    table: {head: [t("time"), t("success"), t("reject"), t("total")], rows: rows.reverse()},
    note: `${t(`per_${figures.unit}`)} · ${zoneInWords(figures.zone, new Date(figures.to))}`,
  };
}

function byPart(field, told) {
  const rows = told.map((part) => ({id: part.code ?? "", name: nameOf(field, part), values: [part.success, part.reject]}));
  const inWords = ([success, reject]) => t("in_and_out", {in: count(success), out: count(reject)});
  return {
    drawn: {rows: most(rows).map((row) => ({...row, told: inWords(row.values)}))},
    table: {
      head: [t(field), t("success"), t("reject"), t("total"), t("share")],
      rows: rows.map(({name, values: [success, reject]}) =>
        [name, count(success), count(reject), count(success + reject), share(reject, success + reject)]),
    },
  };
}

function byReason(told) {
  const all = told.reduce((sum, part) => sum + part.reject, 0);
  const rows = told.map((part) => ({id: part.code, name: nameOf("reason", part), values: [part.reject]}));
  const inWords = ([reject]) => `${count(reject)} · ${share(reject, all)}`;
  return {
    drawn: {rows: most(rows).map((row) => ({...row, told: inWords(row.values)}))},
    table: {head: [t("reason"), t("reject"), t("part")], rows: rows.map(({name, values: [reject]}) => [name, count(reject), share(reject, all)])},
  };
}

function byStock(told) {
  const rows = told.map(({sku, product, sellable, reserved, sold}) =>
    // A cap that was lowered below what is taken leaves nothing free, and not less than nothing.
    ({id: sku, name: product, sellable, values: [sold, reserved, Math.max(0, sellable - sold - reserved)]}));
  const inWords = ([sold, held, free]) => t("stock_told", {sold: count(sold), held: count(held), free: count(free)});
  return {
    drawn: {rows: rows.map((row) => ({...row, told: inWords(row.values)}))},
    table: {
      head: [t("product"), t("sold"), t("held"), t("free"), t("sellable")],
      rows: rows.map(({name, id, sellable, values}) => [`${name} (${id})`, ...values.map(count), count(sellable)]),
    },
    note: t("stock_note"),
  };
}

/** The first rows, and one for all others. */
function most(rows) {
  if (rows.length <= BARS_MOST) return rows;
  const others = rows.slice(BARS_MOST - 1);
  const values = others[0].values.map((_, index) => others.reduce((sum, row) => sum + row.values[index], 0));
  return [...rows.slice(0, BARS_MOST - 1), {id: "others", name: t("others", {count: count(others.length)}), values}];
}
