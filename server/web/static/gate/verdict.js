// The face of one scan, over the whole screen: colour, shape and word say the same, then why, and what is left.

import {h} from "../dom.js";
import {clock, moment, t} from "../words.js";
import {terminal, venueName} from "./device.js";
import {reading} from "./reasons.js";
import {shape} from "./shapes.js";

/** What is shown while there is no answer: {kind: wait, face, why, advice}. */
export const checking = () => ({kind: "wait", face: t("face_check"), why: t("why_check"), advice: ""});
export const undecided = () => ({kind: "wait", face: t("face_wait"), why: t("why_wait"), advice: t("do_wait")});
export const noRoom = (count) => ({kind: "wait", face: t("face_wait"), why: t("why_full", {count}), advice: t("do_full")});

/** The server's answer to a scan. */
export function decided(scan, answer) {
  return {...reading(answer, scan.label), answer, scan};
}

function left({answer, scan}) {
  if (!answer?.entitlements?.length) return null;
  return h("div", {class: "left"}, h("h3", {}, t("left_title")),
    h("ul", {}, answer.entitlements.map((each) =>
      h("li", {class: each.function_code === scan.function_code ? "this" : ""},
        h("span", {}, each.label),
        h("span", {class: "figure"}, t("left", {left: each.remaining_uses, total: each.total_uses}))))));
}

function first({answer}) {
  const told = answer?.first_redemption;
  if (!told) return null;
  const today = new Date(told.ts).toDateString() === new Date().toDateString();
  const device = told.terminal_device_id;
  const where = [
    told.venue_code && venueName(told.venue_code),
    device && (device === terminal() ? t("first_here") : t("first_device", {end: device.slice(-4)})),
  ].filter(Boolean).join(" · ");
  return h("div", {class: "first"}, h("h3", {}, t("first_title")),
    h("p", {class: "figure"}, today ? clock(told.ts) : moment(told.ts)), where && h("p", {}, where));
}

/** The whole screen. */
export function fullFace(face, close) {
  return h("div", {class: `verdict ${face.kind}`, onclick: close},
    h("div", {class: "verdict-told"}, shape(face.kind),
      h("p", {class: "verdict-word"}, face.face),
      face.why && h("p", {class: "verdict-why"}, face.why),
      face.advice && h("p", {class: "verdict-do"}, face.advice),
      first(face), left(face)),
    h("div", {class: "verdict-foot"},
      h("p", {}, t("next")),
      h("button", {class: "verdict-close", type: "button"}, t("close"))));
}

/** What remains of it: one line above the ways to scan. */
export function strip(face, at) {
  return h("div", {class: `strip ${face.kind}`}, shape(face.kind),
    h("p", {class: "grow"}, h("strong", {}, face.face), face.why && [" · ", face.why]),
    h("p", {class: "figure"}, clock(at)));
}

/** As it is read out. */
export const spoken = (face) => [face.face, face.why, face.advice].filter(Boolean).join(". ");
