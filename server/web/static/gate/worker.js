// Keeps the gate's page on the device, so that it opens without a network: the files of KEPT and nothing else. What is
// asked of the API is not looked at here, so no answer and no token is ever kept, and no verdict comes from here.
//
// The server puts KEPT before this text: {path: the beginning of the file's SHA-256}. When a file changes, so does this
// script: the browser notices, everything is kept anew, and the old copies go.

const PREFIX = "gateline.gate.";
const NAME = PREFIX + Object.values(KEPT).join("");
const ANSWER_MS_MAX = 4_000; // a network that hangs must not keep the page shut

addEventListener("install", (event) => event.waitUntil(keepAll().then(() => skipWaiting())));
addEventListener("activate", (event) => event.waitUntil(dropOld().then(() => clients.claim())));
addEventListener("fetch", (event) => {
  const {origin, pathname} = new URL(event.request.url);
  if (event.request.method !== "GET" || origin !== location.origin || !Object.hasOwn(KEPT, pathname)) return;
  event.respondWith(answer(event.request, pathname));
});

/** All or nothing, and exactly what the server named: during an upgrade two servers may answer. */
async function keepAll() {
  const cache = await caches.open(NAME);
  await Promise.all(Object.entries(KEPT).map(async ([path, digest]) => {
    const fresh = await fetch(path, {cache: "no-cache", credentials: "omit"});
    const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", await fresh.clone().arrayBuffer()));
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (!fresh.ok || !hex.startsWith(digest)) throw new Error(`not the file that was named: ${path}`);
    await cache.put(path, fresh);
  }));
}

async function dropOld() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(PREFIX) && name !== NAME).map((name) => caches.delete(name)));
}

/** The server's own file; the kept one where no server answers. */
async function answer(request, path) {
  const network = fetch(request);
  const late = new Promise((_, refuse) => setTimeout(refuse, ANSWER_MS_MAX, new Error("late")));
  try {
    const fresh = await Promise.race([network, late]);
    if (fresh.status < 500) return fresh;
  } catch {
    network.catch(() => {}); // it may still fail, when nobody waits for it any more
  }
  return (await (await caches.open(NAME)).match(path)) ?? network;
}
