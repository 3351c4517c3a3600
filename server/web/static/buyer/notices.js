// What is shown when something did not go as wished: what happened, and what to do about it.

import {Refused, Unreached} from "../api.js";
import {h, say} from "../dom.js";
import {knows, t} from "../words.js";
import {LoginNeeded, logInAnew} from "./session.js";

/** Something to be read before going on. `kind`: "", "wait", "stop" or "go"; no title where the view's own says it. */
export function notice(kind, title, more, ...actions) {
  say([title, more].filter(Boolean).join(". "));
  const acting = actions.filter(Boolean);
  return h("section", {class: `notice ${kind}`},
    title ? h("h2", null, title) : null,
    more ? h("p", null, more) : null,
    acting.length ? h("div", {class: "row wrap"}, acting) : null);
}

/** A fault as a notice. `retry`: what its button does, where trying again can help; `instead`: a button beside it. */
export function faultNotice(fault, retry, instead = null) {
  if (fault instanceof LoginNeeded) return loginNotice(fault, retry);
  const again = retry ? button(t("retry"), retry) : null;
  if (fault instanceof Unreached) return notice("wait", t("unreached"), t("unreached_more"), again, again && instead);
  if (!(fault instanceof Refused)) throw fault;
  if (fault.code === "WECHAT_OPENID_REQUIRED") {
    return notice("wait", t("openid_needed"), t("openid_needed_more"), loginButton(retry, "login_again", {byWeChat: true}));
  }
  if (knows(`${fault.code}_more`)) {
    const [tone, action] = fault.transient ? ["wait", again] : ["stop", null];
    return notice(tone, t(fault.code), t(`${fault.code}_more`, {...fault.body, minutes: Math.ceil(fault.waitMs / 60_000)}), action);
  }
  if (fault.transient && fault.status !== 500) return notice("wait", t("busy"), t("busy_more"), again, again && instead);
  return notice("stop", t("failed"), t("failed_more", {id: fault.body.request_id}), again);
}

/** An empty place that says what will be there, and how. */
export function empty(title, more, ...actions) {
  return h("div", {class: "empty stack"}, h("h2", null, title), h("p", {class: "soft"}, more), actions);
}

export function button(text, act, kind = "") {
  return h("button", {type: "button", class: `button ${kind}`, onclick: act}, text);
}

/** The place of something that is on its way, as tall as what will come. */
export function waiting(text = t("loading")) {
  return h("div", {class: "waiting row", role: "status"}, h("span", {class: "wheel", "aria-hidden": "true"}), text);
}

function loginNotice(fault, retry) {
  if (fault.code === "NOT_KEPT") return notice("stop", t("not_kept"), t("not_kept_more"));
  if (fault.way === "guest") {
    const ended = fault.code !== "TOKEN_REQUIRED";
    if (ended) return notice("wait", t("guest_over"), t("guest_over_more"), loginButton(retry, "guest_anew"));
    return notice("wait", t("guest"), t("guest_more"), loginButton(retry, "guest_go"));
  }
  if (fault.way === "none") {
    return notice("wait", t("wechat_only"), t("wechat_only_more"), h("p", {class: "mono"}, location.origin + location.pathname));
  }
  if (fault.code === "TOKEN_REQUIRED") return notice("", t("login_needed"), t("login_needed_more"), loginButton(retry, "log_in"));
  if (/^TOKEN_/.test(fault.code)) return notice("wait", t("session_over"), t("session_over_more"), loginButton(retry));
  return notice("wait", t("login_failed"), t("login_failed_more"), loginButton(retry));
}

function loginButton(after, text = "login_again", how = {}) {
  return button(t(text), async ({currentTarget}) => {
    currentTarget.disabled = true;
    try {
      if (await logInAnew(how)) after?.();
    } catch {
      after?.(); // whatever it was, asking again shows it
    } finally {
      currentTarget.disabled = false;
    }
  });
}
