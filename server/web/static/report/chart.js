// What charts of both kinds stand on: round ticks, hatched and plain fills that differ in lightness as well as in colour,
// a legend, text that is cut to the room it has. Every chart is an SVG that says in words what it shows.

import {h} from "../dom.js";

let made = 0;
let ruler = null;

/** Round numbers from 0 to at least `most`, about so many steps; counts have no halves. */
export function ticks(most, about = 4) {
  if (!(most > 0) || !Number.isFinite(most)) return [0, 1];
  const least = Math.max(1, most / about);
  const power = 10 ** Math.floor(Math.log10(least));
  const step = power * ([1, 2, 5].find((each) => each * power >= least) ?? 10);
  return Array.from({length: Math.ceil(most / step) + 1}, (_, index) => index * step);
}

/** A fresh name for what is referred to within the page. */
export const freshName = (kind) => `${kind}-${(made += 1)}`;

/** Width of a text in CSS pixels, as charts write it. */
export function widthOf(text, font = "14px system-ui, sans-serif") {
  ruler ??= document.createElement("canvas").getContext("2d");
  ruler.font = font;
  return ruler.measureText(text).width;
}

/** The text, or its beginning with an ellipsis. */
export function cut(text, room) {
  if (widthOf(text) <= room) return text;
  let end = text.length;
  while (end > 1 && widthOf(`${text.slice(0, end)}…`) > room) end -= 1;
  return `${text.slice(0, end)}…`;
}

// Colour, lightness and texture tell a series: who sees no colour, or prints in grey, still tells them apart.
const LOOKS = {
  in: {base: "#0a6b45"},
  out: {base: "#fbe0de", mark: "#b01e23", path: "M-2,2 L2,-2 M0,8 L8,0 M6,10 L10,6"},
  sold: {base: "#0b5e8a"},
  held: {base: "#fdf0d9", mark: "#7a4a00", path: "M2,2 h2 v2 h-2 z M6,6 h2 v2 h-2 z"},
  free: {base: "#eef2f5", mark: "#6b7f8c", path: ""},
};

/** The fills of these looks: `defs` for the SVG, and what a shape of a look carries. */
export function fills(looks) {
  const names = Object.fromEntries(looks.map((look) => [look, freshName("fill")]));
  const patterns = looks.filter((look) => LOOKS[look].path).map((look) =>
    h("svg:pattern", {id: names[look], width: 8, height: 8, patternUnits: "userSpaceOnUse"},
      h("svg:rect", {width: 8, height: 8, fill: LOOKS[look].base}),
      h("svg:path", {d: LOOKS[look].path, stroke: LOOKS[look].mark, "stroke-width": 1.5, fill: look === "held" ? LOOKS[look].mark : "none"})));
  const of = (look) => ({
    fill: LOOKS[look].path ? `url(#${names[look]})` : LOOKS[look].base,
    stroke: LOOKS[look].mark ?? LOOKS[look].base,
    "stroke-width": 1,
  });
  return {defs: h("svg:defs", {}, patterns), of};
}

/** A small square in a series' look. */
export function swatch(look) {
  const {defs, of} = fills([look]);
  return h("svg:svg", {class: "swatch", width: 16, height: 16, "aria-hidden": "true"},
    defs, h("svg:rect", {x: 1, y: 1, width: 14, height: 14, rx: 3, ...of(look)}));
}

/** Which look is which series. */
export const legend = (series) =>
  h("ul", {class: "legend"}, series.map(({look, name}) => h("li", {}, swatch(look), name)));

/** An empty SVG of this size, named and described for those who do not see it. */
export function frame(kind, role, width, height, title, description) {
  const [named, described] = [freshName("title"), freshName("desc")];
  return h("svg:svg", {class: kind, role, width, height, viewBox: `0 0 ${width} ${height}`,
    "aria-labelledby": named, "aria-describedby": described},
  h("svg:title", {id: named}, title), h("svg:desc", {id: described}, description));
}

/** Calls `draw` when the element gets another width, or one again after it had none: it may have missed something. */
export function whenResized(element, draw) {
  let width = 0;
  new ResizeObserver(([entry]) => {
    const wide = Math.round(entry.contentRect.width);
    if (wide === width) return;
    width = wide;
    if (wide) draw(wide);
  }).observe(element);
}
