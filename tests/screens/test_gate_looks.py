"""Every view of the gate, on phone and desktop, in both languages: usable by anyone, and with a picture to look at."""

from __future__ import annotations

from playwright.async_api import expect

from server.domain.catalog import Role
from tests.road import Road
from tests.screens.at_the_gate import NO_NETWORK, VENUE, Gate, Line, on_duty, tokens
from tests.screens.conftest import DEVICES, OpenWindow

WORDS = {"zh": ("放行", "拒绝", "待定", "关闭"), "en": ("LET IN", "REFUSED", "NOT DECIDED", "Close")}


class Look:
    """Takes a picture of a view and holds it against what every view owes."""

    def __init__(self, gate: Gate, phone: bool, lang: str) -> None:
        self._gate = gate
        self._end = f"{'phone' if phone else 'desktop'}-{lang}"

    async def at(self, name: str, *, walk: bool = True) -> None:
        """`walk`: also go through it with Tab."""
        window = self._gate.window
        await window.picture(f"gate-{name}-{self._end}")
        assert await window.contrast_faults() == []
        assert await window.unlabelled() == []
        assert await window.small_targets() == []
        assert await self._gate.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        if walk:
            assert await window.focus_is_visible() == []


async def test_login_choice_and_scanning_look_and_work_as_they_should(
    road: Road, open_window: OpenWindow
) -> None:
    await road.venue(VENUE, ["ferry", "bus"])
    await road.venue("museum-gate", ["museum"])
    await road.staff("gina", Role.GATE, VENUE)
    for phone, lang in DEVICES:
        await from_login_to_scanning(open_window, phone, lang)


async def from_login_to_scanning(open_window: OpenWindow, phone: bool, lang: str) -> None:
    """Three views, one after the other."""
    gate = Gate(await open_window("/gate", phone=phone, lang=lang), lang)
    look = Look(gate, phone, lang)

    await expect(gate.page.locator("#username")).to_be_focused()
    await look.at("login")
    await gate.log_in()
    await expect(gate.page.locator("h1")).to_be_focused()
    await gate.page.get_by_role("radio").nth(1).check()
    await look.at("choice")
    await gate.page.get_by_role("radio").nth(2).check()
    await gate.page.locator("button[type=submit]").click()
    await expect(gate.page.locator(".where h1")).to_be_focused()
    await look.at("scanning")


async def test_verdicts_the_banner_and_late_answers_look_and_work_as_they_should(
    road: Road, open_window: OpenWindow
) -> None:
    for phone, lang in DEVICES:
        await from_let_in_to_late(road, open_window, phone, lang)


async def from_let_in_to_late(road: Road, open_window: OpenWindow, phone: bool, lang: str) -> None:
    """Every face of a scan, and what comes after it."""
    go, stop, wait, close = WORDS[lang]
    first, second, third = await tokens(road, 3)
    [short] = await tokens(road, 1, over=True)
    gate = await on_duty(open_window, road, phone=phone, lang=lang, still=True)
    gate.window.expected = [*NO_NETWORK]
    look = Look(gate, phone, lang)
    line = Line()
    await gate.page.route("**/venue/scan", line)

    await gate.present(first)
    await expect(gate.word).to_have_text(go)
    await look.at("let-in", walk=False)
    await gate.present(first)
    await expect(gate.word).to_have_text(stop)
    await look.at("refused")
    line.cut = True
    for code in (second, short, third):
        await gate.present(code)
    await gate.page.clock.resume()
    await expect(gate.word).to_have_text(wait)
    await look.at("undecided")
    await gate.page.get_by_role("button", name=close).click()
    await look.at("no-network")
    await line.mend(gate.page)
    await expect(gate.late).not_to_have_count(0)
    await gate.page.wait_for_function("() => localStorage.getItem('gateline.gate.queue') === '[]'")
    await gate.page.keyboard.press("Escape")
    await expect(gate.word).to_be_hidden()
    await look.at("late")


async def test_the_smallest_phone_shows_it_all_without_scrolling_sideways(
    road: Road, open_window: OpenWindow
) -> None:
    product = await road.product({"ferry": 2, "bus": 4, "museum": 1})
    [ticket] = await road.buy({product: 1})
    token = await road.qr(ticket["ticket_code"])
    gate = await on_duty(open_window, road, still=True)
    look = Look(gate, True, "en")
    await gate.page.set_viewport_size({"width": 360, "height": 640})
    await gate.page.wait_for_function("() => innerWidth === 360")

    await look.at("scanning-small")
    await gate.present(token)
    await expect(gate.word).to_have_text("LET IN")
    await gate.present(token)
    await expect(gate.word).to_have_text("REFUSED")

    await look.at("refused-small")
    inside = await gate.word.evaluate(
        "(it) => it.scrollWidth <= innerWidth && it.getBoundingClientRect().top >= 0"
    )
    assert inside
