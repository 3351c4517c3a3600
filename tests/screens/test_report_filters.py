"""What is chosen stands in the address: it changes the figures, is kept by a reload, and can be gone back to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from playwright.async_api import Page, expect

from tests.road import Road
from tests.screens.conftest import OpenWindow
from tests.screens.reporting import HOUR, SUCCESS, Day, bars_of, columns_of, open_report, shown, tile

FILTERS = [
    ("function", "Ferry crossing", {"function_code": "ferry"}),
    ("location", "Venue pier-2", {"venue_code": "pier-2"}),
    ("terminal_device_id", "gate-1", {"terminal_device_id": "gate-1"}),
    ("operator", "gus", {"operator": "gus"}),
    ("result", "Refused", {"result": "reject"}),
    ("reason", "Code used already", {"reason": "ALREADY_REDEEMED"}),
]


@pytest.fixture
async def day(road: Road, pg: asyncpg.Connection[Any]) -> Day:
    """Scans of this moment and of the twenty hours before."""
    return await (await Day(road, pg).scanned()).remembered()


def asked(page: Page) -> dict[str, str]:
    """The query of the address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


async def both(page: Page) -> tuple[int, int]:
    """Let in and refused, as the headline says."""
    await shown(page)
    return int(await tile(page, "success")), int(await tile(page, "reject"))


async def test_a_filter_changes_address_and_figures_and_a_reload_keeps_both(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road)).page
    for field, option, where in FILTERS:
        await changes(page, day, field, option, where)
        await page.locator(f"#filter-{field}").select_option("")
        await shown(page)


async def changes(page: Page, day: Day, field: str, option: str, where: dict[str, str]) -> None:
    """This filter does what it says, where none is chosen."""
    everything = await both(page)
    counts = await day.counted(**where)
    expected = (counts["success"], counts["reject"])
    assert everything != expected != (0, 0)

    await page.locator(f"#filter-{field}").select_option(label=option)
    assert await both(page) == expected
    ((column, value),) = where.items()
    assert asked(page) == {"window": "day", field: value}, column
    seen = await columns_of(page)
    assert tuple(map(sum, zip(*seen.values(), strict=True))) == expected
    ids = await page.locator("#newest [data-id]").evaluate_all("(rows) => rows.map((row) => row.dataset.id)")
    rows = await day.pg.fetch("SELECT * FROM redemption_events WHERE event_id = ANY($1)", ids)
    assert len(rows) == min(20, sum(expected)) and {row[column] for row in rows} == {value}

    await page.reload()
    assert await both(page) == expected
    await expect(page.locator(f"#filter-{field} option:checked")).to_have_text(option)

    await page.go_back()
    await expect(page.locator(f"#filter-{field} option:checked")).to_have_text("All")
    assert await both(page) == everything
    await page.go_forward()
    await expect(page.locator(f"#filter-{field} option:checked")).to_have_text(option)
    assert await both(page) == expected


async def test_filters_meet_and_one_button_takes_them_all_away(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road)).page
    everything = await both(page)
    await page.locator("#filter-function").select_option("ferry")
    await shown(page)
    await page.locator("#filter-operator").select_option("gus")
    counts = await day.counted(function_code="ferry", operator="gus")
    assert await both(page) == (counts["success"], counts["reject"])
    # What else could be chosen is still offered.
    await expect(page.locator("#filter-operator option")).to_have_text(["All", "gina", "gus"])

    await page.get_by_role("button", name="Clear filters").click()
    assert await both(page) == everything
    assert asked(page) == {"window": "day"}
    await expect(page.get_by_role("button", name="Clear filters")).to_be_hidden()


async def test_an_address_that_was_shared_shows_what_it_says(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    query = "?window=day&function=bus&result=reject"
    page = (await open_report(open_window, road, query)).page
    counts = await day.counted(function_code="bus", result="reject")
    assert await both(page) == (0, counts["reject"])
    assert list(await bars_of(page, "by_function")) == ["Bus ride"]
    await expect(page.locator("#filter-function option")).to_have_text(
        ["All", "Bus ride", "Ferry crossing", "博物馆 Museum"]
    )


async def test_what_an_address_cannot_mean_is_passed_over(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    query = "?window=century&function=%3Cscript%3E&result=maybe&operator=&from=x&to=y&other=1"
    page = (await open_report(open_window, road, query)).page
    await expect(page.locator("[data-window=today]")).to_have_attribute("aria-pressed", "true")
    await expect(page.locator("select.on")).to_have_count(0)
    await page.locator("[data-window=day]").click()
    counts = await day.counted()
    assert await both(page) == (counts["success"], counts["reject"])
    assert asked(page) == {"window": "day", "other": "1"}


async def test_a_filter_that_nothing_meets_is_still_shown_and_says_that_nothing_matches(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road, "?window=day&operator=nobody")).page
    assert await both(page) == (0, 0)
    await expect(page.locator("#filter-operator option:checked")).to_have_text("nobody")
    await expect(page.locator("#over_time")).to_contain_text("No scans match these filters.")
    await expect(page.locator("#stock svg.bars")).to_be_visible()  # filters say nothing about it


async def test_a_window_decides_how_time_is_counted(open_window: OpenWindow, road: Road, day: Day) -> None:
    for days in (3, 20):
        await day.write(datetime.now(UTC) - timedelta(days=days), **SUCCESS)
    page = (await open_report(open_window, road)).page
    for window, since, unit, columns in (
        ("hour", HOUR, "minute", {60, 61}),
        ("day", 24 * HOUR, "hour", {25}),
        ("week", 144 * HOUR, "day", {7}),
        ("month", 696 * HOUR, "day", {30}),
    ):
        await page.locator(f"[data-window={window}]").click()
        counts = await day.counted(since)
        assert await both(page) == (counts["success"], counts["reject"]), window
        assert asked(page) == {"window": window}
        await expect(page.locator("#over_time .note")).to_contain_text(f"per {unit} · ")
        assert len(await columns_of(page)) in columns, window


async def test_today_begins_at_midnight_of_the_device(open_window: OpenWindow, road: Road, day: Day) -> None:
    shanghai = datetime.now(UTC) + 8 * HOUR
    midnight = shanghai.replace(hour=0, minute=0, second=0, microsecond=0) - 8 * HOUR
    await day.write(midnight, operator="early", **SUCCESS)
    await day.write(midnight - timedelta(milliseconds=1), operator="late", **SUCCESS)
    page = (await open_report(open_window, road, "?window=today")).page
    operators = await bars_of(page, "by_operator")
    assert "early" in operators and "late" not in operators


async def test_a_window_of_ones_own_is_typed_in_local_time_and_does_not_go_on(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    start = datetime(2026, 3, 1, 10, tzinfo=UTC) - 8 * HOUR
    for minutes in (-1, 0, 59, 60):
        await day.write(start + timedelta(minutes=minutes), **SUCCESS)
    page = (await open_report(open_window, road)).page
    await page.locator("[data-window=custom]").click()
    await expect(page.get_by_label("From", exact=True)).to_be_focused()
    await page.get_by_label("From", exact=True).fill("2026-03-01T10:00")
    await page.get_by_label("To", exact=True).fill("2026-03-01T11:00")
    await expect(page.locator("#tile-success .value")).to_have_text("2")

    assert asked(page) == {
        "window": "custom",
        "from": "2026-03-01T02:00:00.000Z",
        "to": "2026-03-01T03:00:00.000Z",
    }
    await expect(page.locator(".freshness .tag")).to_have_text("Closed window")
    await expect(page.get_by_role("button", name="Pause")).to_be_hidden()
    await expect(page.locator("#tile-last_hour")).to_contain_text("Its last hour")
    await page.reload()
    await expect(page.get_by_label("From", exact=True)).to_have_value("2026-03-01T10:00")
    await expect(page.locator("#tile-success .value")).to_have_text("2")


async def test_a_window_that_is_none_is_explained_and_not_asked_for(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road)).page
    await page.locator("[data-window=custom]").click()
    await shown(page)
    for start, end, told in (
        ("2026-03-01T10:00", "2026-03-01T10:00", "The beginning must be before the end."),
        ("2024-03-01T10:00", "2026-03-01T10:00", "A window is at most 366 days."),
        ("2026-03-01T10:00", "", "Fill in both beginning and end."),
    ):
        await page.get_by_label("To", exact=True).fill("2026-03-01T11:00")
        await page.get_by_label("From", exact=True).fill("2026-03-01T10:30")
        await expect(page.get_by_label("To", exact=True)).not_to_have_attribute("aria-invalid", "true")
        await page.get_by_label("From", exact=True).fill(start)
        address = await page.evaluate("location.href")  # page.url may lag behind it
        await page.get_by_label("To", exact=True).fill(end)
        await expect(page.locator("#window-fault")).to_have_text(told)
        await expect(page.get_by_label("To", exact=True)).to_have_attribute("aria-invalid", "true")
        assert await page.evaluate("location.href") == address


async def test_going_back_leaves_a_typed_window_as_a_whole(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road)).page
    await page.locator("[data-window=custom]").click()
    for start in ("2026-03-01T10:00", "2026-03-02T10:00", "2026-03-03T10:00"):
        await page.get_by_label("From", exact=True).fill(start)
    await page.go_back()
    await shown(page)
    assert asked(page) == {"window": "day"}
    await expect(page.get_by_label("From", exact=True)).to_be_hidden()


async def test_a_chart_that_was_behind_its_table_meanwhile_shows_what_is_chosen_now(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road)).page
    for card in ("over_time", "by_function"):
        await page.locator(f"#{card} button").click()
    await page.locator("#filter-function").select_option("museum")
    await page.locator("[data-window=week]").click()
    await shown(page)
    for card in ("over_time", "by_function"):
        await page.locator(f"#{card} button").click()
    await expect(page.locator("#over_time .band")).to_have_count(7)
    await expect(page.locator("#by_function svg.bars [data-id]")).to_have_count(
        1
    )  # drawn once it has its width
    assert list(await bars_of(page, "by_function")) == ["博物馆 Museum"]
