// Ways to pay that are looked at or followed: a code for another phone, and links out of this page.

import {h} from "../dom.js";
import {t} from "../words.js";

export const HOSTED = "HOSTED";

/** By channel: what stands on the page. */
export const waysOut = {
  WECHAT_NATIVE: ({offer, acts}) =>
    h("section", {class: "card stack scan"},
      h("h2", null, t("scan_wechat")),
      h("img", {class: "code", src: offer.payPayload.qrImage, alt: t("code_alt"), width: 240, height: 240}),
      h("p", {class: "soft only-wide"}, t("scan_how")),
      h("p", {class: "soft only-narrow"}, t("scan_phone")),
      h("button", {type: "button", class: "button quiet small", onclick: acts.renew}, t("refresh_code"))),
  // WeChat asks where a buyer comes from, and takes nobody who comes from nowhere: this link alone tells our origin.
  WECHAT_H5: ({offer, amount, acts}) =>
    link(offer.payPayload.h5Url, t("h5_open", {amount}), acts.out, {referrerpolicy: "origin"}),
  // In a window of its own, so that this page goes on looking.
  [HOSTED]: ({offer, amount, acts}) =>
    link(offer.payPayload.payUrl, t("hosted_open", {amount}), acts.out, {target: "_blank", rel: "noopener"}),
};

function link(href, text, out, more) {
  return h("a", {class: "button block", href, onclick: out, ...more}, text);
}
