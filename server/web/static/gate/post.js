// Sends kept scans, again and again with the same id, until each has its answer.
//
// A fresh scan is sent at once: somebody stands there. Those that wait are sent one after the other, as they were
// scanned. Sending one twice is harmless, since the server tells a scan_id the same verdict again.

import {call, Refused, Unreached} from "../api.js";
import {queue} from "./queue.js";

const ANSWER_MS_MAX = 3_000; // nobody at a gate waits longer before asking whether it works
const PATIENCE = {"X-Deadline-Ms": "2500"}; // so that the server says in time that it cannot decide, and does not decide later
const AGAIN_MS_MIN = 250;
const AGAIN_MS_MAX = 8_000;
const QUIET_MS = 20_000; // a server not heard of for so long is asked whether it is there, before the next visitor comes
const LOCK = "gateline.gate.post";

/** One window of this device sends what waits; the others leave it to that one. */
function alone(act) {
  if (!navigator.locks) return act(true);
  return navigator.locks.request(LOCK, {ifAvailable: true}, (lock) => act(lock !== null));
}

/**
 * `answered(scan, answer)`: the server's verdict, or {fault: code} when it will never give one.
 * `weather({state: up | lost | closed, code})`: whether the server decides. `over(code)`: the session is over.
 */
export function openPost({username, token, answered, weather, over}) {
  const flying = new Set();
  let state = "up";
  let misses = 0;
  let timer = 0;
  let shut = false;
  let draining = false;

  function heard() {
    misses = 0;
    turn("up");
  }

  function missed(now, code) {
    misses += 1;
    if (misses >= 2 || !navigator.onLine) turn(now, code); // one lost answer is nothing yet: it is asked for again at once
  }

  function turn(now, code) {
    if (shut || (state === now && now === "up")) return;
    state = now;
    weather({state, code});
  }

  function end(code) {
    if (shut) return;
    close();
    over(code);
  }

  /** Gives true when the scan is settled. */
  async function send(scan) {
    flying.add(scan.scan_id);
    const {qr_token, function_code, venue_code, scan_id, terminal_device_id} = scan;
    try {
      const answer = await call("POST", "/venue/scan", {
        token, headers: PATIENCE, timeoutMs: ANSWER_MS_MAX,
        body: {qr_token, function_code, venue_code, scan_id, terminal_device_id},
      });
      // A portal of some wireless network also says 200. Only an answer to this very scan is one.
      if (answer.scan_id !== scan_id || !["success", "reject"].includes(answer.result)) throw new Unreached("not an answer");
      heard();
      answered(scan, answer);
      return true;
    } catch (fault) {
      return failed(scan, fault);
    } finally {
      flying.delete(scan.scan_id);
    }
  }

  function failed(scan, fault) {
    if (!(fault instanceof Refused)) {
      if (!(fault instanceof Unreached)) throw fault;
      missed("lost");
    } else if (fault.status === 401 || fault.status === 403) {
      end(fault.code);
    } else if (fault.transient) {
      queue.tried(scan.scan_id);
      missed("closed", fault.code);
    } else {
      heard();
      answered(scan, {fault: fault.code});
      return true;
    }
    return false;
  }

  /** Sends what waits, until one is not answered. */
  async function drain(mine) {
    while (mine && !shut) {
      const next = queue.of(username).find((scan) => !flying.has(scan.scan_id));
      if (!next || !(await send(next))) return;
    }
  }

  async function probe() {
    try {
      await call("GET", "/readyz", {timeoutMs: ANSWER_MS_MAX});
      heard();
    } catch (fault) {
      if (fault instanceof Refused) fault.status === 503 ? missed("closed", "GATE_CLOSED") : heard();
      else missed("lost");
    }
  }

  async function round() {
    clearTimeout(timer);
    if (shut || draining || document.hidden) return;
    draining = true;
    try {
      if (queue.of(username).length) await alone(drain);
      else await probe();
    } finally {
      draining = false;
    }
    later();
  }

  function later() {
    clearTimeout(timer);
    if (shut || document.hidden) return;
    const pause = Math.min(AGAIN_MS_MAX, AGAIN_MS_MIN * 2 ** Math.max(misses - 1, 0));
    const quiet = state === "up" && misses === 0 && !queue.of(username).length;
    timer = setTimeout(round, quiet ? QUIET_MS : pause * (0.75 + Math.random() / 2));
  }

  const awake = () => (document.hidden ? clearTimeout(timer) : round());
  const gone = () => {
    misses = Math.max(misses, 1);
    missed("lost");
  };
  addEventListener("online", round);
  addEventListener("offline", gone);
  document.addEventListener("visibilitychange", awake);

  function close() {
    shut = true;
    clearTimeout(timer);
    removeEventListener("online", round);
    removeEventListener("offline", gone);
    document.removeEventListener("visibilitychange", awake);
  }

  if (!navigator.onLine) gone();
  if (queue.of(username).length) round();
  else later();

  return {
    /** Send this kept scan now. */
    async submit(scan) {
      if (shut || flying.has(scan.scan_id)) return;
      await send(scan);
      later();
    },
    close,
  };
}
