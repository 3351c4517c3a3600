// Hand scanners that type: a burst of keys ended by Enter (some send Tab), wherever the focus is.
//
// A person is told from a scanner by speed only where both could mean something: inside a field. What the scanner typed
// there is taken out again and its Enter is swallowed, so that the scan is not made a second time by the field's form.

const CHARS_MIN = 8; // shorter than any code that is worth an answer
const FIELD_GAP_MS = 60; // mean time between keys: scanners take 1 to 30, a fast typist 80
const PAUSE_MS_MAX = 1_000; // a longer pause ends what was begun
const FIELD_PAUSE_MS_MAX = 250; // in a field, so that what a person typed before is not taken for a part of it
const CHARS_MAX = 512; // QR_TOKEN_CHARS_MAX of the server

const isField = (element) => element?.matches?.("input, textarea, select") ?? false;

/** Calls `scanned(text)` for each scan. Gives what ends that. */
export function listenForScanner(scanned) {
  let text = "";
  let begun = 0;
  let last = 0;
  let field = null;
  let before = "";

  const fieldNow = () => (isField(document.activeElement) ? document.activeElement : null);
  const over = (at) => at - last > (field ? FIELD_PAUSE_MS_MAX : PAUSE_MS_MAX);

  function begin(at) {
    text = "";
    begun = at;
    field = fieldNow();
    before = field?.value ?? "";
  }

  /** A scanner's, if it came as fast as no one types; without a field there is nobody else who could mean it. */
  function isScan(at, key) {
    if (text.length < CHARS_MIN || over(at)) return false;
    return (last - begun) / (text.length - 1) <= FIELD_GAP_MS || (!field && key === "Enter");
  }

  function heard(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    const at = event.timeStamp;
    if (event.key.length === 1) {
      if (!text || over(at) || field !== fieldNow()) begin(at);
      // A space in the middle of a code must not press the button that has the focus.
      if (event.key === " " && text && !field) event.preventDefault();
      if (text.length < CHARS_MAX) text += event.key;
      last = at;
    } else if (event.key === "Enter" || event.key === "Tab") {
      const whole = isScan(at, event.key);
      const got = text;
      text = "";
      if (!whole) return;
      event.preventDefault();
      event.stopPropagation();
      if (field) field.value = before;
      scanned(got);
    } else if (event.key !== "Shift" && event.key !== "CapsLock") {
      text = "";
    }
  }

  document.addEventListener("keydown", heard, true);
  return () => document.removeEventListener("keydown", heard, true);
}
