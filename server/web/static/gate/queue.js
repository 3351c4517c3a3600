// Scans without an answer. A scan is kept here, with its id and its time, before it is sent for the first time, and
// stays until the server has answered it: whatever happens to the network, the page or the session in between.

import {kept} from "../kept.js";
import {freshId} from "../api.js";

const NAME = "gate.queue";
/** At one scan in 5 s that is 40 minutes without network; a kept scan takes 350 bytes of the 5 MB a page may keep. */
export const WAITING_MAX = 500;
/** The server repeats a verdict to its scan_id for a day (SCAN_REPLAY_S); a later question could get another answer. */
const AGE_MS_MAX = 24 * 3600 * 1000;

const read = () => kept.get(NAME) ?? [];
const write = (scans) => kept.set(NAME, scans);

/** The same code at the same place, by the same operator. */
export const sameCode = (a, b) => a.qr_token === b.qr_token && a.function_code === b.function_code
  && a.venue_code === b.venue_code && a.username === b.username;

export const queue = {
  all: read,
  /** In the order in which they are to be sent: as scanned, but what the server could not decide goes behind the rest. */
  of: (username) => read().filter((scan) => scan.username === username).sort((a, b) => a.tries - b.tries || a.at - b.at),
  has: (id) => read().some((scan) => scan.scan_id === id),
  /** The same code, still without an answer: another look at it must not become a second scan. */
  same: (scan) => read().find((each) => sameCode(each, scan)),
  /** Keeps a new scan and gives it with its id; nothing when there is no room left. */
  add(scan, now = Date.now()) {
    const scans = read();
    if (scans.length >= WAITING_MAX) return null;
    const fresh = {...scan, scan_id: freshId(), at: now, tries: 0};
    write([...scans, fresh]);
    return fresh;
  },
  /** The server answered, but could not decide. */
  tried(id) {
    write(read().map((scan) => (scan.scan_id === id ? {...scan, tries: scan.tries + 1} : scan)));
  },
  /** Gives whether it was still there: of two windows that got the same answer, one counts it. */
  drop(id) {
    const scans = read();
    const rest = scans.filter((scan) => scan.scan_id !== id);
    if (rest.length === scans.length) return false;
    write(rest);
    return true;
  },
  /** Takes out and gives what is too old to be asked for. */
  outdated(now = Date.now()) {
    const scans = read();
    const old = scans.filter((scan) => now - scan.at > AGE_MS_MAX);
    if (old.length) write(scans.filter((scan) => !old.includes(scan)));
    return old;
  },
  /** False where this device saves nothing. */
  safe: () => write(read()),
};
