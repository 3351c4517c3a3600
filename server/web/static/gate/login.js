// The operator's login.

import {call, Refused} from "../api.js";
import {h, fill} from "../dom.js";
import {knows, languageButton, t} from "../words.js";
import {session} from "./device.js";
import {queue} from "./queue.js";
import {shift} from "./shift.js";

/** What waits for this operator's next login, in words; nothing when nothing waits. */
function keptNotice(code) {
  const name = session.lastUsername();
  const count = name ? queue.of(name).length : 0;
  if (!count) return null;
  return h("div", {class: "notice wait"}, h("strong", {}, t("kept_title", {count})),
    h("p", {}, t(code === "OPERATOR_DISABLED" ? "kept_disabled" : "kept_more", {name})));
}

/** `why`: the code that ended the session before, if one did. `entered()`: somebody is logged in. */
export function loginView({why, entered}) {
  const username = h("input", {class: "input", id: "username", name: "username", autocomplete: "username", autocapitalize: "none",
    autocorrect: "off", spellcheck: "false", maxlength: 64, value: session.lastUsername()});
  const password = h("input", {class: "input", id: "password", name: "password", type: "password", autocomplete: "current-password",
    maxlength: 256});
  const button = h("button", {class: "button block", type: "submit"}, t("log_in"));
  const fault = h("p", {class: "fault", role: "alert"});

  async function enter(event) {
    event.preventDefault();
    if (button.disabled) return;
    fill(fault);
    const name = username.value.trim();
    if (!name || !password.value) return refuse(t("login_empty"), name ? password : username);
    button.disabled = true;
    fill(button, h("span", {class: "wheel"}), t("logging_in"));
    try {
      const {operator_token} = await call("POST", "/operators/login", {body: {username: name, password: password.value}});
      session.open(name, operator_token);
      shift.begin(name);
      entered();
    } catch (error) {
      refuse(error instanceof Refused ? told(error) : t("login_unreached"), password);
    } finally {
      button.disabled = false;
      fill(button, t("log_in"));
    }
  }

  function told(refused) {
    const code = refused.code === "VALIDATION_FAILED" ? "LOGIN_FAILED" : refused.code; // a name that cannot be one
    return knows(code) ? t(code, {seconds: refused.waitMs / 1000}) : t("failed_more", {id: refused.body.request_id ?? code});
  }

  function refuse(text, field) {
    fill(fault, text);
    for (const each of [username, password]) each.setAttribute("aria-invalid", String(each === field));
    field.focus();
  }

  return {
    element: h("main", {class: "page door stack"},
      h("div", {class: "row apart"}, h("p", {class: "brand"}, t("brand"), " · ", t("gate")), languageButton()),
      h("div", {class: "stack tight"}, h("h1", {tabindex: -1}, t("login_title")), h("p", {class: "soft"}, t("login_lead"))),
      why && h("div", {class: "notice stop", role: "alert"}, h("p", {}, knows(why) ? t(why) : t("session_over"))),
      keptNotice(why),
      h("form", {class: "card stack", onsubmit: enter, novalidate: true},
        h("div", {class: "field"}, h("label", {for: "username"}, t("username")), username),
        h("div", {class: "field"}, h("label", {for: "password"}, t("password")), password),
        fault, button)),
    focus: () => (why ? null : username.value ? password : username),
  };
}
