// What is in a package, and what is left of it.

import {h} from "../dom.js";
import {moment, t} from "../words.js";

const DOTS_MAX = 8; // more uses are told by their number alone

/** Functions of a product for sale: `[{label, quantity}]`. */
export function contents(functions) {
  return h("ul", {class: "contents", "aria-label": t("includes")}, functions.map(({label, quantity}) =>
    h("li", null, h("span", {class: "grow"}, label), h("span", {class: "figure times"}, t("uses", {n: quantity})))));
}

/** Entitlements of a ticket, with a dot for each use: full ones are left. */
export function usesLeft(entitlements) {
  return h("ul", {class: "contents"}, entitlements.map(({label, total_uses: total, remaining_uses: left}) =>
    h("li", {class: left ? "" : "spent"},
      h("span", {class: "grow"}, label),
      total <= DOTS_MAX
        ? h("span", {class: "dots", "aria-hidden": "true"},
          Array.from({length: total}, (_, at) => h("i", {class: at < left ? "full" : ""})))
        : null,
      h("span", {class: "figure small"}, left ? t("left_of", {left, total}) : t("used_up")))));
}

/** How a ticket stands at this moment: ACTIVE, SOON, REDEEMED, OVER, VOID, or what a newer server calls it. */
export function standing(ticket, now) {
  if (ticket.status !== "ACTIVE") return ticket.status;
  if (ticket.valid_until && now >= Date.parse(ticket.valid_until)) return "OVER";
  if (ticket.valid_from && now < Date.parse(ticket.valid_from)) return "SOON";
  return "ACTIVE";
}

const TONES = {
  ACTIVE: "go", SOON: "wait", REDEEMED: "", OVER: "stop", VOID: "stop",
  PENDING_PAYMENT: "wait", PAID: "go", CANCELLED: "", EXPIRED: "", REFUND_REQUIRED: "stop",
};

/** A state as a word and a shape. */
export function tag(state) {
  return h("span", {class: `tag ${TONES[state] ?? ""}`}, t(state));
}

/** When a ticket may be used, where that is bounded. */
export function validity(ticket, state) {
  if (state === "SOON") return h("p", {class: "soft small"}, t("valid_from", {at: moment(ticket.valid_from)}));
  if (!ticket.valid_until) return null;
  return h("p", {class: "soft small"}, t("valid_until", {at: moment(ticket.valid_until)}));
}
