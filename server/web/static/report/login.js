// The login, alone on the page or above figures that are no longer updated.

import {Refused} from "../api.js";
import {fill, h, say} from "../dom.js";
import {t} from "../words.js";
import {logIn} from "./session.js";

/** `notice`: what is said above the form; `then`: called with the user name once there is a token. */
export function loginForm({notice, then}) {
  const username = h("input", {class: "input", id: "username", name: "username", autocomplete: "username", autocapitalize: "none",
    spellcheck: "false", required: true, "aria-describedby": "login-fault"});
  const password = h("input", {class: "input", id: "password", name: "password", type: "password", autocomplete: "current-password",
    required: true, "aria-describedby": "login-fault"});
  const fault = h("p", {class: "fault", id: "login-fault", role: "alert"});
  const button = h("button", {class: "button block", type: "submit"}, t("log_in"));

  async function submit(event) {
    event.preventDefault();
    if (button.disabled) return;
    if (!username.value.trim() || !password.value) return wrong(t("login_empty"), username.value.trim() ? password : username);
    button.disabled = true;
    fill(button, h("span", {class: "wheel"}), t("logging_in"));
    fill(fault);
    try {
      await logIn(username.value.trim(), password.value);
      await then(username.value.trim());
    } catch (problem) {
      const mistaken = problem instanceof Refused && !problem.transient;
      const held = problem instanceof Refused && problem.waitMs > 0;
      const told = mistaken ? "login_failed" : held ? "login_held" : problem instanceof Refused ? "login_busy" : "login_unreached";
      wrong(t(told, {seconds: problem.waitMs / 1000}), mistaken ? password : button);
    } finally {
      button.disabled = false;
      fill(button, t("log_in"));
    }
  }

  function wrong(text, place) {
    fill(fault, text);
    for (const input of [username, password]) input.setAttribute("aria-invalid", String(input === place));
    button.disabled = false;
    place.focus();
  }

  return h("form", {class: "card stack login", onsubmit: submit, novalidate: true},
    notice,
    h("div", {class: "field"}, h("label", {for: "username"}, t("username")), username),
    h("div", {class: "field"}, h("label", {for: "password"}, t("password")), password),
    fault, button);
}

/** Words for somebody whose account is for gates. */
export function gateNotice(name) {
  say(t("for_analysts"));
  return h("div", {class: "notice wait"}, h("strong", {}, t("for_analysts")),
    h("p", {}, t("for_analysts_more", {name})), h("a", {class: "button quiet small", href: "/gate"}, t("to_gate")));
}
