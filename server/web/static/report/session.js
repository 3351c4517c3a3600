// The analyst's token on this device, and requests that carry it.

import {call} from "../api.js";
import {kept} from "../kept.js";

const TOKEN = "report.token";

export const loggedIn = () => Boolean(kept.get(TOKEN));
export const token = () => kept.get(TOKEN);
export const logOut = () => kept.drop(TOKEN);

/** Throws as `call` does. The token may be a gate's: that shows with the first question. */
export async function logIn(username, password) {
  const answer = await call("POST", "/operators/login", {body: {username, password}});
  kept.set(TOKEN, answer.operator_token);
}

/** A question of an analyst, which may be about a year. */
export const ask = (path, query, {signal} = {}) => call("GET", `${path}?${query}`, {signal, timeoutMs: 30_000, token: token()});
