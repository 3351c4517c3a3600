// The shift in figures, and its end.

import {h, fill} from "../dom.js";
import {language, moment, t} from "../words.js";
import {queue} from "./queue.js";
import {reason} from "./reasons.js";
import {pace, shift} from "./shift.js";

const AGAIN_MS = 5_000; // the last minute goes on without scans, too

const tile = (name, value, kind) =>
  h("div", {class: `tile ${value ? kind : ""}`}, h("dt", {}, name), h("dd", {class: "figure"}, value));

/** {element, update, leave}. `ended()`: the operator is done for today. */
export function countersCard({username, label, ended}) {
  const figures = h("div", {class: "stack"});
  const ask = h("dialog", {class: "card", "aria-labelledby": "end-title"});
  const number = new Intl.NumberFormat(language === "zh" ? "zh-CN" : "en", {maximumFractionDigits: 1});

  function update() {
    const so = shift.get(username);
    const {minute, average} = pace(so);
    const reasons = Object.entries(so.reasons).sort(([, a], [, b]) => b - a);
    fill(figures,
      h("div", {}, h("h2", {id: "shift-title"}, t("shift")),
        h("p", {class: "soft small"}, t("shift_since", {name: username, time: moment(so.since, {timeStyle: "short"})}))),
      h("dl", {class: "tiles"}, tile(t("let_in"), so.letIn, "go"), tile(t("refused"), so.refused, "stop"),
        tile(t("last_minute"), minute, ""), tile(t("average"), number.format(average), "")),
      h("div", {class: "stack tight"}, h("h3", {}, t("by_reason")),
        reasons.length ? h("dl", {class: "reasons"}, reasons.map(([code, count]) =>
          h("div", {class: "row apart"}, h("dt", {}, reason(code, {function: label})), h("dd", {class: "figure"}, count))))
          : h("p", {class: "soft"}, t("none_refused"))));
  }

  function wish() {
    const count = queue.of(username).length;
    fill(ask, h("div", {class: "stack"},
      h("h2", {id: "end-title"}, t("end_title")),
      h("p", {}, t("end_more")),
      count > 0 && h("p", {class: "notice wait"}, t("end_waiting", {count})),
      h("button", {class: "button block", type: "button", onclick: () => { ask.close(); ended(); }}, t("end_shift")),
      h("button", {class: "button quiet block", type: "button", autofocus: true, onclick: () => ask.close()}, t("go_on"))));
    ask.showModal();
  }

  update();
  const timer = setInterval(() => document.hidden || update(), AGAIN_MS);
  return {
    element: h("section", {class: "card stack", "aria-labelledby": "shift-title"}, figures,
      h("button", {class: "button quiet", type: "button", onclick: wish}, t("end_shift")), ask),
    update,
    leave: () => clearInterval(timer),
  };
}
