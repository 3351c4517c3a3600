// One ticket at the gate: its living code, what is left on it, and the moment in which a use is spent.

import {Refused, serverNow} from "../api.js";
import {fill, h, say} from "../dom.js";
import {clock, moment, t} from "../words.js";
import {stayAwake} from "./awake.js";
import {liveCode} from "./livecode.js";
import {Life} from "./life.js";
import {button, faultNotice, notice, waiting} from "./notices.js";
import {standing, tag, usesLeft, validity} from "./package.js";
import {remembered, tickets} from "./wallet.js";

const LOOK_MS = 2_500; // somebody waits in front of a gate
const LOOK_FOR_MS = 1_800_000;
const BUZZ_MS = [80, 60, 80];

export function ticketView({title, body, life, go}, code) {
  const told = h("div");
  const stage = h("div", null, waiting());
  const facts = h("div");
  title.textContent = t("tickets");
  body.append(told, stage, facts);
  let ticket = null;
  let shown = null; // which state the stage shows
  let live = null;
  let liveLife = null;
  let current = false; // what is known comes from the server, and not only from this device

  function take(newest) {
    const spent = current ? spentSince(ticket, newest) : [];
    const before = ticket && JSON.stringify(ticket);
    ticket = newest;
    const state = standing(ticket, serverNow());
    title.textContent = ticket.product.name;
    if (before !== JSON.stringify(ticket) || shown !== state) fill(facts, factsOf(ticket, state));
    if (spent.length && live) redeemed(spent, state);
    else if (shown !== state) set(state);
    shown = state;
  }

  function set(state) {
    close();
    if (state === "ACTIVE" || state === "SOON") openStage(state);
    else if (state === "REDEEMED") fill(stage, stamp(t("all_used"), t("all_used_more")));
    else fill(stage, closedNotice(state, ticket));
  }

  function close() {
    liveLife?.end();
    live = null;
  }

  function openStage(state) {
    const awake = h("p", {class: "soft", hidden: true}, t("live_awake"));
    const hint = h("div", {class: "hint small", hidden: true}, h("p", null, t("live_how")), awake);
    liveLife = new Life();
    const keepAwake = stayAwake(liveLife, (held) => (awake.hidden = !held));
    const showing = (yes) => {
      if (yes && hint.hidden) looking.now();
      hint.hidden = !yes;
      keepAwake(yes);
    };
    live = liveCode({ticketCode: code, life: liveLife, refused, showing});
    fill(stage,
      h("section", {class: "card stack gatepass"},
        state === "SOON" ? notice("wait", t("SOON"), t("soon_more", {at: moment(ticket.valid_from)})) : null,
        live.element,
        hint));
  }

  /** A use was spent: this code has done its work. */
  function redeemed(spent, state) {
    navigator.vibrate?.(BUZZ_MS);
    const names = spent.map(({label}) => label).join(" · ");
    const at = clock(serverNow());
    if (state === "REDEEMED") {
      close();
      fill(stage, stamp(t("all_used"), t("all_used_more"), `${names} · ${at}`));
    } else {
      live.cover([stampMark(t("used_title")), h("p", {class: "big"}, names), h("p", {class: "figure"}, at),
        spent.map(({label, remaining_uses: left, total_uses: total}) =>
          h("p", {class: "soft"}, spent.length > 1 ? `${label}: ` : "", t("left_of", {left, total}))),
        button(t("used_again"), () => live.renew())], true);
    }
    say(`${t("used_title")}: ${names}`);
  }

  function refused(fault) {
    if (fault instanceof Refused && fault.code === "TICKET_NOT_USABLE") {
      live.cover([h("p", {class: "big"}, t("unusable_title")), h("p", {class: "soft"}, t("unusable_more"))]);
      looking.now();
      return;
    }
    live.cover(faultNotice(fault, () => live.renew()));
  }

  life.onEnd(close);
  const before = remembered()?.tickets.find((each) => each.ticket_code === code);
  if (before) take(before); // the code is wanted now, and needs no more than this
  const looking = life.repeat(LOOK_MS, async () => {
    try {
      const mine = (await tickets()).find((each) => each.ticket_code === code);
      if (life.over) return;
      fill(told);
      if (mine) take(mine);
      else missing();
      current = true;
    } catch (fault) {
      if (life.over) return;
      if (ticket) { // the living code says what is wrong with the network
        if (current || told.firstChild) return;
        fill(told, h("p", {class: "tag wait"}, t("as_of", {at: moment(remembered().at_ms)})));
        return;
      }
      looking.stop();
      fill(stage, faultNotice(fault, () => go(location.hash, {instead: true})));
    }
  }, {longestMs: LOOK_FOR_MS});

  function missing() {
    looking.stop();
    close();
    fill(facts);
    fill(stage, notice("stop", t("TICKET_NOT_FOUND"), t("TICKET_NOT_FOUND_more")));
  }
}

/** Entitlements with fewer uses than before. */
function spentSince(before, after) {
  const had = new Map(before.entitlements.map((each) => [each.function_code, each.remaining_uses]));
  return after.entitlements.filter((each) => each.remaining_uses < (had.get(each.function_code) ?? 0));
}

function stampMark(text) {
  return h("div", {class: "stamp"}, h("span", {class: "check", "aria-hidden": "true"}), h("strong", null, text));
}

function stamp(text, more, last) {
  return h("section", {class: "card stack stamped"},
    stampMark(text), last ? h("p", {class: "figure"}, last) : null, h("p", {class: "soft"}, more));
}

function closedNotice(state, ticket) {
  if (state === "VOID") return notice("stop", t("void_title"), t("void_more"));
  if (state !== "OVER") return notice("wait", t("unusable_title"), t("other_more", {status: state}));
  return notice("stop", t("over_title"), t("over_more", {at: moment(ticket.valid_until)}));
}

function factsOf(ticket, state) {
  return h("section", {class: `card stack ${state === "ACTIVE" || state === "SOON" ? "" : "closed"}`},
    h("div", {class: "row apart"}, tag(state), validity(ticket, state)),
    usesLeft(ticket.entitlements),
    h("dl", {class: "facts"}, h("dt", null, t("ticket_no")), h("dd", {class: "mono"}, ticket.ticket_code)));
}
