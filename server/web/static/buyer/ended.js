// An order that no longer waits for payment: paid, with its tickets; or ended, said as it is.

import {serverNow} from "../api.js";
import {fill, h, say} from "../dom.js";
import {clock, t, yuan} from "../words.js";
import {button, notice} from "./notices.js";
import {usesLeft} from "./package.js";
import {ask} from "./session.js";

const TITLES = {PAID: "paid_title", EXPIRED: "expired_title", CANCELLED: "cancelled_title", REFUND_REQUIRED: "refund_title"};

/** `{title, element}`. */
export function endedView(scene) {
  const {order, life, check, go} = scene;
  if (!(order.status in TITLES)) return unheardOf(scene);
  const title = t(TITLES[order.status]);
  if (order.status === "PAID") return {title, element: paid(scene)};
  const anew = button(t("order_anew"), () => go("#/"));
  if (order.status === "REFUND_REQUIRED") {
    return {title, element: notice("stop", null, t("refund_more", {amount: yuan(order.total_fen)}))};
  }
  if (order.status === "CANCELLED") return {title, element: notice("", null, t("cancelled_order_more"), anew)};
  const told = h("p", {class: "soft small"});
  const again = button(t("check_again"), async () => {
    again.disabled = true;
    const answered = await check();
    again.disabled = false;
    told.textContent = answered ? t("still_pending", {at: clock(serverNow())}) : t("check_failed");
    if (!life.over) say(told.textContent);
  }, "quiet");
  return {title, element: h("div", {class: "stack"}, notice("wait", null, t("expired_more"), anew, again), told)};
}

/** A newer server's word, which this page has no words for. */
function unheardOf({order, go}) {
  return {title: t("other_title"), element: notice("", null, t("other_more", {status: order.status}),
    button(t("retry"), () => location.reload()), button(t("order_anew"), () => go("#/"), "quiet"))};
}

function paid({order, life}) {
  const units = order.items.reduce((sum, {qty}) => sum + qty, 0);
  const list = h("div", {class: "stack"}, h("a", {class: "button block", href: "#/tickets"}, t("tab_tickets")));
  const element = h("div", {class: "stack"},
    h("section", {class: "card done row"}, h("span", {class: "check", "aria-hidden": "true"}),
      h("p", {class: "grow"}, units === 1 ? t("paid_more_one") : t("paid_more", {n: units}))),
    list);
  ask("GET", "/my/tickets").then(({tickets}) => {
    const ours = tickets.filter((ticket) => ticket.order_id === order.order_id);
    if (!life.over && ours.length) fill(list, ours.map((ticket, at) => ticketOf(ticket, at === 0)));
  }, () => {}); // then the button leads to them
  return element;
}

function ticketOf(ticket, first) {
  return h("section", {class: "card stack"},
    h("h2", null, ticket.product.name),
    usesLeft(ticket.entitlements),
    h("a", {class: `button ${first ? "" : "quiet"} block`, href: `#/ticket/${ticket.ticket_code}`}, t("show_ticket")));
}
