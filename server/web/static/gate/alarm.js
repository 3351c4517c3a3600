// The banner that nobody overlooks: full width, above everything, also above a verdict. It says that nothing is decided.

import {h, fill} from "../dom.js";
import {t} from "../words.js";
import {reason} from "./reasons.js";
import {shape} from "./shapes.js";

const TITLE = document.title;

/** {element, tell, count}. */
export function alarmBanner() {
  const word = h("p", {class: "banner-word"});
  const more = h("p", {});
  const number = h("p", {class: "banner-count figure", hidden: true});
  // The element is there from the start: what appears together with its text is not read out by every reader.
  const element = h("div", {class: "banner", role: "alert", "aria-live": "assertive", hidden: true}, shape("alarm"),
    h("div", {class: "grow"}, h("div", {class: "banner-head"}, word, number), more));
  // A verdict begins where the banner ends, so that neither hides the other.
  new ResizeObserver(() => document.documentElement.style.setProperty("--banner", `${element.offsetHeight}px`)).observe(element);
  return {
    element,
    tell({state, code}) {
      const up = state === "up";
      document.title = up ? TITLE : `⚠ ${t(`net_${state}`)}`;
      element.hidden = up;
      fill(word, !up && t(`net_${state}`));
      fill(more, !up && t(`net_${state}_more`, {why: code ? reason(code) : ""}));
    },
    count(waiting) {
      number.hidden = !waiting;
      number.textContent = waiting ? t("waiting", {count: waiting}) : "";
    },
  };
}
