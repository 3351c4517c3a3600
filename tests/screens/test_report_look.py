"""What every view of the report owes to whoever looks at it or listens to it, with a picture of each."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg
from playwright.async_api import Route, expect

from server.domain.catalog import Role
from tests.road import Road
from tests.screens.conftest import DEVICES, OpenWindow
from tests.screens.looking import Window
from tests.screens.reporting import HOUR, Day, log_in, open_report, shown


async def owed(window: Window, name: str, *, phone: bool, lang: str) -> None:
    """A picture of this view; and contrast, names, targets and focus are as they have to be, and nothing sticks out."""
    await window.page.evaluate("scrollTo(0, 0)")
    await window.picture(f"report-{name}-{'phone' if phone else 'desktop'}-{lang}")
    assert await window.contrast_faults() == []
    assert await window.unlabelled() == []
    assert await window.small_targets() == []
    assert window.page.viewport_size is not None
    width = await window.page.evaluate("document.documentElement.scrollWidth")
    assert width <= window.page.viewport_size["width"]
    words = await window.page.evaluate("document.body.innerText")
    assert "undefined" not in words and "NaN" not in words and "_" not in words.replace("event_", "")


CARDS = ("over_time", "by_function", "by_reason", "stock")


async def test_the_figures(open_window: OpenWindow, road: Road, pg: asyncpg.Connection[Any]) -> None:
    day = await (await Day(road, pg).scanned()).remembered()
    opened = []
    for phone, lang in DEVICES:
        window = await open_report(open_window, road, phone=phone, lang=lang)
        opened.append((window, phone, lang))
        await figures_and_tables(window, phone=phone, lang=lang)
    await pg.execute(
        "INSERT INTO redemption_events SELECT '00-' || n || '-0', $1, 'bus', 'success', NULL, 'ACTIVE', '', '',"
        " n::text, n::text, 'gus-with-a-very-long-name@pier-north.example', 'pier-1', NULL, $2, $2"
        " FROM generate_series(1, 1300) AS n",
        day.tickets[0],
        datetime.now(UTC) - 100 * HOUR,
    )
    for window, phone, lang in opened:
        await window.page.bring_to_front()
        await window.page.locator("[data-window=week]").click()
        await window.page.locator("#filter-operator").select_option("")
        for card in CARDS:
            await window.page.locator(f"#{card} button").click()
        await shown(window.page)
        await window.page.locator(".columns .band").nth(2).focus()
        await owed(window, "week", phone=phone, lang=lang)


async def figures_and_tables(window: Window, *, phone: bool, lang: str) -> None:
    """As one comes to it; and with tables, a filter, and a window of one's own."""
    page = window.page
    await owed(window, "figures", phone=phone, lang=lang)
    assert await window.focus_is_visible() == []
    assert await page.title() == ("核销报表 · Gateline" if lang == "zh" else "Redemptions · Gateline")

    await page.locator(".columns .band").last.focus()
    await page.keyboard.press("ArrowLeft")
    for card in CARDS:
        await page.locator(f"#{card} button").click()
    await page.locator("[data-window=custom]").click()
    if phone:
        await page.locator(".fold").click()
    await page.locator("#filter-operator").select_option("gus")
    await shown(page)
    await owed(window, "tables", phone=phone, lang=lang)
    assert await window.focus_is_visible() == []


async def test_troubles(open_window: OpenWindow, road: Road, pg: asyncpg.Connection[Any]) -> None:
    await Day(road, pg).scanned()
    for phone, lang in DEVICES:
        window = await open_report(open_window, road, "?window=hour", phone=phone, lang=lang)
        window.expected = ["Failed to load resource"]
        page = window.page
        await window.context.set_offline(True)
        await expect(page.locator(".place-of-notice .notice")).to_be_visible()
        await owed(window, "offline", phone=phone, lang=lang)

        await page.evaluate("localStorage.setItem('gateline.report.token', JSON.stringify('x.y.z'))")
        await window.context.set_offline(False)
        await expect(page.locator(".door form")).to_be_visible()
        await owed(window, "expired", phone=phone, lang=lang)
        assert await window.focus_is_visible() == []


async def test_the_door(open_window: OpenWindow, road: Road) -> None:
    await road.staff("gina", Role.GATE)
    for phone, lang in DEVICES:
        window = await open_window("/report", phone=phone, lang=lang)
        window.expected = ["Failed to load resource"]
        await expect(window.page.locator("h1")).to_be_focused()
        await owed(window, "login", phone=phone, lang=lang)
        assert await window.focus_is_visible() == []
        await log_in(window, "gina")
        await expect(window.page.locator(".notice")).to_be_visible()
        await owed(window, "for-analysts", phone=phone, lang=lang)


async def test_nothing_yet(open_window: OpenWindow, road: Road) -> None:
    for phone, lang in DEVICES:
        window = await open_report(open_window, road, "?window=today", phone=phone, lang=lang)
        await owed(window, "empty", phone=phone, lang=lang)


async def test_it_fits_the_smallest_phone(
    open_window: OpenWindow, road: Road, pg: asyncpg.Connection[Any]
) -> None:
    await (await Day(road, pg).scanned()).remembered()
    window = await open_report(open_window, road, phone=True)
    await window.page.set_viewport_size({"width": 360, "height": 640})
    await expect(window.page.locator("svg.columns")).to_have_attribute("width", "288")
    await owed(window, "narrow", phone=True, lang="en")


async def test_nothing_jumps_while_the_figures_arrive(
    open_window: OpenWindow, road: Road, pg: asyncpg.Connection[Any]
) -> None:
    await (await Day(road, pg).scanned()).remembered()
    window = await open_report(open_window, road)
    answer = asyncio.Event()

    async def late(route: Route) -> None:
        await answer.wait()
        await route.continue_()

    await window.page.route("**/reports/*", late)
    await window.page.reload()
    places = """() => ["h1", ".choice", ".tiles", "#over_time"].map((each) => {
      const box = document.querySelector(each).getBoundingClientRect();
      return [each, Math.round(box.top), Math.round(box.height)];
    })"""
    await expect(window.page.locator(".tiles")).to_be_visible()
    before = await window.page.evaluate(places)
    await window.picture("report-loading-desktop-en")
    await expect(window.page.locator("svg.columns")).to_have_count(0)  # a zero would be a figure
    await expect(window.page.get_by_role("button", name="Show more")).to_be_hidden()
    answer.set()
    await shown(window.page)
    assert await window.page.evaluate(places) == before


async def test_the_other_language_keeps_what_is_chosen(open_window: OpenWindow, road: Road) -> None:
    window = await open_report(open_window, road, "?window=week&function=bus")
    await window.page.get_by_role("button", name="切换到中文").click()
    await expect(window.page.get_by_role("heading", name="核销报表")).to_be_visible()
    await shown(window.page)
    assert "window=week" in window.page.url and "function=bus" in window.page.url


async def test_all_of_it_is_loaded_within_100_kb(open_window: OpenWindow, road: Road) -> None:
    window = await open_report(open_window, road, "?window=week")
    assert await window.bytes_loaded() < 60_000
