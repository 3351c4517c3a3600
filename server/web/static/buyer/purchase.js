// Making an order. Its Idempotency-Key is made and kept before it is sent: a lost answer is asked for again with the
// same key, also after the page was closed, and however often the button is tapped, there is one order.

import {Refused, Unreached, freshId, sleep} from "../api.js";
import {kept} from "../kept.js";
import {clientContext} from "./environment.js";
import {ask} from "./session.js";

const NAME = "buyer.purchase"; // {key, items, at_ms}
const TRIES_MS = [0, 1_000, 3_000]; // before the buyer is asked to try again
const GOOD_FOR_MS = 180_000; // what was missed for longer is not sent again without the buyer
const KEY_KNOWN_MS = 23 * 3_600_000; // the server knows a key for a day: later it would make another order of it

let sending = null;
const offers = new Map(); // by order: how it can be paid, or why that is not known yet

/** The order that was sent and not answered; undefined: there is none, or none that can still be asked for. */
export function unanswered() {
  const purchase = kept.get(NAME);
  return purchase && Date.now() - purchase.at_ms < KEY_KNOWN_MS ? purchase : undefined;
}
export const recent = (purchase) => Date.now() - purchase.at_ms < GOOD_FOR_MS;
export const forget = () => kept.drop(NAME);

/** Order items, `[{product_id, qty}]`; gives the order's id. Throws as ask() does; after Unreached, resume() finds out. */
export function order(items) {
  if (!sending) {
    kept.set(NAME, {key: freshId(), items, at_ms: Date.now()});
    begin();
  }
  return sending;
}

/** Send what was not answered again, the same under the same key. */
export function resume() {
  if (!sending) begin();
  return sending;
}

/** What was told of an order's payment when it was made: `{channel, payPayload, at_ms}` or `{fault}`; null: ask. */
export function offerOf(orderId) {
  const offer = offers.get(orderId) ?? null;
  if (offer?.fault) offers.delete(orderId); // told once
  return offer;
}

export function noteOffer({order_id, channel, payPayload}) {
  const offer = {channel, payPayload, at_ms: performance.now()};
  offers.set(order_id, offer);
  return offer;
}

function begin() {
  sending = send().finally(() => {
    sending = null;
  });
}

async function send() {
  const {key, items} = kept.get(NAME);
  for (const [tried, wait] of TRIES_MS.entries()) {
    await sleep(wait);
    try {
      const made = await ask("POST", "/orders", {
        headers: {"Idempotency-Key": key},
        body: {items, clientContext: await clientContext()},
        timeoutMs: 20_000, // it includes what WeChat takes to prepare the payment
      });
      kept.drop(NAME);
      noteOffer(made);
      return made.order_id;
    } catch (fault) {
      if (fault instanceof Refused && fault.body.order_id) {
        kept.drop(NAME); // it is made; only its payment could not be prepared
        offers.set(fault.body.order_id, {fault});
        return fault.body.order_id;
      }
      const mayPass = fault instanceof Refused && fault.transient && fault.code !== "TOO_MANY_ORDERS"; // not in seconds
      const undecided = fault instanceof Unreached || mayPass;
      if (!undecided && fault instanceof Refused) kept.drop(NAME);
      if (!undecided || tried === TRIES_MS.length - 1) throw fault;
    }
  }
}
