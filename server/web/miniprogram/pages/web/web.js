// Logs in and opens the H5 page, which gets the code (it exchanges it at once, and it works once) and what this shell
// can do. `to`: the place in the H5 page to come back to, when it asked to be logged in anew.

const PLACE = /^#\/[0-9A-Za-z/]{0,80}$/;

/** The address of the H5 page. No code: it opens all the same, and asks to log in when it has to know who this is. */
function address(shell, code, to) {
  const told = {
    bridgeSupported: "1",
    bridgeVersion: shell.bridgeVersion,
    shellVersion: shell.shellVersion,
  };
  if (code) told.code = code;
  const query = Object.keys(told).map((name) => `${name}=${encodeURIComponent(told[name])}`);
  return `${shell.h5}?${query.join("&")}${PLACE.test(to) ? to : ""}`;
}

Page({
  data: {src: ""},

  onLoad(query) {
    const {shell} = getApp();
    const to = decodeURIComponent(query.to || "");
    const open = (code) => this.setData({src: address(shell, code, to)});
    wx.login({success: ({code}) => open(code), fail: () => open("")});
  },
});
