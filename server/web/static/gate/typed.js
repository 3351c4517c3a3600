// A code typed by hand, for the phone whose screen is broken.

import {h, fill} from "../dom.js";
import {t} from "../words.js";
import {icon} from "./icons.js";

/** `typed(text)` takes the code. */
export function typedWay(typed) {
  const field = h("input", {class: "input mono", id: "code", name: "code", autocomplete: "off", autocapitalize: "characters",
    autocorrect: "off", spellcheck: "false", enterkeyhint: "go", maxlength: 512, "aria-describedby": "code-hint code-fault"});
  const fault = h("p", {class: "fault", id: "code-fault", role: "alert"});

  function send(event) {
    event.preventDefault();
    const text = field.value;
    const empty = !text.trim();
    field.setAttribute("aria-invalid", String(empty));
    fill(fault, empty && t("typed_empty"));
    if (empty) return field.focus();
    field.value = "";
    typed(text);
  }

  return h("form", {class: "way row top", onsubmit: send, novalidate: true}, icon("keyboard"),
    h("div", {class: "grow stack tight"},
      h("label", {for: "code", class: "heading"}, t("typed")),
      h("div", {class: "row"}, h("div", {class: "grow"}, field), h("button", {class: "button quiet", type: "submit"}, t("typed_send"))),
      fault, h("p", {class: "soft small", id: "code-hint"}, t("typed_hint"))));
}
