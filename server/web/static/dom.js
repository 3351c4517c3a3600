// Building elements: h("p", {class: "soft", onclick: act}, "text", child). Text is always text, never markup.

const BOOLEAN = new Set(["hidden", "disabled", "checked", "required", "autofocus", "readOnly"]);

export function h(name, properties, ...children) {
  const element = name.includes(":")
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(name.indexOf(":") + 1))
    : document.createElement(name);
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (BOOLEAN.has(key) || key === "value") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Replace what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Say something to those who listen to the page instead of looking at it. Every page has <div id="said" aria-live>. */
export function say(text) {
  const place = document.getElementById("said");
  if (place) place.textContent = text;
}
