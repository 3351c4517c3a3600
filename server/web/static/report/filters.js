// What is looked at: a window of time and up to six filters, all of it in the address, so that it can be shared, kept
// by a reload, and gone back to.

const HOUR_MS = 3_600_000;
const LONGEST_MS = 366 * 24 * HOUR_MS; // the server's own bound

export const WINDOWS = ["hour", "today", "day", "week", "month", "custom"];
export const FIELDS = ["function", "location", "terminal_device_id", "operator", "result", "reason"];
const VALUE = /^[A-Za-z0-9._@:-]{1,64}$/; // what the server takes
const MOMENT = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/;

/** From a query string. What cannot be meant is left out; without a window it is today. */
export function read(query) {
  const given = new URLSearchParams(query);
  const chosen = {window: "today"};
  const [from, to] = [given.get("from"), given.get("to")];
  if (WINDOWS.includes(given.get("window"))) chosen.window = given.get("window");
  if (chosen.window === "custom") {
    if (fault(moment(from), moment(to)) === null) Object.assign(chosen, {from: moment(from), to: moment(to)});
    else chosen.window = "today";
  }
  for (const field of FIELDS) {
    const value = given.get(field);
    if (value !== null && VALUE.test(value) && (field !== "result" || ["success", "reject"].includes(value))) chosen[field] = value;
  }
  return chosen;
}

/** As a query string, beside what else stands in the present one. */
export function write(chosen, present) {
  const query = new URLSearchParams(present);
  for (const name of ["window", "from", "to", ...FIELDS]) query.delete(name);
  query.set("window", chosen.window);
  if (chosen.window === "custom") {
    query.set("from", chosen.from.toISOString());
    query.set("to", chosen.to.toISOString());
  }
  for (const field of FIELDS) if (chosen[field]) query.set(field, chosen[field]);
  return `?${query}`;
}

/** Why these two moments are no window, as a key of words; null: they are one. */
export function fault(from, to) {
  if (!from || !to) return "window_incomplete";
  if (from >= to) return "window_upside_down";
  return to - from > LONGEST_MS ? "window_too_long" : null;
}

/** The window at this moment: where it begins and ends, whether it goes on, and how its time is counted. */
export function span(chosen, now) {
  const start = {
    hour: () => new Date(now - HOUR_MS),
    today: () => midnight(now, 0),
    day: () => new Date(now - 24 * HOUR_MS),
    week: () => midnight(now, 6),
    month: () => midnight(now, 29),
    custom: () => chosen.from,
  }[chosen.window]();
  const end = chosen.window === "custom" ? chosen.to : now;
  const length = end - start;
  const unit = length <= 1.5 * HOUR_MS ? "minute" : length <= 72 * HOUR_MS ? "hour" : "day";
  return {start, end, live: chosen.window !== "custom" || end > now, unit};
}

/** What the server is asked: window and filters. */
export function asked(chosen, {start, end}) {
  const query = new URLSearchParams({from: start.toISOString(), to: end.toISOString()});
  for (const field of FIELDS) if (chosen[field]) query.set(field, chosen[field]);
  return query;
}

export const anyFilter = (chosen) => FIELDS.some((field) => chosen[field]);

export const sameFilters = (one, other) => FIELDS.every((field) => one[field] === other[field]);

function moment(text) {
  if (!text || !MOMENT.test(text)) return null;
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? null : at;
}

function midnight(now, daysBefore) {
  return new Date(now.getFullYear(), now.getMonth(), now.getDate() - daysBefore);
}
