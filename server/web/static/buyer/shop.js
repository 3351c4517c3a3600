// The shop window: packages, how many of each, and one button that orders them together.

import {Refused, call} from "../api.js";
import {fill, h, say} from "../dom.js";
import {kept} from "../kept.js";
import {t, yuan} from "../words.js";
import {arrival} from "./address.js";
import {button, empty, faultNotice, notice, waiting} from "./notices.js";
import {offerCard, saleState} from "./offer.js";
import {forget, order, recent, resume, unanswered} from "./purchase.js";
import {LoginNeeded} from "./session.js";

const LOOK_MS = 10_000; // what is left changes while people choose
const LOOK_FOR_MS = 1_800_000;
const UNITS_MAX = 50; // of one order
const CHOSEN = "buyer.chosen"; // {product id: quantity}

/** What the buyer has chosen so far; it outlives the page. */
class Basket {
  #units = new Map(Object.entries(kept.get(CHOSEN) ?? {}).map(([id, qty]) => [Number(id), qty]));

  of = (product) => this.#units.get(product.id) ?? 0;
  most = (product) => Math.min(product.available, UNITS_MAX - this.units + this.of(product));
  items = () => [...this.#units].map(([product_id, qty]) => ({product_id, qty}));

  get units() {
    return [...this.#units.values()].reduce((sum, qty) => sum + qty, 0);
  }

  put(product, qty) {
    const wanted = saleState(product) === "open" ? Math.max(0, Math.min(qty, this.most(product))) : 0;
    if (wanted) this.#units.set(product.id, wanted);
    else this.#units.delete(product.id);
    this.#keep();
  }

  /** Only what is still there, and still to be had. */
  sift(products) {
    for (const id of [...this.#units.keys()]) if (!products.some((each) => each.id === id)) this.#units.delete(id);
    for (const product of products) if (this.of(product)) this.put(product, this.of(product));
    this.#keep();
  }

  price(products) {
    return products.reduce((sum, product) => sum + this.of(product) * product.price_fen, 0);
  }

  clear() {
    this.#units.clear();
    kept.drop(CHOSEN);
  }

  #keep() {
    kept.set(CHOSEN, Object.fromEntries(this.#units));
  }
}

export function shopView({title, body, life, go}) {
  title.textContent = t("shop");
  const basket = new Basket();
  const told = h("div", {class: "stack tight"});
  const list = h("ul", {class: "stack products"}, h("li", null, waiting()));
  const units = h("p", {class: "small soft"});
  const price = h("p", {class: "price figure"});
  const press = h("button", {type: "button", class: "button", onclick: () => send(() => order(basket.items()))}, t("order"));
  const bar = h("div", {class: "basket", hidden: true}, h("div", {class: "grow"}, units, price), press);
  let cards = new Map();
  let products = null;
  let busy = false;
  body.append(h("p", {class: "soft lead"}, t("shop_more")), told, list, bar);

  function paint() {
    for (const product of products) cards.get(product.id).update(product, basket.of(product), basket.most(product));
    bar.hidden = basket.units === 0 || (!busy && unanswered() !== undefined); // that one comes first
    units.textContent = basket.units === 1 ? t("basket_one") : t("basket", {n: basket.units});
    price.textContent = basket.price(products) ? yuan(basket.price(products)) : t("free");
    press.textContent = busy ? t("ordering") : t("order");
    press.setAttribute("aria-disabled", String(busy));
  }

  function choose(id, change) {
    const product = products.find((each) => each.id === id);
    basket.put(product, basket.of(product) + change);
    paint();
    say(`${basket.of(product)}`);
  }

  function lay(newest) {
    const before = products?.map(({id, name, price_fen}) => [id, name, price_fen].join());
    products = newest;
    basket.sift(products);
    if (before?.join("\n") !== products.map(({id, name, price_fen}) => [id, name, price_fen].join()).join("\n")) {
      cards = new Map(products.map((product) => [product.id, offerCard(product, (change) => choose(product.id, change))]));
      fill(list, products.length
        ? [...cards.values()].map(({element}) => element)
        : h("li", null, empty(t("shop_empty"), t("shop_empty_more"))));
    }
    paint();
  }

  async function send(sent) {
    if (busy) return;
    busy = true;
    fill(told);
    if (products) paint();
    try {
      const orderId = await sent();
      basket.clear();
      if (!life.over) go(`#/order/${orderId}`);
    } catch (fault) {
      busy = false;
      if (life.over) return;
      refused(fault);
      if (products) paint();
    }
  }

  function refused(fault) {
    if (fault instanceof Refused && fault.code === "MINI_PROGRAM_BRIDGE_REQUIRED") {
      go(`#/upgrade/${fault.body.minBridgeVersion}`);
      return;
    }
    if (fault instanceof LoginNeeded && fault.way === "none") forget(); // nothing was sent, and nothing will be from here
    fill(told, faultNotice(fault, unanswered() ? () => send(resume) : null, leaveIt()));
    told.firstChild.scrollIntoView({block: "center"});
    looking.now();
  }

  const looking = life.repeat(LOOK_MS, async () => {
    try {
      const {products: all} = await call("GET", "/catalog");
      if (!life.over) lay(all.filter((each) => each.status === "ACTIVE"));
    } catch (fault) {
      if (!life.over && !products) fill(list, h("li", null, faultNotice(fault, () => looking.now())));
    }
  }, {longestMs: LOOK_FOR_MS});

  const missed = unanswered();
  if (missed && arrival && recent(missed)) send(resume); // it was sent, and waited for the login that now comes back
  else if (missed) {
    fill(told, notice("wait", t("unanswered"), t("unanswered_more"), button(t("go_on"), () => send(resume)), leaveIt()));
  }

  function leaveIt() {
    return button(t("drop_it"), () => {
      forget();
      fill(told);
      if (products) paint();
    }, "quiet");
  }
}
