// Where one works and what is checked there: asked once, remembered on the device.

import {h, fill} from "../dom.js";
import {languageButton, t} from "../words.js";
import {place} from "./device.js";

/** The place that need not be asked for: this operator's last one here, or a home venue with a single function. */
export function knownPlace({venues, home_venue}, username) {
  const find = (venueCode, functionCode) => {
    const venue = venues.find((each) => each.venue_code === venueCode);
    const served = venue?.functions.find((each) => each.function_code === functionCode);
    return served && placeOf(username, venue, served);
  };
  const before = place.get();
  const mine = before?.username === username && find(before.venue_code, before.function_code);
  if (mine) return mine;
  const home = venues.find((each) => each.venue_code === home_venue);
  return home?.functions.length === 1 ? find(home.venue_code, home.functions[0].function_code) : null;
}

const placeOf = (username, venue, served) => ({
  username, venue_code: venue.venue_code, venue: venue.name, function_code: served.function_code, label: served.label,
});

function option(group, value, label, note, checked, changed) {
  return h("label", {class: "option"},
    h("input", {type: "radio", name: group, value, checked, onchange: changed}),
    h("span", {class: "grow"}, label), note && h("span", {class: "tag"}, note));
}

/** `chosen(place)`: one works there from now on. */
export function choiceView({answer, username, chosen}) {
  const {venues, home_venue} = answer;
  const before = place.get(); // also another operator's: the device probably still stands there
  const known = (code) => venues.find((each) => each.venue_code === code);
  let venue = known(before?.venue_code) ?? known(home_venue) ?? (venues.length === 1 ? venues[0] : null);
  let served = null;

  const functions = h("fieldset", {class: "options"});
  const go = h("button", {class: "button block", type: "submit"}, t("start"));

  function take(code) {
    venue = known(code);
    offerFunctions();
  }

  function offerFunctions() {
    const offered = venue?.functions ?? [];
    served = offered.find((each) => each.function_code === before?.function_code) ?? (offered.length === 1 ? offered[0] : null);
    functions.hidden = !venue;
    fill(functions, h("legend", {class: "label"}, t("function")),
      offered.length ? offered.map((each) => option("function", each.function_code, each.label, null, each === served, () => {
        served = each;
        go.disabled = false;
      })) : h("p", {class: "notice wait"}, t("nothing_served")));
    go.disabled = !served;
  }

  function done(event) {
    event.preventDefault();
    if (!venue || !served) return;
    const where = placeOf(username, venue, served);
    place.choose(where);
    chosen(where);
  }

  offerFunctions();
  return {
    element: h("main", {class: "page door stack"},
      h("div", {class: "row apart"}, h("p", {class: "brand"}, t("brand"), " · ", username), languageButton()),
      h("div", {class: "stack tight"}, h("h1", {tabindex: -1}, t("place_title")), h("p", {class: "soft"}, t("place_lead"))),
      venues.length ? h("form", {class: "stack", onsubmit: done},
        h("fieldset", {class: "options"}, h("legend", {class: "label"}, t("venue")), venues.map((each) =>
          option("venue", each.venue_code, each.name, each.venue_code === home_venue && t("home"), each === venue,
            () => take(each.venue_code)))),
        functions, h("div", {class: "foot"}, go))
        : h("p", {class: "notice wait"}, t("no_venues"))),
  };
}
