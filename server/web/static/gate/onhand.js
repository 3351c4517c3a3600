// The page itself stays on the device, so that a reload without a network does not lose it: see worker.js.

/** Once everything is loaded: whoever works here first needs the network for that. */
export function keepPage() {
  if (!navigator.serviceWorker) return; // without HTTPS there is none
  const keep = () => navigator.serviceWorker.register("/static/gate/worker.js", {scope: "/gate"})
    .catch(() => {}); // a private window may refuse: then the page works as long as it is open
  if (document.readyState === "complete") keep();
  else addEventListener("load", keep, {once: true});
}
