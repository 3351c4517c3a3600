// The four figures that are read first.

import {fill, h} from "../dom.js";
import {t} from "../words.js";
import {count, share} from "./numbers.js";

const TILES = ["success", "reject", "share", "last_hour"];

export class Headline {
  constructor() {
    this.parts = Object.fromEntries(TILES.map((name) => [name,
      {label: h("dt", {}, t(name)), value: h("dd", {class: "value figure"}, "–"), more: h("dd", {class: "soft small"}, "\u00a0")}]));
    this.element = h("dl", {class: "tiles"}, TILES.map((name) => {
      const {label, value, more} = this.parts[name];
      return h("div", {class: `card tile ${name}`, id: `tile-${name}`}, label, value, more);
    }));
  }

  show(figures, live) {
    const {all: {success, reject}, last_hour} = figures;
    const all = success + reject;
    this.#set("success", count(success), t("share_of", {count: count(all)}));
    this.#set("reject", count(reject), t("share_of", {count: count(all)}));
    this.#set("share", share(reject, all), t("share_told", {out: count(reject), all: count(all)}));
    this.#set("last_hour", count(last_hour.success), t("of_them_refused", {count: count(last_hour.reject)}));
    fill(this.parts.last_hour.label, t(live ? "last_hour" : "last_hour_then"));
  }

  #set(name, value, more) {
    const parts = this.parts[name];
    if (parts.value.textContent !== value) fill(parts.value, value);
    if (parts.more.textContent !== more) fill(parts.more, more);
  }
}
