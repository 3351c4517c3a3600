// Numbers as people write them in the present language.

import {language} from "../words.js";

const locale = language === "zh" ? "zh-CN" : "en-GB";
const whole = new Intl.NumberFormat(locale);
const compact = new Intl.NumberFormat(locale, {notation: "compact", maximumFractionDigits: 1});
const percent = new Intl.NumberFormat(locale, {style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1});

export const count = (number) => whole.format(number);

/** For an axis: 12K, 1.2万. */
export const short = (number) => (Math.abs(number) < 10_000 ? whole : compact).format(number);

/** A part of a whole; a dash where there is no whole. */
export const share = (part, all) => (all > 0 ? percent.format(part / all) : "–");
