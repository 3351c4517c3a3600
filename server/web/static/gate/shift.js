// The counters of a shift: let in, refused, by reason, per minute. They live on the device, one set an operator, from
// the login until the shift is ended.

import {kept} from "../kept.js";

const MINUTE_MS = 60_000;
const RECENT_MAX = 240; // verdicts of the last minute: four a second are more than one gate can give
const IDLE_MS_MAX = 8 * 3600 * 1000; // who logs in after so long forgot to end the shift before

const name = (username) => `gate.shift.${username}`;
const fresh = (now) => ({since: now, last: now, letIn: 0, refused: 0, reasons: {}, recent: []});

export const shift = {
  /** At a login: goes on with the shift of this operator, or begins one. */
  begin(username, now = Date.now()) {
    const before = kept.get(name(username));
    if (!before || now - before.last > IDLE_MS_MAX) kept.set(name(username), fresh(now));
  },
  get: (username) => kept.get(name(username)) ?? fresh(Date.now()),
  /** One verdict. */
  count(username, answer, now = Date.now()) {
    const so = this.get(username);
    const letIn = answer.result === "success";
    so[letIn ? "letIn" : "refused"] += 1;
    if (!letIn) so.reasons[answer.reason] = (so.reasons[answer.reason] ?? 0) + 1;
    so.recent = [...so.recent.filter((at) => now - at < MINUTE_MS), now].slice(-RECENT_MAX);
    so.last = now;
    kept.set(name(username), so);
  },
  end: (username) => kept.drop(name(username)),
};

/** {minute, average}: verdicts in the last 60 s, and a minute on average since the shift began. */
export function pace(so, now = Date.now()) {
  const minutes = Math.max((now - so.since) / MINUTE_MS, 1); // a first minute that is not over is no basis yet
  return {minute: so.recent.filter((at) => now - at < MINUTE_MS).length, average: (so.letIn + so.refused) / minutes};
}
