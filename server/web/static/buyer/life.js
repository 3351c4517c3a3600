// What a view has running ends with it: timers, listeners, and whatever it holds of the device.

export class Life {
  #ends = new Set();
  over = false;

  end() {
    this.over = true;
    for (const end of this.#ends) end();
    this.#ends.clear();
  }

  /** Do this at the end. */
  onEnd(act) {
    if (this.over) act();
    else this.#ends.add(act);
  }

  listen(target, kind, act) {
    target.addEventListener(kind, act);
    this.onEnd(() => target.removeEventListener(kind, act));
  }

  /** Once, after so long; gives a way to call it off. */
  after(ms, act) {
    const timer = setTimeout(() => {
      this.#ends.delete(cancel);
      act();
    }, ms);
    const cancel = () => {
      clearTimeout(timer);
      this.#ends.delete(cancel);
    };
    this.onEnd(cancel);
    return cancel;
  }

  /**
   * Again and again while somebody looks at the page: now, then so long after the end of the one before, and at once
   * when the page is seen again. Past `longestMs` it rests, and `onRest` is told, until `now()` or the page is seen again.
   */
  repeat(everyMs, act, {longestMs, firstMs = 0, onRest = () => {}}) {
    let timer = null;
    let running = false;
    let stopped = false;
    let until = performance.now() + longestMs;
    const plan = (ms) => {
      clearTimeout(timer);
      if (!stopped && !this.over && !document.hidden) timer = setTimeout(step, ms);
    };
    const step = async () => {
      timer = null;
      if (running || stopped || this.over || document.hidden) return;
      if (performance.now() >= until) {
        onRest();
        return;
      }
      running = true;
      try {
        await act();
      } finally {
        running = false;
      }
      plan(everyMs);
    };
    const now = (ms = 0) => {
      until = performance.now() + longestMs;
      plan(ms);
    };
    this.listen(document, "visibilitychange", () => (document.hidden ? clearTimeout(timer) : now()));
    this.listen(window, "online", () => plan(0));
    this.onEnd(() => clearTimeout(timer));
    plan(firstMs);
    return {
      now,
      stop: () => {
        stopped = true;
        clearTimeout(timer);
      },
    };
  }
}
