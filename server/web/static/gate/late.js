// Answers that came when their visitor was gone: never shown as a verdict over the whole screen, where they would be
// taken for the next visitor's, but in a list, until somebody has read it.

import {h, fill} from "../dom.js";
import {kept} from "../kept.js";
import {clock, t} from "../words.js";
import {reading} from "./reasons.js";
import {shape} from "./shapes.js";

const NAME = "gate.late";
const SUM = "gate.late.sum"; // {success, reject}: also of those that are not listed any more
const KEPT_MAX = 100; // of a long outage: the newest; all of them stand in the report

const read = () => kept.get(NAME) ?? [];
const sum = () => kept.get(SUM) ?? {success: 0, reject: 0};

export const late = {
  add(scan, answer) {
    const {result, reason, ticket_status, ticket_code, fault} = answer;
    const line = {id: scan.scan_id, at: scan.at, label: scan.label, username: scan.username,
      answer: {result, reason, ticket_status, ticket_code, fault}};
    kept.set(NAME, [line, ...read()].slice(0, KEPT_MAX));
    if (result) kept.set(SUM, {...sum(), [result]: sum()[result] + 1});
  },
  count: () => read().length,
  clear() {
    kept.drop(NAME);
    kept.drop(SUM);
  },
};

function line({at, label, answer}) {
  const {kind, face, why} = reading(answer, label);
  const told = answer.reason === "QR_EXPIRED" ? t("late_again") : answer.fault === "NEVER" ? t("late_never") : why;
  return h("li", {class: `late ${kind}`}, shape(kind),
    h("div", {class: "grow"},
      h("p", {}, h("strong", {}, answer.fault ? t("face_wait") : face), " · ", h("span", {class: "figure"}, t("scanned_at", {time: clock(at)}))),
      told && h("p", {}, told),
      h("p", {class: "soft small"}, label,
        answer.ticket_code && [" · ", h("span", {class: "mono"}, t("code_ends", {end: answer.ticket_code.slice(-4)}))])));
}

/** {element, update}: hidden while there is nothing to read. */
export function lateCard() {
  const element = h("section", {class: "card stack lates", "aria-labelledby": "late-title", hidden: true});
  function update() {
    const lines = read();
    element.hidden = lines.length === 0;
    if (!lines.length) return fill(element);
    fill(element,
      h("div", {class: "row apart wrap"}, h("h2", {id: "late-title"}, t("late_title")),
        h("p", {class: "figure"}, t("late_count", {go: sum().success, stop: sum().reject}))),
      h("p", {class: "soft"}, t("late_more")),
      h("ul", {class: "stack tight"}, lines.map(line)),
      h("button", {class: "button quiet", type: "button", onclick: () => { late.clear(); update(); }}, t("late_clear")));
  }
  update();
  return {element, update};
}
