// The buyer's tickets, as the server last told, kept on the device: they are looked at where the network is bad.

import {kept} from "../kept.js";
import {ask} from "./session.js";

const NAME = "buyer.tickets"; // {tickets, at_ms}; dropped when another buyer logs in

/** `{tickets, at_ms}` as kept; undefined: never told. */
export const remembered = () => kept.get(NAME);

export async function tickets() {
  const told = await ask("GET", "/my/tickets");
  kept.set(NAME, {tickets: told.tickets, at_ms: Date.now()});
  return told.tickets;
}
