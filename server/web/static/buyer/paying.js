// An order that waits for payment: the way to pay here, how long there is, and what the phone reported. A report of the
// phone changes words on this page and nothing else.

import {Refused, serverNow} from "../api.js";
import {fill, h, say} from "../dom.js";
import {clock, t, yuan} from "../words.js";
import {payInBrowser, payInShell} from "./bridge.js";
import {clientContext, environment} from "./environment.js";
import {button, faultNotice, notice, waiting} from "./notices.js";
import {noteOffer, offerOf} from "./purchase.js";
import {ask, offered} from "./session.js";
import {HOSTED, waysOut} from "./waysout.js";

const LAUNCHERS = {WECHAT_JSAPI: payInBrowser, MINIPROGRAM_BRIDGE: payInShell};
const STALE_MS = {WECHAT_H5: 240_000}; // an h5_url lives 5 minutes
const SECOND_TAP_MS = 1_000; // a launch is not launched again by a thumb that trembles
const STALE_ELSE_MS = 3_600_000; // the others 2 hours

export function payingView({order, life, go, launched, check, orderEnded, begun}) {
  const state = {
    phase: "idle", // what the buyer sees: see draw()
    offer: null,
    fault: null,
    retry: null, // what mends the fault
    checked: null, // what the buyer's own question brought
    asking: false,
    resting: false,
    sure: false, // that the order is to be cancelled
    choice: false, // of gateways
  };
  const left = h("p", {class: "left figure"});
  const place = h("div", {class: "stack"});
  const element = h("div", {class: "stack"},
    h("section", {class: "card amount"}, h("p", {class: "price figure"}, yuan(order.total_fen)), left), place);
  let over = false;
  let round = 0; // launches so far: what an earlier one reports is no longer of interest
  let launchedAt = -Infinity;

  const become = (change) => {
    Object.assign(state, change);
    if (over || life.over) return;
    const focused = document.activeElement?.id;
    fill(place, draw(state, acts, order));
    if (focused) document.getElementById(focused)?.focus();
  };

  async function prepare(gateway) {
    become({phase: "preparing", fault: null, sure: false});
    try {
      const body = {clientContext: await clientContext(), ...(gateway ? {gateway} : {})};
      const offer = await ask("POST", `/orders/${order.order_id}/pay`, {body, timeoutMs: 20_000});
      if (!over && !life.over) taken(noteOffer(offer));
      return true;
    } catch (fault) {
      if (!(await understood(fault))) become({phase: "idle", fault, retry: acts.pay});
      return false;
    }
  }

  /** Refusals that are no fault: another view says what they mean. */
  async function understood(fault) {
    if (!(fault instanceof Refused)) return false;
    if (fault.code === "MINI_PROGRAM_BRIDGE_REQUIRED") {
      go(`#/upgrade/${fault.body.minBridgeVersion}`);
      return true;
    }
    if (fault.code !== "ORDER_NOT_PAYABLE" && fault.code !== "ORDER_NOT_CANCELLABLE") return false;
    await check();
    become({phase: "idle", sure: false});
    return true;
  }

  /** What is on the page by itself: a code, or a way out; the others wait for the buyer's tap. */
  function taken(offer) {
    const shown = offer.channel in waysOut;
    become({offer, phase: shown ? "shown" : "idle"});
    if (offer.channel === "WECHAT_NATIVE") launched(offer.channel);
    const lasts = STALE_MS[offer.channel] ?? STALE_ELSE_MS;
    if (shown) life.after(lasts, () => state.offer === offer && state.phase === "shown" && become({phase: "idle"}));
  }

  async function pay() {
    if (state.phase === "preparing" || state.phase === "opening") return;
    if (state.phase === "launched" && performance.now() - launchedAt < SECOND_TAP_MS) return;
    const again = state.phase !== "idle" || !fresh(state.offer);
    if (again && !(await prepare(state.offer?.channel === HOSTED ? "hosted" : null))) return;
    if (over || life.over) return;
    const {channel, payPayload} = state.offer;
    const launch = LAUNCHERS[channel];
    if (!launch) return; // it is on the page now
    const mine = ++round;
    const report = (phase) => mine === round && become({phase});
    launchedAt = performance.now();
    report("opening");
    launched(channel);
    report(await launch(payPayload, () => report("launched")));
    if (!life.over) launched(channel);
  }

  const acts = {
    pay,
    out: () => {
      launched(state.offer.channel);
      life.after(300, () => become({phase: "launched"})); // once the browser has followed the link
    },
    renew: () => prepare(null),
    otherwise: () => prepare(state.offer?.channel === HOSTED ? "wechat" : "hosted"),
    async check() {
      if (state.asking) return;
      become({asking: true, resting: false});
      const answered = await check();
      become({asking: false, checked: answered ? t("still_pending", {at: clock(serverNow())}) : t("check_failed")});
      if (!over && !life.over) say(state.checked);
    },
    sure: (sure) => become({sure}),
    async cancel() {
      try {
        orderEnded(await ask("POST", `/orders/${order.order_id}/cancel`));
      } catch (fault) {
        if (!(await understood(fault))) become({sure: false, fault, retry: acts.cancel});
      }
    },
  };

  life.repeat(1_000, () => {
    const seconds = Math.ceil((Date.parse(order.expires_at) - serverNow()) / 1000);
    const text = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    left.textContent = seconds > 0 ? t("pay_within", {left: text}) : t("pay_over");
    left.classList.toggle("short", seconds < 60);
  }, {longestMs: Infinity}); // it asks nobody, and ends with the view

  begin();
  return {
    element,
    end: () => (over = true),
    rest: () => become({resting: true}),
  };

  async function begin() {
    const offer = offerOf(order.order_id);
    if (offer?.fault) become({fault: offer.fault, retry: acts.pay});
    else if (offer?.channel) taken(offer);
    else if (begun === "WECHAT_NATIVE") prepare(null);
    else become({phase: begun ? "launched" : "idle"});
    const [{gateways}, where] = await Promise.all([offered(), environment]).catch(() => [{gateways: []}, "none"]);
    if (gateways.length > 1 && where !== "miniprogram") become({choice: true});
  }
}

function fresh(offer) {
  return offer !== null && performance.now() - offer.at_ms < (STALE_MS[offer.channel] ?? STALE_ELSE_MS);
}

const REPORTS = {
  launched: ["busy", "launched"],
  confirming: ["wait busy", "confirming"],
  cancelled: ["wait", "cancelled"],
  failed: ["stop", "failed_pay"],
  missing: ["stop", "missing"],
};

function draw(state, acts, order) {
  const {phase, offer, fault, asking} = state;
  if (phase === "preparing" || phase === "opening") return [waiting(t("preparing"))];
  const amount = yuan(order.total_fen);
  const report = REPORTS[phase];
  const waits = phase === "launched" || phase === "confirming"; // for the server's word
  const way = phase === "shown" ? waysOut[offer.channel]({offer, amount, acts}) : null;
  const checkAgain = button(asking ? t("checking") : t("check_again"), acts.check, `block ${waits ? "" : "quiet"}`);
  checkAgain.id = "check";
  const payAgain = button(report ? t("pay_again") : t("pay", {amount}), acts.pay, `block ${phase === "launched" ? "quiet" : ""}`);
  payAgain.id = "pay";
  return [
    fault ? faultNotice(fault, state.retry) : null,
    report ? notice(report[0], t(report[1]), t(`${report[1]}_more`)) : null,
    state.resting ? notice("wait", t("resting"), t("resting_more")) : null,
    way,
    waits ? checkAgain : null,
    phase === "confirming" || way || hasItsOwnButton(fault) ? null : payAgain,
    waits || (phase === "idle" && !state.resting && !fault) ? null : checkAgain,
    state.checked && !asking ? h("p", {class: "soft small middle"}, state.checked) : null,
    state.choice && phase !== "confirming" ? otherGateway(offer, acts) : null,
    phase === "confirming" ? null : giveUp(state.sure, acts),
  ];
}

function hasItsOwnButton(fault) {
  return fault !== null && (!(fault instanceof Refused) || fault.transient || fault.code === "WECHAT_OPENID_REQUIRED");
}

function otherGateway(offer, acts) {
  return button(t(offer?.channel === HOSTED ? "wechat_instead" : "hosted_instead"), acts.otherwise, "quiet block");
}

function giveUp(sure, acts) {
  if (!sure) return button(t("cancel_order"), () => acts.sure(true), "plain block");
  return notice("wait", t("cancel_order"), t("cancel_sure"),
    button(t("cancel_no"), () => acts.sure(false)), button(t("cancel_yes"), acts.cancel, "quiet"));
}
