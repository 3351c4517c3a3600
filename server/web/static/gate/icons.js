// Small line pictures of the ways to scan. The words stand beside them, so they are not read out.

import {h} from "../dom.js";

const LINES = {
  camera: "M3 8.5h4l1.6-2.5h6.8L17 8.5h4V19H3zM12 17a3.6 3.6 0 1 0 0-7.2 3.6 3.6 0 0 0 0 7.2z",
  camera_off: "M3 8.5h4l1.6-2.5h6.8L17 8.5h4V19H3zM3 3l18 18.5",
  scanner: "M3 8V4h4M17 4h4v4M21 16v4h-4M7 20H3v-4M7 8v8M10 8v8M13 8v8M15.5 8v8M17.5 8v8",
  keyboard: "M2.5 6h19v12h-19zM6 10h.01M9 10h.01M12 10h.01M15 10h.01M18 10h.01M6 14h.01M9 14h6M18 14h.01",
};

/** camera, camera_off, scanner or keyboard. */
export const icon = (name) =>
  h("svg:svg", {class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false"}, h("svg:path", {d: LINES[name]}));
