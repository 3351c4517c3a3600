"""An operator at the gate's screen: logs in, chooses a place, and scans as a hand scanner does, by typing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import CDPSession, Locator, Page, Route, expect

from server.domain import qr
from server.domain.catalog import Role
from tests.road import PASSWORD, Road
from tests.screens.buying import PATIENCE_S
from tests.screens.conftest import OpenWindow
from tests.screens.looking import Window

VENUE = "pier-north"
BUTTONS = {
    "en": {"log_in": "Log in", "start": "Start scanning"},
    "zh": {"log_in": "登录", "start": "开始检票"},
}
NO_NETWORK = ("net::ERR_", "Failed to load resource")

_CODES = {"Enter": 13, "Tab": 9}
_WATCH = """() => {
  window.facesSeen = [];
  new MutationObserver(() => {
    const face = document.querySelector(".verdict");
    if (face) window.facesSeen.push(face.classList[1]);
  }).observe(document.querySelector(".cover"), {childList: true});
}"""


class Gate:
    """The gate's screen in a window, with somebody who works there."""

    def __init__(self, window: Window, lang: str) -> None:
        self.window = window
        self.page: Page = window.page
        self._buttons = BUTTONS[lang]
        self._keyboard: CDPSession | None = None
        self.word: Locator = self.page.locator(".verdict-word")
        self.banner: Locator = self.page.locator(".banner")
        self.late: Locator = self.page.locator(".late")

    async def log_in(self, username: str = "gina", password: str = PASSWORD) -> None:
        """Fill in the login."""
        await self.page.locator("#username").fill(username)
        await self.page.locator("#password").fill(password)
        await self.page.get_by_role("button", name=self._buttons["log_in"]).click()

    async def present(self, text: str, *, gap_ms: int = 5, end: str = "Enter") -> None:
        """A hand scanner reads a code: it types at an even pace, then Enter.

        However slow this machine is: the keys carry their own times, and are sent without waiting for each other.
        """
        if self._keyboard is None:
            self._keyboard = await self.window.context.new_cdp_session(self.page)
        at = time.time()
        sent = []
        for key in [*text, end]:
            at += gap_ms / 1000
            typed = {
                "text": {"Enter": "\r", "Tab": ""}.get(key, key),
                "windowsVirtualKeyCode": _CODES.get(key, 0),
            }
            for kind, more in (("keyDown", typed), ("keyUp", {})):
                event = {"type": kind, "key": key, "timestamp": at, **more}
                sent.append(self._keyboard.send("Input.dispatchKeyEvent", event))
        await asyncio.gather(*sent)

    async def step_until(self, reached: Callable[[], bool]) -> None:
        """Time passes by the page's clock, which stands otherwise, until the page has come to that."""
        async with asyncio.timeout(PATIENCE_S):
            while not reached():
                await self.page.clock.fast_forward(400)  # of the 3 s that the page gives an answer
                await asyncio.sleep(0.05)

    async def stop_the_watch(self) -> None:
        """From now on no time passes by the page's measure, while its timers go on: what is recent stays so."""
        await self.page.evaluate("() => { const at = performance.now(); performance.now = () => at; }")

    async def watch_faces(self) -> Callable[[], Awaitable[list[str]]]:
        """From now on, notes the kind of every face that covers the screen; gives what reads the notes."""
        await self.page.evaluate(_WATCH)

        async def read() -> list[str]:
            seen: list[str] = await self.page.evaluate("() => window.facesSeen")
            return seen

        return read

    async def on_top(self, locator: Locator) -> bool:
        """Whether nothing covers it."""
        answer: bool = await locator.evaluate(
            "(it) => { const box = it.getBoundingClientRect();"
            " return it.contains(document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2)); }"
        )
        return answer

    async def tile(self, name: str) -> int:
        """A counter of the shift."""
        text = await self.page.locator(".tile", has_text=name).locator("dd").inner_text()
        return int(text)

    async def keep(self, scans: list[dict[str, Any]]) -> None:
        """Put scans into what the device keeps, as this gate would have made them."""
        whole = {"function_code": "ferry", "venue_code": VENUE, "username": "gina", "label": "Ferry crossing"}
        made = [
            {**whole, "terminal_device_id": "d-1", "at": time.time() * 1000, "tries": 0, **s} for s in scans
        ]
        await self.page.evaluate(
            "(all) => localStorage.setItem('gateline.gate.queue', JSON.stringify(all))", made
        )

    async def waiting(self) -> list[dict[str, Any]]:
        """The scans that are kept on the device."""
        kept: list[dict[str, Any]] = await self.page.evaluate(
            "() => JSON.parse(localStorage.getItem('gateline.gate.queue') || '[]')"
        )
        return kept


async def on_duty(
    open_window: OpenWindow,
    road: Road,
    *,
    username: str = "gina",
    functions: tuple[str, ...] = ("ferry",),
    lang: str = "en",
    window: Window | None = None,
    still: bool = False,
    **options: Any,
) -> Gate:
    """Somebody whose home venue serves these functions, logged in; with one function they stand ready to scan.

    `still`: the page's clock stands; see `Window.stand_still`.
    """
    await road.venue(VENUE, list(functions))
    await road.staff(username, Role.GATE, VENUE)
    if window is None:
        window = await open_window(None, lang=lang, **options)
        if still:
            await window.stand_still()
        await window.go("/gate")
    gate = Gate(window, lang)
    await gate.log_in(username)
    if len(functions) == 1:
        await expect(gate.page.locator(".where h1")).to_be_visible()
    return gate


async def tokens(road: Road, count: int, *, over: bool = False) -> list[str]:
    """Codes of so many tickets with one crossing each: good for longer than a slow machine needs, or `over`."""
    product = await road.product({"ferry": 1})
    keys = qr.QrKeys(dict(road.config.qr_keys))
    at_ms = int(time.time() * 1000) + (-60_001 if over else 600_000)
    tickets = await road.buy({product: count})
    return [qr.issue(keys, each["ticket_code"], now_ms=at_ms, ttl_ms=60_000).token for each in tickets]


async def successes(road: Road) -> list[dict[str, Any]]:
    """What the report says of those who were let in."""
    await road.flushed()
    answer = await road.call("GET", "/reports/redemptions?result=success", headers=await road.analyst())
    rows: list[dict[str, Any]] = answer.json["redemptions"]
    return rows


async def tries_now(page: Page) -> None:
    """The device notices a network, and sends what waits at once."""
    await page.evaluate("() => { window.dispatchEvent(new Event('online')); }")


class Line:
    """The line between gate and server, as a test wants it: `gate.page.route("**/venue/scan", line)`."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.lose_answers = 0
        self.cut = False

    async def mend(self, page: Page) -> None:
        """It is whole again, and the device notices so: else it would be up to 10 s before it tries."""
        self.cut, self.lose_answers = False, 0
        await tries_now(page)

    async def __call__(self, route: Route) -> None:
        """One request of the gate."""
        self.sent.append(route.request.post_data_json)
        if self.cut:
            await route.abort()
        elif self.lose_answers:
            self.lose_answers -= 1
            await route.fetch()  # the server has heard it, and decides
            await route.abort()
        else:
            await route.continue_()
