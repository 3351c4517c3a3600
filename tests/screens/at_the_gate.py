"""An operator at the gate's screen: logs in, chooses a place, and scans as a hand scanner does, by typing."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Locator, Page, Route, expect

from server.domain.catalog import Role
from tests.road import PASSWORD, Road
from tests.screens.conftest import OpenWindow
from tests.screens.looking import Window

VENUE = "pier-north"
BUTTONS = {"en": {"log_in": "Log in", "start": "Start scanning"}, "zh": {"log_in": "登录", "start": "开始检票"}}
NO_NETWORK = ("net::ERR_", "Failed to load resource")


class Gate:
    """The gate's screen in a window, with somebody who works there."""

    def __init__(self, window: Window, lang: str) -> None:
        self.window = window
        self.page: Page = window.page
        self._buttons = BUTTONS[lang]
        self.word: Locator = self.page.locator(".verdict-word")
        self.alarm: Locator = self.page.locator(".alarm")
        self.late: Locator = self.page.locator(".late")

    async def log_in(self, username: str = "gina", password: str = PASSWORD) -> None:
        """Fill in the login."""
        await self.page.locator("#username").fill(username)
        await self.page.locator("#password").fill(password)
        await self.page.get_by_role("button", name=self._buttons["log_in"]).click()

    async def present(self, text: str) -> None:
        """A hand scanner reads a code: it types fast, then Enter."""
        await self.page.keyboard.type(text)
        await self.page.keyboard.press("Enter")

    async def tile(self, name: str) -> int:
        """A counter of the shift."""
        text = await self.page.locator(".tile", has_text=name).locator("dd").inner_text()
        return int(text)

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
    **options: Any,
) -> Gate:
    """Somebody whose home venue serves these functions, logged in; with one function they stand ready to scan."""
    await road.venue(VENUE, list(functions))
    await road.staff(username, Role.GATE, VENUE)
    window = await open_window("/gate", lang=lang, **options)
    gate = Gate(window, lang)
    await gate.log_in(username)
    if len(functions) == 1:
        await expect(gate.page.locator(".where h1")).to_be_visible()
    return gate


class Line:
    """The line between gate and server, as a test wants it: `gate.page.route("**/venue/scan", line)`."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.lose_answers = 0
        self.cut = False

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
