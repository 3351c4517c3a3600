// What belongs to this device: its name among the terminals, who works at it, and where.

import {kept} from "../kept.js";
import {freshId} from "../api.js";

/** The terminal's id: made once, and the same for whoever works here. */
export function terminal() {
  let id = kept.get("gate.device");
  if (!id) kept.set("gate.device", (id = freshId()));
  return id;
}

export const session = {
  /** {username, token}, or nothing. */
  get: () => kept.get("gate.session"),
  open(username, token) {
    kept.set("gate.session", {username, token});
    kept.set("gate.username", username);
  },
  close: () => kept.drop("gate.session"),
  /** Who logged in here last: they need not type their name again. */
  lastUsername: () => kept.get("gate.username") ?? "",
};

/** The chosen place: {username, venue_code, venue, function_code, label}; names are kept for when there is no network. */
export const place = {
  get: () => kept.get("gate.place"),
  choose: (chosen) => kept.set("gate.place", chosen),
};

/** Codes of venues -> their names, as last heard; what is not known is called by its code. */
export const venueName = (code) => kept.get("gate.venues")?.[code] ?? code;
export const rememberVenues = (venues) =>
  kept.set("gate.venues", Object.fromEntries(venues.map((venue) => [venue.venue_code, venue.name])));
