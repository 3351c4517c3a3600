// Keeps the screen on while something is shown. The device may refuse, and takes it back whenever the page is hidden.

/** Gives `keep(wanted)`; `told(held)` hears whether the screen stays on. */
export function stayAwake(life, told) {
  let wanted = false;
  let lock = null;

  async function settle() {
    if (!wanted || life.over) {
      lock?.release().catch(() => {});
      lock = null;
      told(false);
      return;
    }
    if (document.hidden || !("wakeLock" in navigator) || (lock && !lock.released)) return;
    try {
      const held = await navigator.wakeLock.request("screen");
      lock?.release().catch(() => {});
      lock = held;
      told(true);
    } catch {
      told(false); // it saves power, for example
    }
    if (!wanted || life.over) settle();
  }

  life.listen(document, "visibilitychange", settle);
  life.onEnd(settle);
  return (nowWanted) => {
    if (nowWanted === wanted) return;
    wanted = nowWanted;
    settle();
  };
}
