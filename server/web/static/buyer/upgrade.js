// In a Mini Program whose shell cannot pay there is one thing to do, and nothing else is offered.

import {h, say} from "../dom.js";
import {t} from "../words.js";

export function upgradeView({title, body}, version) {
  title.textContent = t("upgrade");
  say(`${t("upgrade")}. ${t("upgrade_more")}`);
  body.append(h("section", {class: "card stack"},
    h("svg:svg", {class: "upgrade", viewBox: "0 0 48 48", "aria-hidden": "true"},
      h("svg:circle", {cx: 24, cy: 24, r: 22}), h("svg:path", {d: "M24 35V14M14 23l10-10 10 10"})),
    h("p", null, t("upgrade_more")),
    h("p", null, h("strong", null, t("upgrade_how"))),
    version ? h("p", {class: "soft small"}, t("upgrade_min", {version})) : null));
}
