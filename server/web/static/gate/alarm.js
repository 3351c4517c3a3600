// The banner that nobody overlooks: full width, above everything, also above a verdict. It says that nothing is decided.

import {h, fill} from "../dom.js";
import {t} from "../words.js";
import {reason} from "./reasons.js";
import {shape} from "./shapes.js";

const TITLE = document.title;

/** {element, tell, count}. */
export function alarmBanner() {
  const told = h("div", {class: "grow"});
  const number = h("p", {class: "banner-count figure"});
  // The element is there from the start: what appears together with its text is not read out by every reader.
  const element = h("div", {class: "banner", role: "alert", "aria-live": "assertive", hidden: true}, shape("alarm"), told, number);
  return {
    element,
    tell({state: now, code}) {
      document.documentElement.classList.toggle("alarmed", now !== "up");
      document.title = now === "up" ? TITLE : `⚠ ${t(`net_${now}`)}`;
      element.hidden = now === "up";
      fill(told);
      if (now !== "up") {
        fill(told, h("p", {class: "banner-word"}, t(`net_${now}`)),
          h("p", {}, t(`net_${now}_more`, {why: now === "closed" ? reason(code) : ""})));
      }
    },
    count(waiting) {
      number.hidden = !waiting;
      number.textContent = waiting ? t("waiting", {count: waiting}) : "";
    },
  };
}
