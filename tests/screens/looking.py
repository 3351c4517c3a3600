"""A window of a device: the page, what it says on its console and asks of the network, and pictures of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request

_BLOCKED = (
    "Service Worker registration blocked by Playwright"  # which tests want so, but for those of the worker
)


class Window:
    """One page on one device."""

    def __init__(self, page: Page, context: BrowserContext, origin: str, pictures: Path) -> None:
        self.page = page
        self.context = context
        self.origin = origin
        self.expected: list[str] = []  # parts of console errors that a test provokes
        self.visits: list[str] = []  # beginnings of addresses to which the page is to send its visitor
        self._pictures = pictures
        self._errors: list[str] = []
        self._requests: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda fault: self._errors.append(f"thrown: {fault}"))
        page.on("request", self._asked)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and message.text != _BLOCKED:
            self._errors.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        visit = request.is_navigation_request() and request.url.startswith(tuple(self.visits))
        if not visit:
            self._requests.append(request.url)

    async def go(self, path: str) -> None:
        """Open a path of the server."""
        await self.page.goto(self.origin + path)

    async def stand_still(self) -> None:
        """The clock of the pages that are opened from now on stands, until a test moves it or lets it go on.

        For what a page does within seconds of its own: a slow machine cannot let them pass.
        """
        now_s = time.time()
        await self.page.clock.install(time=now_s - 3_600)
        await self.page.clock.pause_at(now_s)  # never in its past, however long this took

    async def stop_the_clock(self) -> None:
        """The page's clock, which was installed before, stands; until then half a minute more passes on it."""
        await self.page.clock.pause_at(await self.page.evaluate("Date.now() / 1000") + 30)

    async def picture(self, name: str, *, whole: bool = True) -> Path:
        """A picture in `tests/out/screens/`: of the whole page, or of what the device shows of it."""
        self._pictures.mkdir(parents=True, exist_ok=True)
        file = self._pictures / f"{name}.png"
        await self.page.screenshot(path=file, full_page=whole)
        return file

    def judge(self) -> None:
        """Fails when something went wrong that no one expected, or another origin was asked."""
        strange = [
            url for url in self._requests if not url.startswith((self.origin, "data:", "blob:", "about:"))
        ]
        heard = [e for e in self._errors if not any(part in e for part in self.expected)]
        assert strange == [], strange
        assert heard == [], heard

    async def bytes_loaded(self) -> int:
        """What the page and its parts took on the wire so far."""
        sizes: list[int] = await self.page.evaluate(
            "() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
            ".map((each) => each.transferSize)"
        )
        return sum(sizes)

    async def contrast_faults(self, least: float = 4.5) -> list[dict[str, Any]]:
        """Texts whose colour does not stand out enough from what is behind them (WCAG 2.2, 1.4.3), as computed."""
        found: list[dict[str, Any]] = await self.page.evaluate(_CONTRAST, least)
        return found

    async def unlabelled(self) -> list[str]:
        """Controls and pictures without a name that is read out."""
        found: list[str] = await self.page.evaluate(_UNLABELLED)
        return found

    async def small_targets(self, least: int = 40) -> list[str]:
        """Controls that are too small for a thumb, in CSS pixels."""
        found: list[str] = await self.page.evaluate(_SMALL, least)
        return found

    async def focus_is_visible(self) -> list[str]:
        """Walks through the page with Tab; gives the controls that do not look different when they have the focus."""
        plain: list[str] = []
        for _ in range(60):
            await self.page.keyboard.press("Tab")
            told = await self.page.evaluate(_FOCUS)
            if told is None:
                break
            if not told["visible"]:
                plain.append(told["what"])
        return plain


_SHOWN = """
const shown = (element) => {
  const style = getComputedStyle(element), box = element.getBoundingClientRect();
  return style.visibility !== "hidden" && style.display !== "none" && box.width > 1 && box.height > 1
    && !element.closest("[hidden]") && !element.closest(".only-read");
};
const told = (element) => `${element.tagName.toLowerCase()}.${element.className} "${(element.textContent || "").trim().slice(0, 40)}"`;
"""
_CONTRAST = (
    "(least) => {"
    + _SHOWN
    + """
  const parts = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parts(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const faults = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !shown(element) || element.closest("[disabled], [aria-disabled=true]") || element.closest("svg")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parts(style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? Math.min(least, 3) : least)) faults.push({what: told(element), ratio: Math.round(ratio * 100) / 100});
  }
  return faults;
}"""
)
_UNLABELLED = (
    "() => {"
    + _SHOWN
    + """
  const named = (element) => {
    const by = (element.getAttribute("aria-labelledby") || "").split(/\\s+/).map((id) => document.getElementById(id)?.textContent || "").join("");
    const label = element.labels ? [...element.labels].map((each) => each.textContent).join("") : "";
    return [element.getAttribute("aria-label"), by, label, element.getAttribute("alt"), element.textContent, element.title]
      .some((text) => text && text.trim());
  };
  return [...document.querySelectorAll("button, a[href], input:not([type=hidden]), select, textarea, img, svg[role=img], [role=button]")]
    .filter((element) => shown(element) && !named(element) && !element.querySelector("title")).map(told);
}"""
)
_SMALL = (
    "(least) => {"
    + _SHOWN
    + """
  return [...document.querySelectorAll("button, a[href], input:not([type=hidden]), select")].filter(shown)
    .filter((element) => !(element.tagName === "A" && element.closest("p, td, li.text")))
    .map((element) => [element, element.getBoundingClientRect()])
    .filter(([, box]) => box.height < least || box.width < least)
    .map(([element, box]) => `${told(element)} ${Math.round(box.width)}x${Math.round(box.height)}`);
}"""
)
_FOCUS = (
    "() => {"
    + _SHOWN
    + """
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const style = getComputedStyle(element);
  const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  return {what: told(element), visible: ring || style.boxShadow !== "none"};
}"""
)
