// Where this page runs. Several signs are read, because each is missing somewhere: some Mini Programs on iOS lack the
// marker in their User-Agent. The server decides which way of paying follows from it, and trusts none of it.

import {handed} from "./address.js";
import {bridgeReady} from "./bridge.js";

const READY_MS = 1_500;
const VERSION = /^[0-9A-Za-z.+_-]{1,64}$/; // what the server takes
const VISIT = "gateline.shell";

const agent = navigator.userAgent.toLowerCase();
const inWeChat = agent.includes("micromessenger");

/** What the shell said when it opened this page, for as long as the visit lasts. */
const shell = handed ?? remembered();
if (handed) remember(handed);

export const shellKnown = shell !== null;

/** "miniprogram", "wechat" or "none". */
export const environment = look();

/** What orders and payments are sent with. */
export async function clientContext() {
  const type = await environment;
  const context = {environmentType: type};
  if (type !== "miniprogram") return context;
  context.miniProgramBridgeSupported = shell?.supported === true;
  if (VERSION.test(shell?.bridgeVersion ?? "")) context.miniProgramBridgeVersion = shell.bridgeVersion;
  if (VERSION.test(shell?.shellVersion ?? "")) context.shellVersion = shell.shellVersion;
  return context;
}

async function look() {
  const named = () => window.__wxjs_environment === "miniprogram";
  if (named() || (inWeChat && agent.includes("miniprogram"))) return "miniprogram";
  if (!inWeChat) return "none";
  const bridge = await bridgeReady(READY_MS);
  // Without its bridge WeChat says nothing: then the shell's own word counts, which only asks for more.
  return named() || (!bridge && shell) ? "miniprogram" : "wechat";
}

function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem(VISIT));
  } catch {
    return null;
  }
}

function remember(what) {
  try {
    sessionStorage.setItem(VISIT, JSON.stringify(what));
  } catch {
    // then it is known until the page is loaded anew
  }
}
