// Words in Chinese and English. A page registers its own: {key: ["中文", "English"]}; {name} in a text is filled in.
// The language is ?lang=, else the choice made before on this device, else the browser's.

import {h} from "./dom.js";
import {kept} from "./kept.js";

const LANGUAGES = ["zh", "en"];
const words = {
  brand: ["Gateline", "Gateline"],
  language: ["English", "中文"],
  language_label: ["Switch to English", "切换到中文"],
  skip: ["跳到内容", "Skip to content"],
  retry: ["重试", "Try again"],
  loading: ["正在加载…", "Loading…"],
  offline: ["网络已断开", "No network"],
  offline_more: ["连接恢复后会自动继续。", "This goes on by itself when the connection is back."],
  failed: ["出了点问题", "Something went wrong"],
  failed_more: ["请重试。若仍不行，请告诉工作人员编号 {id}。", "Please try again. If it stays, tell the staff this number: {id}."],
  log_in: ["登录", "Log in"],
  log_out: ["退出登录", "Log out"],
  session_over: ["登录已过期，请重新登录。", "Your session is over. Please log in again."],
};

export function register(more) {
  Object.assign(words, more);
}

function chosen() {
  const asked = new URLSearchParams(location.search).get("lang");
  if (LANGUAGES.includes(asked)) {
    kept.set("lang", asked);
    return asked;
  }
  const before = kept.get("lang");
  if (LANGUAGES.includes(before)) return before;
  return (navigator.language ?? "").toLowerCase().startsWith("zh") ? "zh" : "en";
}

export const language = chosen();
document.documentElement.lang = language === "zh" ? "zh-CN" : "en";

/** The text of a key in the present language. A key without words is shown as it is, so that it is noticed. */
export function t(key, filling = {}) {
  const pair = words[key];
  if (!pair) return key;
  return pair[LANGUAGES.indexOf(language)].replace(/\{(\w+)\}/g, (_, name) => filling[name] ?? "");
}

export const knows = (key) => key in words;

/** Fen as people read them. */
export function yuan(fen) {
  return new Intl.NumberFormat(language === "zh" ? "zh-CN" : "en", {style: "currency", currency: "CNY", currencyDisplay: "narrowSymbol"}).format(fen / 100);
}

/** A moment as people read it, in the device's own zone. */
export function moment(text, options = {dateStyle: "medium", timeStyle: "short"}) {
  return new Intl.DateTimeFormat(language === "zh" ? "zh-CN" : "en-GB", options).format(new Date(text));
}

export const clock = (text) => moment(text, {hour: "2-digit", minute: "2-digit", second: "2-digit"});

/** The button that changes the language: the page is loaded anew in the other one. */
export function languageButton() {
  return h("button", {class: "language", type: "button", "aria-label": t("language_label"), lang: language === "zh" ? "en" : "zh-CN",
    onclick: () => {
      kept.set("lang", language === "zh" ? "en" : "zh");
      const address = new URL(location.href);
      address.searchParams.delete("lang");
      location.replace(address);
      location.reload();
    }}, t("language"));
}
