// The buyer's orders, newest first.

import {fill, h} from "../dom.js";
import {moment, t, yuan} from "../words.js";
import {button, empty, faultNotice, waiting} from "./notices.js";
import {tag} from "./package.js";
import {ask} from "./session.js";

const PAGE = 20;

export function ordersView({title, body, life}) {
  title.textContent = t("orders");
  const list = h("ul", {class: "stack"});
  const rest = h("div", null, waiting());
  body.append(list, rest);

  async function load(cursor) {
    fill(rest, waiting());
    try {
      const {orders, next_cursor: next} = await ask("GET", `/my/orders?limit=${PAGE}${cursor ? `&cursor=${cursor}` : ""}`);
      if (life.over) return;
      list.append(...orders.map(row));
      fill(rest, next ? button(t("more"), () => load(next), "quiet block") : null);
      if (!list.firstChild) {
        fill(rest, empty(t("orders_empty"), t("orders_empty_more"), h("a", {class: "button", href: "#/"}, t("to_shop"))));
      }
    } catch (fault) {
      if (!life.over) fill(rest, faultNotice(fault, () => load(cursor)));
    }
  }
  load(null);
}

function row(order) {
  return h("li", null, h("a", {class: "card stack tight whole", href: `#/order/${order.order_id}`},
    order.items.map(({name, qty}) => h("span", {class: "row apart"},
      h("strong", {class: "grow"}, name), h("span", {class: "figure"}, t("units", {n: qty})))),
    h("span", {class: "soft small figure"}, moment(order.created_at)),
    h("span", {class: "row apart"},
      tag(order.status), h("strong", {class: "figure"}, order.total_fen ? yuan(order.total_fen) : t("free")))));
}
