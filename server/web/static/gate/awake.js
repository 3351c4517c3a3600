// Keeps the screen on while one scans: a gate that went dark is a queue.

/** Gives what ends it. Where the browser has no wake lock, or refuses it (a low battery), the screen does as it likes. */
export function stayAwake() {
  let lock = null;
  let left = false;

  async function hold() {
    if (!navigator.wakeLock || document.hidden || left) return;
    try {
      lock = await navigator.wakeLock.request("screen");
      if (left) lock.release();
    } catch {
      lock = null;
    }
  }

  document.addEventListener("visibilitychange", hold); // a hidden page loses it
  hold();
  return () => {
    left = true;
    document.removeEventListener("visibilitychange", hold);
    lock?.release();
  };
}
