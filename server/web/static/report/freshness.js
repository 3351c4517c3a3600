// How fresh the figures are, in one line with what can be done about it, and in a notice when something is wrong.

import {fill, h, say} from "../dom.js";
import {t} from "../words.js";
import {writer, zoneOfDevice} from "./timeline.js";

export class Freshness {
  /** `pause(paused)` and `refresh()`: what the two buttons do. */
  constructor({pause, refresh}) {
    this.tag = h("span", {class: "tag"});
    this.when = h("span", {class: "figure when"});
    this.wheel = h("span", {class: "wheel", hidden: true, "aria-hidden": "true"});
    this.pause = h("button", {class: "button quiet small", type: "button", onclick: () => pause(!this.paused)});
    this.refresh = h("button", {class: "button quiet small", type: "button", onclick: refresh}, t("refresh"));
    this.line = h("div", {class: "row wrap freshness"}, this.tag, this.when, this.wheel, this.pause, this.refresh);
    this.notice = h("div", {class: "place-of-notice"});
    this.clock = writer(zoneOfDevice(), {hour: "2-digit", minute: "2-digit", second: "2-digit"});
    this.said = "";
  }

  /** `at`: of the figures, or null; `trouble`: "", "offline", "unanswered", "too_much" or "expired". */
  show({at, live, paused, trouble, waiting}) {
    this.paused = paused;
    const time = at ? this.clock(at) : "";
    const kind = trouble ? "stop" : !live ? "" : paused ? "wait" : "go";
    const word = trouble === "offline" ? "offline" : trouble ? "as_of" : !live ? "over" : paused ? "paused" : "live";
    this.tag.className = `tag ${kind}`;
    this.tag.hidden = !at || word === "as_of";
    fill(this.tag, t(word));
    fill(this.when, at ? t(kind === "go" ? "updated" : "as_of", {time}) : t("loading"));
    this.wheel.hidden = !(waiting && !at);
    this.pause.hidden = !live || Boolean(trouble) || !at;
    fill(this.pause, t(paused ? "resume" : "pause"));
    this.refresh.hidden = trouble === "expired" || (live && !trouble && !paused);
    this.#tell(trouble, at, time);
  }

  #tell(trouble, at, time) {
    const about = {
      offline: [t("offline"), at ? t("offline_as_of", {time}) : t("offline_empty")],
      unanswered: [t("unanswered"), at ? t("offline_as_of", {time}) : t("offline_empty")],
      too_much: [t("too_much"), ""],
    }[trouble];
    const seen = about ? about.join(" ") : "";
    if (seen === this.said) return;
    this.said = seen;
    if (seen) say(seen);
    fill(this.notice, about ? h("div", {class: trouble === "too_much" ? "notice wait" : "notice stop"},
      h("strong", {}, about[0]), about[1] ? h("p", {}, about[1]) : null) : null);
  }
}
