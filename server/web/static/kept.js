// What this device keeps between visits. Private windows and full disks may refuse: then it lives as long as the page.

const unsaved = new Map(); // what could not be written: newer than whatever the disk still has under that name
const PREFIX = "gateline.";

export const kept = {
  get(name) {
    if (unsaved.has(name)) return unsaved.get(name);
    try {
      const text = localStorage.getItem(PREFIX + name);
      return text === null ? undefined : JSON.parse(text);
    } catch {
      return undefined;
    }
  },
  /** Gives whether it will survive the page. */
  set(name, value) {
    try {
      localStorage.setItem(PREFIX + name, JSON.stringify(value));
      unsaved.delete(name);
      return true;
    } catch {
      unsaved.set(name, value);
      return false;
    }
  },
  drop(name) {
    unsaved.delete(name);
    try {
      localStorage.removeItem(PREFIX + name);
    } catch {
      // it was never there
    }
  },
  /** Calls `changed(name)` when another window of this device wrote or dropped something. Gives what ends that. */
  watch(changed) {
    const heard = (event) => event.key?.startsWith(PREFIX) && changed(event.key.slice(PREFIX.length));
    addEventListener("storage", heard);
    return () => removeEventListener("storage", heard);
  },
};
