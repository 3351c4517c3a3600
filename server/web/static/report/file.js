// The chosen redemptions as a file. A link cannot carry a bearer token, so the page fetches what the server streams.
// Bound of memory: pieces of 4 MiB go into Blobs, which the browser keeps outside the page's heap and on disk when they
// are many, so the page itself holds one piece. A file past 256 MiB (about 1.5 million scans) is given up: a shorter
// window is asked for.

import {token} from "./session.js";

const PIECE = 4 * 2 ** 20;
const LARGEST = 256 * 2 ** 20;
const SILENCE_MS = 65_000; // the server itself gives up after 60 s

export class TooLarge extends Error {}

/** Fetch and save. `progress(bytes)`. Throws TooLarge, or what fetch throws when the stream was cut: then nothing is saved. */
export async function save(query, name, progress) {
  const cutOff = new AbortController();
  let timer = setTimeout(() => cutOff.abort(), SILENCE_MS);
  const leave = () => cutOff.abort();
  window.addEventListener("pagehide", leave, {once: true});
  try {
    const answer = await fetch(`/reports/redemptions?${query}&format=csv`,
      {headers: {Authorization: `Bearer ${token()}`}, cache: "no-store", signal: cutOff.signal});
    if (!answer.ok) throw Object.assign(new Error(String(answer.status)), {status: answer.status});
    const blobs = ["\ufeff"]; // so that spreadsheets read the Chinese in it
    let [piece, held, all] = [[], 0, 0];
    const reader = answer.body.getReader();
    for (;;) {
      const {done, value} = await reader.read();
      clearTimeout(timer);
      if (done) break;
      timer = setTimeout(() => cutOff.abort(), SILENCE_MS);
      piece.push(value);
      held += value.length;
      all += value.length;
      if (all > LARGEST) throw new TooLarge();
      if (held >= PIECE) {
        blobs.push(new Blob(piece));
        [piece, held] = [[], 0];
      }
      progress(all);
    }
    hand(new Blob([...blobs, ...piece], {type: "text/csv;charset=utf-8"}), name);
  } finally {
    clearTimeout(timer);
    cutOff.abort();
    window.removeEventListener("pagehide", leave);
  }
}

/** `redemptions_20261122-0000_20261122-1423.csv`: the window, by the device's clock. */
export function fileName({start, end}) {
  const two = (number) => String(number).padStart(2, "0");
  const stamp = (at) => `${at.getFullYear()}${two(at.getMonth() + 1)}${two(at.getDate())}-${two(at.getHours())}${two(at.getMinutes())}`;
  return `redemptions_${stamp(start)}_${stamp(end)}.csv`;
}

function hand(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000); // the browser has begun to read it by then
}
