// The buyer's screen: one frame, and in it the view that the address names after its #.

import {fill, h, say} from "../dom.js";
import {knows, languageButton, t} from "../words.js";
import "./vocabulary.js";
import "./address.js";
import {Life} from "./life.js";
import {ordersView} from "./orders.js";
import {orderView} from "./order.js";
import {arrive} from "./session.js";
import {shopView} from "./shop.js";
import {ticketView} from "./ticket.js";
import {ticketsView} from "./tickets.js";
import {upgradeView} from "./upgrade.js";

const CODE = "([0-9A-Z]{1,40})";
// What the address says, the view, and the tab that it belongs to; `alone`: without tabs, nothing else is offered; `slip`: narrow, as a
// thing that is held in the hand.
const VIEWS = [
  {path: /^$/, view: shopView, tab: "shop"},
  {path: /^orders$/, view: ordersView, tab: "orders"},
  {path: new RegExp(`^order/${CODE}$`), view: orderView, tab: "orders", slip: true},
  {path: /^tickets$/, view: ticketsView, tab: "tickets"},
  {path: new RegExp(`^ticket/${CODE}$`), view: ticketView, tab: "tickets", slip: true},
  {path: /^upgrade(?:\/([0-9A-Za-z.]{1,64}))?$/, view: upgradeView, alone: true, slip: true},
];
const TABS = [["shop", "#/"], ["orders", "#/orders"], ["tickets", "#/tickets"]];

const links = TABS.map(([name, place]) => h("a", {href: place, "data-tab": name}, t(`tab_${name}`)));
const tabs = h("nav", {class: "tabs", "aria-label": t("tabs")}, links);
const offline = h("p", {class: "offline", role: "status", hidden: true},
  h("strong", null, t("offline")), " ", t("offline_more"));
const main = h("main", {class: "page stack", id: "view", tabindex: "-1"});
let life = new Life();

document.title = t("title");
fill(document.getElementById("screen"),
  h("a", {class: "skip", href: "#view", onclick: (event) => {
    event.preventDefault(); // the address names the view
    main.focus();
  }}, t("skip")),
  h("header", {class: "bar"}, h("div", null,
    h("a", {class: "brand", href: "#/"}, t("brand")), tabs, h("span", {class: "grow"}), languageButton())),
  offline,
  main);

for (const kind of ["online", "offline"]) window.addEventListener(kind, () => (offline.hidden = navigator.onLine));
offline.hidden = navigator.onLine;

function show(first) {
  const place = location.hash.replace(/^#\/?/, "");
  const {path, view, tab, alone, slip} = VIEWS.find((each) => each.path.test(place)) ?? VIEWS[0];
  life.end();
  life = new Life();
  tabs.hidden = alone === true;
  main.classList.toggle("slip", slip === true);
  for (const link of links) {
    if (link.dataset.tab === tab) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = h("h1", {tabindex: "-1"});
  const body = h("div", {class: "stack"});
  fill(main, title, body);
  say("");
  view({title, body, life, go}, path.exec(place)?.[1]);
  document.title = knows("title") ? `${title.textContent} · ${t("brand")}` : t("brand");
  if (!first) {
    title.focus({preventScroll: true});
    scrollTo(0, 0);
  }
}

/** To another view; `instead`: going back does not come here again. */
function go(place, {instead = false} = {}) {
  if (!instead) {
    location.hash = place;
    return;
  }
  history.replaceState(null, "", place);
  show(false);
}

arrive();
window.addEventListener("hashchange", () => show(false));
show(true);
