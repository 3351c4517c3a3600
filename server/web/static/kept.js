// What this device keeps between visits. Private windows and full disks may refuse: then it lives as long as the page.

const memory = new Map();
const PREFIX = "gateline.";

export const kept = {
  get(name) {
    try {
      const text = localStorage.getItem(PREFIX + name);
      return text === null ? memory.get(name) : JSON.parse(text);
    } catch {
      return memory.get(name);
    }
  },
  /** Gives whether it will survive the page. */
  set(name, value) {
    memory.set(name, value);
    try {
      localStorage.setItem(PREFIX + name, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  },
  drop(name) {
    memory.delete(name);
    try {
      localStorage.removeItem(PREFIX + name);
    } catch {
      // it was never there
    }
  },
};
