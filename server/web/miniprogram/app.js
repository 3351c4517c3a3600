// The shell around the H5 page. Everything that a merchant changes stands here.

App({
  shell: {
    h5: "https://tickets.example.com/", // GATELINE_PUBLIC_URL; to be registered as a business domain
    bridgeVersion: "1.2.0", // of pages/pay: raise it with the page, and GATELINE_WECHAT_BRIDGE_VERSION_MIN refuses older ones
    shellVersion: "1.0.0", // yours: it is only logged
  },
});
