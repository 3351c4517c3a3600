// The gate: who works here, where, and then one scan after the other. Wires the parts together; each explains itself.

import {call, Refused} from "../api.js";
import {h, fill, say} from "../dom.js";
import {kept} from "../kept.js";
import {t} from "../words.js";
import "./words.js";
import {alarmBanner} from "./alarm.js";
import {choiceView, knownPlace} from "./choice.js";
import {place, rememberVenues, session, terminal} from "./device.js";
import {late} from "./late.js";
import {loginView} from "./login.js";
import {keepPage} from "./onhand.js";
import {openPost} from "./post.js";
import {queue, WAITING_MAX} from "./queue.js";
import {scanningView} from "./scanning.js";
import {shift} from "./shift.js";
import {prepareSignals, signal} from "./signals.js";
import {openStage} from "./stage.js";

const CODE_CHARS_MAX = 512; // what is longer is no ticket; the server says so of its beginning, too
const LATE_PAUSE_MS = 3_000;

const body = h("div", {});
const alarm = alarmBanner();
const stage = openStage({covers, lifts});
let view = null;
let post = null;
let focused = null; // what had the focus before a verdict covered it
let weatherNow = "up";
let lateHeard = -Infinity;

function covers() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close(); // it would lie above the verdict
  if (body.inert) return;
  focused = body.contains(document.activeElement) ? document.activeElement : null;
  body.inert = true;
}

function lifts() {
  body.inert = false;
  focused?.focus();
}

function show(next) {
  view?.leave?.();
  view = next;
  fill(body, next.element);
  scrollTo(0, 0);
  (next.focus?.() ?? next.element.querySelector("h1"))?.focus();
}

function logIn(why) {
  leaveWork();
  session.close();
  show(loginView({why, entered: goToWork}));
}

function leaveWork() {
  post?.close();
  post = null;
  stage.leave();
  weatherNow = "up";
  alarm.tell({state: "up"});
}

/** Asks where this operator can work. Without network, the place of before is good enough: what is scanned is kept. */
async function goToWork({change = false} = {}) {
  if (!session.get()) return logIn(); // logged out in another window
  const {username, token} = session.get();
  const loading = {element: h("main", {class: "page door row"}, h("span", {class: "wheel"}), h("h1", {tabindex: -1, class: "calm"}, t("loading")))};
  show(loading);
  try {
    const answer = await call("GET", "/venue", {token});
    if (view !== loading) return; // the session ended meanwhile
    rememberVenues(answer.venues);
    const known = !change && knownPlace(answer, username);
    if (known) return scan(known);
    show(choiceView({answer, username, chosen: scan}));
  } catch (fault) {
    if (view !== loading) return;
    if (fault instanceof Refused && [401, 403].includes(fault.status)) return logIn(fault.code);
    const before = place.get()?.username === username ? place.get() : null;
    if (before && !change) return scan(before);
    show(notLoaded(before));
  }
}

function notLoaded(before) {
  const button = (text, kind, onclick) => h("button", {class: `button ${kind}`, type: "button", onclick}, text);
  return {element: h("main", {class: "page door stack"}, h("h1", {tabindex: -1}, t("failed")), h("p", {}, t("venues_unreached")),
    button(t("retry"), "", () => goToWork({change: before !== null})),
    before ? button(t("go_back"), "quiet", () => scan(before)) : button(t("log_out"), "quiet", () => logIn()))};
}

function scan(where) {
  if (!session.get()) return logIn(); // logged out in another window
  place.choose(where);
  const {username, token} = session.get();
  for (const old of queue.outdated()) late.add(old, {fault: "NEVER"});
  post ??= openPost({username, token, answered, weather, over: logIn});
  show(scanningView({
    place: where, username, stage,
    scanned: (text) => scanned(text, where, username),
    change: () => goToWork({change: true}),
    ended: () => { shift.end(username); logIn(); },
  }));
  count();
}

/** Something was read: it is kept, then sent. The same code without an answer is the same scan, however often it is shown. */
function scanned(text, where, username) {
  const code = text.replace(/[\s-]+/g, "").toUpperCase().slice(0, CODE_CHARS_MAX);
  if (!code || !post) return;
  const wanted = {qr_token: code, function_code: where.function_code, venue_code: where.venue_code, username,
    label: where.label, terminal_device_id: terminal()};
  if (stage.repeat(wanted)) return;
  const fresh = queue.same(wanted) ?? queue.add(wanted);
  if (!fresh) return stage.noRoom(WAITING_MAX);
  stage.check(fresh);
  count();
  post.submit(fresh);
}

function answered(sent, answer) {
  const first = queue.drop(sent.scan_id); // else another window, or another try, has counted it
  if (first && answer.result) shift.count(sent.username, answer);
  if (!stage.answer(sent, answer) && first) {
    late.add(sent, answer);
    tellLate();
  }
  count();
  view?.update?.();
}

/** Of many late answers in a row, only the first makes a sound. */
function tellLate() {
  const now = performance.now();
  if (now - lateHeard > LATE_PAUSE_MS) signal("wait");
  lateHeard = now;
  say(t("late_said", {count: late.count()}));
}

function weather(told) {
  const [before, now] = [weatherNow, told.state];
  weatherNow = now;
  alarm.tell(told);
  if (now === "up") say(t("net_back"));
  else if (stage.open()) stage.noAnswerYet();
  else if (before === "up") signal("wait");
  count();
}

function count() {
  const {username} = session.get() ?? {};
  alarm.count(username ? queue.of(username).length : 0);
}

kept.watch(() => {
  count();
  // Another window got the answer to what is shown here: the server tells it again.
  const open = stage.open();
  if (open && post && !queue.has(open.scan_id)) post.submit(open);
});
prepareSignals();
keepPage();
fill(document.getElementById("screen"), alarm.element, body, stage.cover);
if (session.get()) goToWork();
else logIn();
