// A shape for each verdict: a circle with a tick, an octagon with a cross, a clock. They differ in outline, too.

import {h} from "../dom.js";

const OUTLINES = {
  go: () => h("svg:circle", {cx: 50, cy: 50, r: 46}),
  stop: () => h("svg:path", {d: "M31 3h38l28 28v38L69 97H31L3 69V31z"}),
  wait: () => h("svg:circle", {cx: 50, cy: 50, r: 43}),
  alarm: () => h("svg:path", {d: "M50 6 98 92H2z"}),
};
const STROKES = {go: "M27 52l16 16 31-34", stop: "M33 33l34 34M67 33L33 67", wait: "M50 24v28l18 12", alarm: "M50 38v26M50 75v5"};

/** go, stop, wait or alarm. It is a picture of the word beside it, so it is not read out. */
export function shape(kind) {
  return h("svg:svg", {class: `shape ${kind}`, viewBox: "0 0 100 100", "aria-hidden": "true", focusable: "false"},
    OUTLINES[kind](), h("svg:path", {class: "stroke", d: STROKES[kind]}));
}
