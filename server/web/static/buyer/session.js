// Who buys here. In a Mini Program the shell brings a code, in the WeChat browser WeChat's own page does, and a demo
// lets anyone in under a name that this device keeps. Elsewhere a buyer may be a guest: known by a token on this device.

import {Refused, Unreached, call, freshId} from "../api.js";
import {kept} from "../kept.js";
import {arrival} from "./address.js";
import {reopenShell} from "./bridge.js";
import {environment, shellKnown} from "./environment.js";

const TOKEN = "buyer.token"; // {token, buyer_id, until_ms}
const NAME = "buyer.name"; // of the demo
const GUEST = "buyer.guest"; // whether a guest ever bought here
const LEFT = "buyer.login"; // {state, place, at_ms}: a login that went to WeChat's page and has not come back
const AUTHORISE = "https://open.weixin.qq.com/connect/oauth2/authorize";
const RETURN_MS = 60_000; // longer ago, it is tried again without asking
const STALE_MS = 30_000; // a token with less left is not begun with

/** Nobody is logged in, and it takes the buyer to change that. `way`: what logInAnew() will do. */
export class LoginNeeded extends Error {
  constructor(way, code) {
    super(code);
    this.way = way;
    this.code = code;
  }
}

let client = null;
let entering = null; // the login under way: one at a time, whoever waits for it
let asGuest = false; // the buyer was told what that means, and wants it
let refusedWith = null; // why the login by WeChat failed or ended: on this page it is not begun again without the buyer

/** What this installation offers to buyers. */
export async function offered() {
  client ??= await call("GET", "/client");
  return client;
}

/** One request of the buyer. A token that has run out is replaced where that needs nobody, and the same is sent again. */
export async function ask(method, path, options = {}) {
  const token = await signedIn();
  try {
    return await call(method, path, {...options, token});
  } catch (fault) {
    if (!(fault instanceof Refused && fault.status === 401)) throw fault;
    const how = await way();
    // A guest's token is all that there is of them: it goes when they begin anew, and not when a server fails to know it.
    if (how !== "guest" && kept.get(TOKEN)?.token === token) kept.drop(TOKEN);
    if (how !== "demo") {
      refusedWith = fault.code;
      throw new LoginNeeded(how, fault.code);
    }
    return call(method, path, {...options, token: await signedIn()});
  }
}

/** Follow a code that came in the address; where there is none, nothing is done before somebody asks for something. */
export function arrive() {
  if (!arrival) return;
  const left = kept.get(LEFT);
  kept.drop(LEFT);
  const sentFor = Boolean(left && arrival.state && left.state === arrival.state);
  if (left?.place) history.replaceState(null, "", left.place);
  entering = exchange(arrival.code, sentFor);
  entering.catch(() => {}); // whoever asks next is told
}

/** What the buyer's button does; `byWeChat`: nobody else's word will do. Gives whether this page stays. */
export async function logInAnew({byWeChat = false} = {}) {
  kept.drop(TOKEN);
  refusedWith = null;
  const how = byWeChat && (await environment) === "miniprogram" ? "shell" : await way();
  if (how === "shell") return (await reopenShell(location.hash)) === "missing";
  if (how === "browser") {
    await toWeChat();
    return false;
  }
  asGuest = how === "guest";
  await signedIn();
  return true;
}

async function signedIn() {
  if (entering) await settled();
  const held = kept.get(TOKEN);
  if (held && held.until_ms - Date.now() > STALE_MS) return held.token;
  entering ??= enter();
  await settled();
  return kept.get(TOKEN).token;
}

async function settled() {
  const waitedFor = entering;
  try {
    await waitedFor;
  } finally {
    if (entering === waitedFor) entering = null;
  }
}

async function enter() {
  const how = await way();
  if (refusedWith) throw new LoginNeeded(how, refusedWith);
  if (how === "demo") {
    if (!kept.get(NAME)) kept.set(NAME, `web-${freshId().replaceAll("-", "").slice(0, 12)}`);
    keep(await call("POST", "/auth/demo/login", {body: {buyer: kept.get(NAME)}}));
  } else if (how === "guest" && asGuest) {
    // Where nothing is kept, a paid ticket would be lost with the page.
    if (!kept.set(GUEST, true)) throw new LoginNeeded("none", "NOT_KEPT");
    keep(await call("POST", "/auth/guest/login"));
  } else if (how === "browser" && !(Date.now() - kept.get(LEFT)?.at_ms < RETURN_MS)) {
    await toWeChat();
    await new Promise(() => {}); // this page is about to go
  } else {
    throw new LoginNeeded(how, how === "none" ? "WECHAT_ONLY" : "TOKEN_REQUIRED");
  }
}

/** Whether whoever buys here is known by this device alone. */
export const isGuest = () => kept.get(TOKEN)?.buyer_id.startsWith("guest:") ?? false;

/** How one logs in from here: "shell", "browser", "demo", "guest" or "none". */
async function way() {
  const [where, {demo_login, guest_login, gateways, wechat_appid}] = await Promise.all([environment, offered()]);
  if (where === "wechat" && wechat_appid) return "browser";
  if (where === "miniprogram" && gateways.includes("wechat") && (shellKnown || arrival || !demo_login)) return "shell";
  if (demo_login) return "demo";
  return guest_login ? "guest" : "none";
}

async function exchange(code, sentFor) {
  const where = await environment;
  try {
    // A code that this device did not send for would make the buyer somebody else.
    if (where !== "miniprogram" && !sentFor) throw new LoginNeeded(await way(), "LOGIN_STRAY");
    kept.drop(TOKEN);
    keep(await call("POST", "/auth/wechat/login", {body: {code, environment: where === "miniprogram" ? where : "wechat"}}));
  } catch (fault) {
    if (fault instanceof Unreached) throw fault;
    refusedWith = fault.code;
    throw new LoginNeeded(await way(), fault.code);
  }
}

async function toWeChat() {
  const {wechat_appid} = await offered();
  const state = freshId().replaceAll("-", "");
  kept.set(LEFT, {state, place: location.hash, at_ms: Date.now()});
  const asked = new URLSearchParams({
    appid: wechat_appid,
    redirect_uri: location.origin + location.pathname,
    response_type: "code",
    scope: "snsapi_base",
    state,
  });
  location.replace(`${AUTHORISE}?${asked}#wechat_redirect`);
}

function keep({token, buyer_id, expires_in_s}) {
  if (kept.get(TOKEN)?.buyer_id !== buyer_id) kept.drop("buyer.tickets");
  kept.set(TOKEN, {token, buyer_id, until_ms: Date.now() + expires_in_s * 1000});
}
