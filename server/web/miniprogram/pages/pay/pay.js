// The native pay page: an H5 page in a web-view cannot pay, so it comes here with the payment that its server signed.
// This page launches it once and goes back, whatever comes of it. It tells the H5 page nothing: that one asks its
// server, which asks WeChat. What is shown here is for the eyes of the moment alone.

const PARAMS_CHARS_MAX = 4096; // a payment has about 700
const ANSWER_MS_MAX = 180000; // for the password, a change of card, and a look away
const READ_MS = 1800; // so long an outcome stands before this page goes back
const HOME = "/pages/web/web";

/** What wx.requestPayment takes, and how each of it looks. */
const FIELDS = {
  timeStamp: /^[0-9]{1,12}$/,
  nonceStr: /^[0-9A-Za-z]{1,32}$/,
  package: /^prepay_id=[!-~]{1,128}$/,
  signType: /^RSA$/,
  paySign: /^[0-9A-Za-z+/=]{1,1024}$/,
};

const TEXTS = {
  "": "正在打开微信支付…",
  OK: "支付完成，正在确认…",
  MINI_PROGRAM_PAY_CANCELLED: "已取消支付",
  MINI_PROGRAM_PAY_FAILED: "支付没有成功",
  MINI_PROGRAM_BRIDGE_TIMEOUT: "微信支付没有回应，请返回查询结果",
};

let underway = false; // one payment at a time, however often the H5 page was tapped

/** The payment in the address of this page, or null when it is not one. */
function paymentOf(params) {
  if (typeof params !== "string" || params.length > PARAMS_CHARS_MAX) return null;
  try {
    const told = JSON.parse(params.startsWith("{") ? params : decodeURIComponent(params));
    const payment = {};
    for (const name of Object.keys(FIELDS)) {
      if (typeof told[name] !== "string" || !FIELDS[name].test(told[name])) return null;
      payment[name] = told[name];
    }
    return {payment, orderNo: /^[0-9A-Za-z_-]{1,40}$/.test(told.orderNo) ? told.orderNo : ""};
  } catch (fault) {
    return null;
  }
}

/** What wx.requestPayment reports, as a code. */
function codeOf(errMsg) {
  const told = String(errMsg);
  if (told === "requestPayment:ok") return "OK";
  return told.startsWith("requestPayment:fail cancel") ? "MINI_PROGRAM_PAY_CANCELLED" : "MINI_PROGRAM_PAY_FAILED";
}

Page({
  data: {text: TEXTS[""], code: "", orderNo: ""},

  onLoad(query) {
    if (underway) {
      this.back();
      return;
    }
    const asked = paymentOf(query.params);
    if (!asked) {
      this.finish("MINI_PROGRAM_PAY_FAILED");
      return;
    }
    underway = true;
    this.paying = true;
    this.setData({orderNo: asked.orderNo});
    this.limit = setTimeout(() => this.finish("MINI_PROGRAM_BRIDGE_TIMEOUT"), ANSWER_MS_MAX);
    wx.requestPayment(
      Object.assign({}, asked.payment, {
        success: ({errMsg}) => this.finish(codeOf(errMsg)),
        fail: ({errMsg}) => this.finish(codeOf(errMsg)),
      }),
    );
  },

  onUnload() {
    this.gone = true; // the buyer swiped back
    this.release();
    clearTimeout(this.leaving);
  },

  /** The end of this page, once: later reports are too late. */
  finish(code) {
    if (this.finished || this.gone) return;
    this.finished = true;
    this.release();
    this.setData({text: TEXTS[code], code: code === "OK" ? "" : code});
    this.leaving = setTimeout(() => this.back(), code === "OK" ? 0 : READ_MS);
  },

  release() {
    clearTimeout(this.limit);
    if (this.paying) underway = false;
    this.paying = false;
  },

  back() {
    wx.navigateBack({fail: () => wx.reLaunch({url: HOME})}); // there is nothing behind a page that was opened alone
  },
});
