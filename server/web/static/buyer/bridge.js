// WeChat's own objects in the page. Whatever they report is the phone's opinion: only the server knows what is paid.

const READY_MS = 5_000; // it is there within a second, where it is there at all
const PAY_PAGE = "/pages/pay/pay"; // of the shell: server/web/miniprogram
const SHELL_HOME = "/pages/web/web";
const OUTCOMES = {ok: "confirming", cancel: "cancelled"};

/** WeixinJSBridge, or null when there is none within the time. */
export function bridgeReady(longestMs = READY_MS) {
  if (window.WeixinJSBridge) return Promise.resolve(window.WeixinJSBridge);
  return new Promise((done) => {
    const finish = () => {
      clearTimeout(timer);
      document.removeEventListener("WeixinJSBridgeReady", finish);
      done(window.WeixinJSBridge ?? null);
    };
    const timer = setTimeout(finish, longestMs);
    document.addEventListener("WeixinJSBridgeReady", finish);
  });
}

/**
 * WeChat's payment dialog over this page; `opened()` when it was asked for. Gives "confirming", "cancelled", "failed" or
 * "missing" (no bridge), or nothing, ever: a dialog need not report.
 */
export async function payInBrowser(payload, opened) {
  const bridge = await bridgeReady();
  if (!bridge) return "missing";
  opened();
  return new Promise((done) => {
    bridge.invoke("getBrandWCPayRequest", payload, (told) => {
      const outcome = String(told?.err_msg ?? "").replace("get_brand_wcpay_request:", "");
      done(OUTCOMES[outcome] ?? "failed");
    });
  });
}

/** The shell's native page, which pays and comes back here. Gives "launched" or "missing": the rest tells the server. */
export function payInShell(payload) {
  return toShell("navigateTo", `${PAY_PAGE}?params=${encodeURIComponent(JSON.stringify(payload))}`);
}

/** Begins the shell anew: it logs in and opens this page again, at the same place. */
export function reopenShell(place) {
  return toShell("reLaunch", `${SHELL_HOME}?to=${encodeURIComponent(place)}`);
}

async function toShell(name, url) {
  if (window.wx?.miniProgram) {
    window.wx.miniProgram[name]({url});
    return "launched";
  }
  const bridge = await bridgeReady();
  if (!bridge) return "missing";
  bridge.invoke("invokeMiniProgramAPI", {name, arg: {url}}, () => {}); // what WeChat's own script does
  return "launched";
}
