// The living QR of a ticket. A code is good for a minute; a new one is fetched before it is over, and at once when the
// page is seen again. Without network the old one is shown to its last second and then covered: a dead code at a gate
// costs more time than none. Seconds are counted by this page's own clock, which nobody sets.

import {Refused, Unreached} from "../api.js";
import {fill, h, say} from "../dom.js";
import {t} from "../words.js";
import {button} from "./notices.js";
import {ask} from "./session.js";

const AHEAD_MS = 10_000; // time for a slow network before the old code is over
const RETRY_MS = 2_000;
const SHOWN_MS = 1_800_000; // then it is put away
const ANSWER_MS = 6_000;
const ROUND = 2 * Math.PI * 20; // of the ring

/**
 * `{element, renew(), cover(what, done)}`. `refused(fault)` is told of a fault that no retry mends, `showing(yes)` of a good
 * code on the screen.
 */
export function liveCode({ticketCode, life, refused, showing}) {
  const image = h("img", {class: "code", alt: t("live_alt"), width: 328, height: 328, hidden: true});
  const veil = h("div", {class: "veil"});
  const number = h("span", {class: "seconds figure", "aria-hidden": "true"});
  const arc = h("svg:circle", {cx: 24, cy: 24, r: 20, class: "arc", "stroke-dasharray": ROUND});
  const ring = h("div", {class: "ring"},
    h("svg:svg", {viewBox: "0 0 48 48", "aria-hidden": "true"}, h("svg:circle", {cx: 24, cy: 24, r: 20}), arc), number);
  const line = h("p", {class: "grow"});
  const element = h("div", {class: "live"}, h("div", {class: "frame"}, image, veil), h("div", {class: "row beneath"}, ring, line));
  let code = null; // {from, until, renewAt} of performance.now()
  let trouble = null; // why the last attempt failed
  let nextTry = 0;
  let covered = false;
  let asking = false;

  async function fetchCode() {
    asking = true;
    const began = performance.now(); // its minute began after this
    try {
      const {qr_image, valid_for_seconds} = await ask("POST", `/qr/${ticketCode}?image=svg`, {timeoutMs: ANSWER_MS});
      if (life.over || covered) return;
      const lastsMs = valid_for_seconds * 1000;
      code = {from: began, until: began + lastsMs, renewAt: began + lastsMs - Math.min(AHEAD_MS, lastsMs / 3)};
      if (trouble || image.hidden) say(t("live_alt"));
      trouble = null;
      image.src = qr_image;
    } catch (fault) {
      if (life.over || covered) return;
      nextTry = performance.now() + Math.max(RETRY_MS, fault.waitMs ?? 0);
      if (fault instanceof Unreached || (fault instanceof Refused && fault.transient)) trouble = fault;
      else refused(fault);
    } finally {
      asking = false;
      paint();
    }
  }

  function paint() {
    if (covered || life.over) return;
    element.classList.remove("done");
    const now = performance.now();
    const leftMs = code ? code.until - now : 0;
    const seconds = Math.max(0, Math.ceil(leftMs / 1000));
    const good = leftMs > 0;
    showing(good);
    element.classList.toggle("good", good);
    image.hidden = !good;
    ring.hidden = !good;
    number.textContent = String(seconds);
    arc.setAttribute("stroke-dashoffset", code ? String(ROUND * (1 - Math.max(0, leftMs) / (code.until - code.from))) : "0");
    element.classList.toggle("troubled", trouble !== null);
    line.textContent = good ? lineOf(seconds) : "";
    const veiled = good ? "" : veilOf();
    if (veil.dataset.says !== veiled) {
      veil.dataset.says = veiled;
      fill(veil, veiled ? veilWords(veiled) : null);
      if (trouble && veiled) say(t(veiled));
    }
    veil.hidden = good;
  }

  function lineOf(seconds) {
    if (trouble instanceof Unreached) return t("live_offline", {n: seconds});
    return trouble || asking ? t("live_renewing") : t("live_seconds", {n: seconds});
  }

  function veilOf() {
    if (trouble instanceof Refused) return "live_busy";
    return trouble ? "live_over" : "live_fetching";
  }

  const ticking = life.repeat(250, () => {
    paint();
    const now = performance.now();
    if (!covered && !asking && now >= (trouble ? nextTry : code?.renewAt ?? 0)) fetchCode(); // paints when it is back
  }, {longestMs: SHOWN_MS, onRest: rest});

  function cover(what, done = false) {
    covered = true;
    element.classList.toggle("done", done);
    code = null;
    showing(false);
    element.classList.remove("good");
    image.hidden = true;
    image.removeAttribute("src");
    ring.hidden = true;
    line.textContent = "";
    veil.hidden = false;
    veil.dataset.says = "";
    fill(veil, what);
  }

  function renew() {
    covered = false;
    code = null;
    trouble = null;
    ticking.now();
  }

  function rest() {
    cover([h("p", {class: "big"}, t("live_resting")), button(t("show_ticket"), renew)]);
  }

  life.listen(document, "visibilitychange", () => {
    if (!document.hidden && code) code.renewAt = 0;
  });
  life.listen(window, "online", () => {
    nextTry = 0;
  });
  paint();
  return {element, renew, cover};
}

function veilWords(key) {
  if (key === "live_fetching") return h("p", {class: "row"}, h("span", {class: "wheel", "aria-hidden": "true"}), t(key));
  return [h("p", {class: "big"}, t(key)), h("p", {class: "soft"}, t(`${key}_more`))];
}
