// One package in the shop window. It is drawn once and brought up to date in place: what is drawn anew under a finger
// loses its tap.

import {serverNow} from "../api.js";
import {h} from "../dom.js";
import {moment, t, yuan} from "../words.js";
import {contents} from "./package.js";

const FEW = 20; // from then on the number is told

/** "open", "soon", "ended" or "sold_out". */
export function saleState(product) {
  const now = serverNow();
  if (product.sale_start_at && now < Date.parse(product.sale_start_at)) return "soon";
  if (product.sale_end_at && now >= Date.parse(product.sale_end_at)) return "ended";
  return product.available > 0 ? "open" : "sold_out";
}

/** The card of a product: `{element, update(product, quantity, most)}`; `choose(change)` is called with +1 or -1. */
export function offerCard({name, price_fen, functions}, choose) {
  const left = h("p", {class: "tag"});
  const until = h("p", {class: "soft small"});
  const less = h("button", {type: "button", "aria-label": t("less_of", {name}), onclick: () => choose(-1)}, "−");
  const more = h("button", {type: "button", "aria-label": t("more_of", {name}), onclick: () => choose(+1)}, "+");
  const count = h("output", {"aria-label": t("count_of", {name})}, "0");
  const stepper = h("div", {class: "stepper"}, less, count, more);
  const element = h("li", {class: "card stack product"},
    h("div", {class: "row apart top"},
      h("h2", {class: "grow"}, name), h("p", {class: "price figure"}, price_fen ? yuan(price_fen) : t("free"))),
    contents(functions),
    until,
    h("div", {class: "row apart foot"}, left, stepper));
  const update = (product, quantity, most) => {
    const state = saleState(product);
    const [tone, text] = standingOf(state, product);
    left.className = `tag ${tone}`;
    left.textContent = text;
    until.hidden = state !== "open" || !product.sale_end_at;
    until.textContent = product.sale_end_at ? t("sale_until", {at: moment(product.sale_end_at)}) : "";
    stepper.hidden = state !== "open";
    element.classList.toggle("closed", state !== "open");
    element.classList.toggle("chosen", quantity > 0);
    count.textContent = String(quantity);
    // aria-disabled and not disabled: a button that is switched off under the finger would lose the focus.
    less.setAttribute("aria-disabled", String(quantity === 0));
    more.setAttribute("aria-disabled", String(quantity >= most));
  };
  return {element, update};
}

function standingOf(state, product) {
  if (state === "soon") return ["wait", t("sale_from", {at: moment(product.sale_start_at)})];
  if (state === "ended") return ["", t("sale_ended")];
  if (state === "sold_out") return ["stop", t("sold_out")];
  return product.available > FEW ? ["go", t("plenty")] : ["wait", t("few", {n: product.available})];
}
