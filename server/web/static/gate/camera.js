// The camera, where the browser can read codes by it: a picture with a frame, and a light where the device has one.

import {sleep} from "../api.js";
import {h, fill} from "../dom.js";
import {kept} from "../kept.js";
import {t} from "../words.js";
import {icon} from "./icons.js";

const LOOK_MS = 120; // between two looks: a hand holds a phone still for about 300 ms
const AWAY_MS = 1_500; // a code that was out of sight for so long and is back was held up again

const FAULTS = {NotAllowedError: "camera_blocked", SecurityError: "camera_blocked"};

/** A detector, or the key of the words that say why there is none. */
async function detector() {
  if (!window.isSecureContext) return "camera_insecure";
  if (!window.BarcodeDetector || !navigator.mediaDevices?.getUserMedia) return "camera_none";
  const formats = await window.BarcodeDetector.getSupportedFormats();
  return formats.includes("qr_code") ? new window.BarcodeDetector({formats: ["qr_code"]}) : "camera_none";
}

/** {element, leave}. `seen(text)`: a code was held up, once for each time. */
export function cameraWay(seen) {
  const element = h("section", {class: "way", "aria-labelledby": "camera-title"});
  const title = (key) => h("h2", {id: "camera-title"}, t(key));
  const video = h("video", {playsinline: true, muted: true, "aria-label": t("camera_picture")});
  video.muted = true; // the attribute alone does not count for an element made by a script
  let stream = null;
  let left = false;
  let last = {text: "", at: -Infinity};

  function offer(key, again) {
    const advice = ["camera_insecure", "camera_none"].includes(key) ? "camera_none_more" : `${key}_more`;
    fill(element, h("div", {class: "row top"}, icon("camera_off"),
      h("div", {class: "grow stack tight"}, h("div", {}, title(key), h("p", {class: "soft"}, t(advice))),
        again && h("div", {}, h("button", {class: "button quiet small", type: "button", onclick: start}, t("retry"))))));
  }

  function off() {
    fill(element, h("div", {class: "row"}, icon("camera"), h("div", {class: "grow"}, title("camera")),
      h("button", {class: "button", type: "button", onclick: start}, t("camera_start"))));
  }

  async function start() {
    const reader = await detector();
    if (left) return;
    if (typeof reader === "string") return offer(reader, false);
    fill(element, h("div", {class: "row"}, h("span", {class: "wheel"}), title("camera_asking")));
    try {
      const opened = await navigator.mediaDevices.getUserMedia({video: {facingMode: {ideal: "environment"}}, audio: false});
      if (left) return release(opened);
      stream = opened;
      video.srcObject = opened;
      await video.play();
    } catch (fault) {
      stop();
      return offer(FAULTS[fault.name] ?? "camera_missing", true);
    }
    kept.set("gate.camera", true);
    on();
    look(reader, stream);
  }

  function on() {
    const track = stream.getVideoTracks()[0];
    track.addEventListener("ended", () => left || (stop(), offer("camera_missing", true)));
    fill(element, h("h2", {id: "camera-title", class: "only-read"}, t("camera")),
      h("div", {class: "finder"}, video, h("div", {class: "frame", "aria-hidden": "true"})),
      h("div", {class: "row apart"}, h("p", {class: "soft small grow"}, t("camera_aim")), light(track),
        h("button", {class: "button quiet small", type: "button", "aria-label": t("camera_stop"),
          onclick: () => { kept.drop("gate.camera"); stop(); off(); }}, t("camera_off"))));
  }

  function light(track) {
    if (!track.getCapabilities?.().torch) return null;
    const button = h("button", {class: "button quiet small", type: "button", "aria-pressed": "false", onclick: async () => {
      const lit = button.getAttribute("aria-pressed") !== "true";
      await track.applyConstraints({advanced: [{torch: lit}]});
      button.setAttribute("aria-pressed", String(lit));
    }}, t("torch"));
    return button;
  }

  /** Looks for as long as this stream is the one that is shown; a hidden page is not looked at. */
  async function look(reader, mine) {
    while (stream === mine) {
      if (!document.hidden && video.readyState >= 2) {
        const codes = await reader.detect(video).catch(() => []); // between two pictures there may be none
        if (stream === mine && codes.length) held(codes[0].rawValue, performance.now());
      }
      await sleep(LOOK_MS);
    }
  }

  function held(text, now) {
    const again = text === last.text && now - last.at < AWAY_MS;
    last = {text, at: now};
    if (!again) seen(text);
  }

  const release = (which) => which?.getTracks().forEach((track) => track.stop());
  function stop() {
    release(stream);
    stream = null;
    video.srcObject = null;
  }

  off();
  detector().then((reader) => {
    if (left || stream) return;
    if (typeof reader === "string") offer(reader, false);
    else if (kept.get("gate.camera")) start();
  });
  return {element, leave: () => { left = true; stop(); }};
}
