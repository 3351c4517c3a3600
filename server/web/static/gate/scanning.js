// The scanning view: three ways to scan, one verdict, what waits, what came late, and the shift.

import {h} from "../dom.js";
import {languageButton, t} from "../words.js";
import {kept} from "../kept.js";
import {cameraWay} from "./camera.js";
import {countersCard} from "./counters.js";
import {icon} from "./icons.js";
import {lateCard} from "./late.js";
import {queue} from "./queue.js";
import {typedWay} from "./typed.js";
import {listenForScanner} from "./wedge.js";
import {stayAwake} from "./awake.js";

function handScanner() {
  return h("section", {class: "way row top", "aria-labelledby": "hand-title"}, icon("scanner"),
    h("div", {class: "grow"}, h("h2", {id: "hand-title"}, t("scanner")), h("p", {class: "soft"}, t("scanner_more"))));
}

/** What other operators left on this device. */
function othersNotice(username) {
  const counts = new Map();
  for (const scan of queue.all()) {
    if (scan.username !== username) counts.set(scan.username, (counts.get(scan.username) ?? 0) + 1);
  }
  return [...counts].map(([name, count]) => h("p", {class: "notice"}, t("others_wait", {name, count})));
}

/** `scanned(text)`: something was read, in whatever way. `change()`, `ended()`: the operator wants so. */
export function scanningView({place, username, stage, scanned, change, ended}) {
  const camera = cameraWay(scanned);
  const counters = countersCard({username, label: place.label, ended});
  const late = lateCard();
  const stopListening = listenForScanner(scanned);
  const sleepAgain = stayAwake();
  const stopWatching = kept.watch(() => {
    late.update();
    counters.update();
  });

  return {
    element: h("main", {class: "page wide gate"},
      h("header", {class: "row apart where"},
        h("div", {class: "grow"}, h("h1", {tabindex: -1}, place.label), h("p", {class: "soft"}, place.venue)),
        h("button", {class: "button quiet small", type: "button", "aria-label": t("change_label"), onclick: change}, t("change")),
        languageButton()),
      h("div", {class: "columns"},
        h("div", {class: "stack"}, stage.last, late.element, !queue.safe() && h("p", {class: "notice stop"}, t("unsafe")),
          h("div", {class: "card ways"}, camera.element, handScanner(), typedWay(scanned))),
        h("div", {class: "stack"}, counters.element, othersNotice(username)))),
    update() {
      late.update();
      counters.update();
    },
    leave() {
      camera.leave();
      counters.leave();
      stopListening();
      stopWatching();
      sleepAgain();
    },
  };
}
