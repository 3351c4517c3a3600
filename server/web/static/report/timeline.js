// The units of a window, also those in which nothing happened, with the words that an axis and a reader need.

import {language} from "../words.js";

const MINUTE_MS = 60_000;
const LONG = {minute: MINUTE_MS, hour: 60 * MINUTE_MS};
const MOST = 10_000; // the server sends no more; a guard against a window that is none
export const STEPS = {minute: [5, 10, 15, 30], hour: [1, 2, 3, 6, 12, 24], day: [1, 2, 7, 14, 30]};

/** One band for each unit from `from` to `to`: {id, told, tick, rank, values: [let in, refused]}. */
export function timeline({from, to, unit, zone, over_time}) {
  const [start, end] = [new Date(from), new Date(to)];
  const known = new Map(over_time.map((each) => [Date.parse(each.begins_at), [each.success, each.reject]]));
  const moments = new Set(known.keys());
  for (let at = begin(start, unit, zone); at < end && moments.size < MOST; at = next(at, unit, zone)) moments.add(at.getTime());
  const words = speech(unit, zone);
  return [...moments].sort((a, b) => a - b).map((moment, index, all) => {
    const at = new Date(moment);
    const over = next(at, unit, zone);
    return {
      id: at.toISOString(),
      told: words.told(at < start ? start : at, over > end ? end : over),
      ...words.mark(at, all.length - 1 - index),
      values: known.get(moment) ?? [0, 0],
    };
  });
}

/** How the device's own zone is called, as the server is asked for it. */
export const zoneOfDevice = () => Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

/** The zone's name with its distance from UTC at that moment. */
export function zoneInWords(zone, at) {
  const parts = new Intl.DateTimeFormat("en-GB", {timeZone: zone, timeZoneName: "shortOffset"}).formatToParts(at);
  const offset = parts.find((part) => part.type === "timeZoneName")?.value.replace("GMT", "UTC") ?? "";
  return zone === "UTC" ? "UTC" : `${zone}, ${offset}`;
}

/** A writer of moments in a zone, as the present language has them. */
export function writer(zone, options) {
  const format = new Intl.DateTimeFormat(language === "zh" ? "zh-CN" : "en-GB", {timeZone: zone, hourCycle: "h23", ...options});
  return (at) => format.format(at);
}

// Days and hours begin by the device's own clocks; where the server did not know that zone, it counted in UTC.
function begin(at, unit, zone) {
  const day = new Date(at);
  if (unit === "minute") day.setSeconds(0, 0);
  else if (zone === "UTC") day.setUTCHours(unit === "day" ? 0 : day.getUTCHours(), 0, 0, 0);
  else if (unit === "day") day.setHours(0, 0, 0, 0);
  else day.setMinutes(0, 0, 0);
  return day;
}

function next(at, unit, zone) {
  if (unit !== "day") return new Date(at.getTime() + LONG[unit]);
  const day = new Date(at);
  if (zone === "UTC") day.setUTCDate(day.getUTCDate() + 1);
  else day.setDate(day.getDate() + 1);
  return day;
}

function speech(unit, zone) {
  const date = writer(zone, {day: "numeric", month: "short"});
  const weekday = writer(zone, {weekday: "short", day: "numeric", month: "short"});
  const time = writer(zone, {hour: "2-digit", minute: "2-digit"});
  if (unit === "day") return {told: (at) => weekday(at), mark: (at, fromEnd) => ({tick: date(at), rank: fromEnd})};
  const mark = (at) => {
    const [hour, minute] = time(at).split(":").map(Number);
    const rank = unit === "hour" ? hour : minute;
    return {tick: unit === "hour" && hour === 0 ? date(at) : time(at), rank};
  };
  return {told: (at, over) => `${date(at)}${language === "zh" ? " " : ", "}${time(at)}–${time(over)}`, mark};
}
