// Talking to the server: JSON in and out, a time limit on every request, and two kinds of failure that callers tell
// apart: Refused (the server said no, with a stable code) and Unreached (no answer came, so nobody knows).

const LONGEST_MS = 10_000;

export class Refused extends Error {
  constructor(status, body) {
    super(body.message ?? String(status));
    this.status = status;
    this.code = body.code ?? "INTERNAL";
    this.body = body;
    this.waitMs = (body.retry_after_s ?? 0) * 1000; // what comes too often is told when it may come again
    this.transient = status >= 500 || status === 429 || status === 408; // 408: the body did not come in time
  }
}

export class Unreached extends Error {}

const SKEW_MIN_MS = 5_000; // less is the answer's own way, and the Date header counts whole seconds
let aheadMs = 0;

/** The server's time in unix milliseconds, as its last answer told: a device's own clock may be hours off. */
export const serverNow = () => Date.now() + aheadMs;

/** One request; gives the parsed answer. `token`: a bearer token; `signal`: gives it up. Throws Refused or Unreached. */
export async function call(method, path, {body, token, headers = {}, timeoutMs = LONGEST_MS, signal} = {}) {
  const cut = new AbortController();
  const giveUp = () => cut.abort();
  signal?.addEventListener("abort", giveUp);
  if (signal?.aborted) giveUp();
  const timer = setTimeout(() => cut.abort(), timeoutMs);
  const sent = {Accept: "application/json", ...headers};
  if (body !== undefined) sent["Content-Type"] = "application/json";
  if (token) sent.Authorization = `Bearer ${token}`;
  try {
    const answer = await fetch(path, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: cut.signal,
      cache: "no-store",
    });
    noteTime(answer.headers.get("Date"));
    const text = await answer.text();
    let parsed = {};
    try {
      parsed = text ? JSON.parse(text) : {};
    } catch {
      parsed = null;
    }
    if (parsed === null || typeof parsed !== "object") throw new Unreached("not an answer of this server");
    if (!answer.ok) throw new Refused(answer.status, parsed);
    return parsed;
  } catch (fault) {
    if (fault instanceof Refused || fault instanceof Unreached) throw fault;
    throw new Unreached(fault.name);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", giveUp);
  }
}

function noteTime(date) {
  const ahead = Date.parse(date ?? "") - Date.now();
  if (!Number.isNaN(ahead)) aheadMs = Math.abs(ahead) > SKEW_MIN_MS ? ahead : 0;
}

/** A fresh id for a command: made before it is sent, kept until it is answered. */
export function freshId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // pages without HTTPS have no randomUUID
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Wait so long. */
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
