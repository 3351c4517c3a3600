// The wallet: what can be used first.

import {serverNow} from "../api.js";
import {fill, h} from "../dom.js";
import {moment, t} from "../words.js";
import {empty, faultNotice, waiting} from "./notices.js";
import {isGuest} from "./session.js";
import {standing, tag, usesLeft, validity} from "./package.js";
import {remembered, tickets} from "./wallet.js";

const LOOK_MS = 5_000;
const LOOK_FOR_MS = 600_000;
const RANK = ["VOID", "OVER", "REDEEMED", "SOON", "ACTIVE"]; // what a newer server calls otherwise stands behind all

export function ticketsView({title, body, life}) {
  title.textContent = t("tickets");
  const told = h("div");
  const list = h("ul", {class: "stack"}, h("li", null, waiting()));
  body.append(told, list);
  let painted = "";

  function paint(owned) {
    const drawn = JSON.stringify(owned.map((ticket) => [ticket, standing(ticket, serverNow())]));
    if (drawn === painted) return; // what is drawn anew under a finger loses its tap
    painted = drawn;
    const sorted = owned.map((ticket) => ({ticket, state: standing(ticket, serverNow())}))
      .sort((one, other) => RANK.indexOf(other.state) - RANK.indexOf(one.state));
    fill(list, sorted.length
      ? sorted.map(card)
      : h("li", null, empty(t("tickets_empty"), t("tickets_empty_more"), h("a", {class: "button", href: "#/"}, t("to_shop")))));
  }

  const looking = life.repeat(LOOK_MS, async () => {
    try {
      const owned = await tickets();
      if (life.over) return;
      fill(told);
      if (isGuest()) fill(told, h("p", {class: "soft small"}, t("guest_note")));
      paint(owned);
    } catch (fault) {
      if (life.over) return;
      const before = remembered();
      if (before) {
        paint(before.tickets);
        if (!told.firstChild) fill(told, h("p", {class: "tag wait"}, t("as_of", {at: moment(before.at_ms)})));
        return;
      }
      looking.stop();
      fill(list, h("li", null, faultNotice(fault, () => ticketsViewAgain())));
    }
  }, {longestMs: LOOK_FOR_MS});

  function ticketsViewAgain() {
    fill(body);
    ticketsView({title, body, life});
  }
}

function card({ticket, state}) {
  const good = state === "ACTIVE" || state === "SOON";
  return h("li", {class: `card stack ${good ? "" : "closed"}`},
    h("div", {class: "row apart top"}, h("h2", {class: "grow"}, ticket.product.name), tag(state)),
    usesLeft(ticket.entitlements),
    validity(ticket, state),
    h("a", {class: `button block ${good ? "" : "quiet"}`, href: `#/ticket/${ticket.ticket_code}`},
      t(good ? "show_ticket" : "open_ticket"),
      h("span", {class: "only-read"}, ` ${ticket.product.name} ${ticket.ticket_code}`)));
}
