// One order, from its making to its end. What it says of money comes from the server alone: while the order waits for
// payment it is looked at every 3 s, and after a launch WeChat is asked through the server every 6 s.

import {Refused, Unreached} from "../api.js";
import {fill, h, say} from "../dom.js";
import {kept} from "../kept.js";
import {moment, t, yuan} from "../words.js";
import {faultNotice, notice, waiting} from "./notices.js";
import {endedView} from "./ended.js";
import {tag} from "./package.js";
import {payingView} from "./paying.js";
import {ask} from "./session.js";

const LOOK_MS = 3_000;
const INQUIRE_MS = 6_000;
const WATCH_MS = 600_000; // then it rests until somebody asks, or comes back to the page
const LAUNCHED = "buyer.launched"; // {order_id, channel, at_ms}: a payment that was begun, also before a reload
const LAUNCH_LASTS_MS = 900_000;

export function orderView({title, body, life, go}, orderId) {
  const told = h("div", {class: "stack tight"});
  const panel = h("div", {class: "stack"}, waiting());
  const facts = h("div");
  title.textContent = t("orders");
  body.append(told, panel, facts);
  let order = null;
  let paying = null;
  let inquiring = null;
  let inquiredAt = -Infinity;

  const look = () => learn(() => ask("GET", `/orders/${orderId}`));
  const inquire = () => {
    inquiredAt = performance.now();
    return learn(() => ask("POST", `/orders/${orderId}/query`, {timeoutMs: 20_000}), true);
  };

  /** Gives whether an answer came. */
  async function learn(asking, asked = false) {
    try {
      const newest = await asking();
      if (life.over) return false;
      fill(told);
      take(newest);
      return true;
    } catch (fault) {
      if (!life.over) missed(fault, asked);
      return false;
    }
  }

  function missed(fault, asked) {
    const passing = fault instanceof Unreached || (fault instanceof Refused && fault.transient);
    if (asked && passing) return; // WeChat did not answer; looking goes on
    if (passing && order) {
      if (!told.firstChild) fill(told, notice("wait", t("unreached"), t("offline_more")));
      return;
    }
    if (!passing) stop();
    fill(told, faultNotice(fault, () => go(location.hash, {instead: true})));
    if (!order) fill(panel);
  }

  function take(newest) {
    const before = order?.status;
    order = newest;
    if (before === order.status) return;
    fill(facts, factsOf(order));
    if (order.status === "PENDING_PAYMENT") {
      paying = payingView({order, life, go, launched, check, orderEnded: take, begun: begun()});
      title.textContent = t("pay_title");
      fill(panel, paying.element);
      if (begun()) startInquiring();
      return;
    }
    stop();
    paying?.end();
    kept.drop(LAUNCHED);
    const ended = endedView({order, life, check, go});
    title.textContent = ended.title;
    fill(panel, ended.element);
    if (order.status === "PAID") say(ended.title);
    if (before) title.focus({preventScroll: true});
  }

  /** A payment was begun: on this page, or before it was loaded anew. */
  function begun() {
    const noted = kept.get(LAUNCHED);
    return noted?.order_id === orderId && Date.now() - noted.at_ms < LAUNCH_LASTS_MS ? noted.channel : null;
  }

  function launched(channel) {
    kept.set(LAUNCHED, {order_id: orderId, channel, at_ms: Date.now()});
    looking.now();
    startInquiring();
  }

  function startInquiring() {
    if (inquiring) inquiring.now(INQUIRE_MS);
    else inquiring = life.repeat(INQUIRE_MS, inquire, {longestMs: WATCH_MS, firstMs: INQUIRE_MS});
  }

  /** The buyer's own question, at once; WeChat is not asked more often for it. Gives whether it was answered. */
  async function check() {
    const early = performance.now() - inquiredAt < INQUIRE_MS;
    const answered = await (early ? look() : inquire());
    if (order?.status === "PENDING_PAYMENT" && !life.over) {
      looking.now(LOOK_MS);
      if (inquiring || begun()) startInquiring();
    }
    return answered;
  }

  const stop = () => {
    looking.stop();
    inquiring?.stop();
  };
  const looking = life.repeat(LOOK_MS, look, {longestMs: WATCH_MS, onRest: () => paying?.rest()});
}

function factsOf(order) {
  return h("section", {class: "card stack tight"},
    h("div", {class: "row apart"}, h("h2", null, t("what")), tag(order.status)),
    h("ul", {class: "contents"}, order.items.map(({name, qty, unit_price_fen: price}) =>
      h("li", null, h("span", {class: "grow"}, name), h("span", {class: "figure times"}, t("units", {n: qty})),
        h("span", {class: "figure sum"}, price ? yuan(price * qty) : t("free"))))),
    h("dl", {class: "facts"},
      h("dt", null, t("total")),
      h("dd", {class: "figure"}, h("strong", null, order.total_fen ? yuan(order.total_fen) : t("free"))),
      h("dt", null, t("made_at")), h("dd", {class: "figure"}, moment(order.created_at)),
      h("dt", null, t("order_no")), h("dd", {class: "mono number"}, order.order_id)));
}
