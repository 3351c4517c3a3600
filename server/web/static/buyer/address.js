// What the address says when the page is opened. A login's code is taken out of it at once: it must not be kept in a
// history, be shared, or be sent twice.

const asked = new URLSearchParams(location.search);

/** {code, state} of a login that comes back here; null: none does. */
export const arrival = asked.get("code") ? {code: asked.get("code"), state: asked.get("state") ?? ""} : null;

/** What the shell says of itself; null: no shell opened this page. */
export const handed = ["bridgeSupported", "bridgeVersion", "shellVersion"].some((name) => asked.has(name))
  ? {
      supported: ["1", "true"].includes(asked.get("bridgeSupported")),
      bridgeVersion: asked.get("bridgeVersion"),
      shellVersion: asked.get("shellVersion"),
    }
  : null;

if (asked.has("code") || asked.has("state")) {
  asked.delete("code");
  asked.delete("state");
  const rest = asked.toString();
  const place = location.hash === "#wechat_redirect" ? "" : location.hash; // WeChat's own, which comes along
  history.replaceState(null, "", `${location.pathname}${rest ? `?${rest}` : ""}${place}`);
}
