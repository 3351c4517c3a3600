// The report's screen: the login, then the board.

import {fill, h} from "../dom.js";
import {languageButton, t} from "../words.js";
import "./words.js";
import {Board} from "./board.js";
import {gateNotice, loginForm} from "./login.js";
import {logOut, loggedIn} from "./session.js";

const screen = document.getElementById("screen");
let board = null;

function show(content, {out = null} = {}) {
  fill(screen,
    h("a", {class: "skip", href: "#main"}, t("skip")),
    h("header", {class: "bar wide"}, h("div", {},
      h("span", {class: "brand"}, t("brand")), h("span", {class: "soft grow"}, t("report")), languageButton(),
      out ? h("button", {class: "button quiet small", type: "button", onclick: out}, t("log_out")) : null)),
    content);
}

/** The login alone. */
function door(notice = null) {
  board?.end();
  board = null;
  logOut();
  const title = h("h1", {tabindex: "-1"}, t("login_title"));
  show(h("main", {class: "page stack entrance", id: "main"}, title, h("p", {class: "soft"}, t("login_lead")),
    loginForm({notice, then: open})));
  title.focus();
}

/** The figures, for whoever has a token. */
function open(name = "") {
  board = new Board({
    name,
    foreign: (who) => door(gateNotice(who)),
    expired: (words) => door(h("div", {class: "notice wait"}, h("strong", {}, words))),
  });
  show(board.element, {out: () => door()});
  board.begin();
}

document.title = `${t("report_title")} · Gateline`;
if (loggedIn()) open();
else door();
