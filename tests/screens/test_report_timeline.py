"""Units of time as clocks on the wall have them: every one is there, also where the clocks are changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.screens.conftest import windows

TIMELINE = "async (figures) => (await import('/static/report/timeline.js')).timeline(figures)"
ZONE = "async (at) => (await import('/static/report/timeline.js')).zoneInWords('Europe/Berlin', new Date(at))"


@pytest.fixture(scope="module")
async def berlin(browser: Browser, shelf: str) -> AsyncIterator[dict[str, Page]]:
    """Devices in Berlin, one of each language."""
    async with windows(browser, shelf) as open_window:
        pages = {}
        for lang in ("en", "zh"):
            pages[lang] = (await open_window("/report", lang=lang, timezone_id="Europe/Berlin")).page
            await expect(pages[lang].locator("h1")).to_be_visible()
        yield pages


async def bands(berlin: dict[str, Page], *, lang: str = "en", **figures: Any) -> list[dict[str, Any]]:
    """What the report makes of figures on a device in Berlin."""
    told: list[dict[str, Any]] = await berlin[lang].evaluate(
        TIMELINE, {"zone": "Europe/Berlin", "over_time": [], **figures}
    )
    return told


@pytest.mark.parametrize(
    ("day", "hours", "first", "last"),
    [
        ("2026-03-29", 23, "2026-03-28T23:00:00.000Z", "2026-03-29T21:00:00.000Z"),
        ("2026-10-25", 25, "2026-10-24T22:00:00.000Z", "2026-10-25T22:00:00.000Z"),
        ("2026-06-01", 24, "2026-05-31T22:00:00.000Z", "2026-06-01T21:00:00.000Z"),
    ],
)
async def test_a_day_has_as_many_hours_as_its_clocks_show(
    berlin: dict[str, Page], day: str, hours: int, first: str, last: str
) -> None:
    end = last.replace("00:00.000Z", "59:59Z")
    told = await bands(berlin, unit="hour", **{"from": first, "to": end})
    assert (len(told), told[0]["id"], told[-1]["id"]) == (hours, first, last), day


async def test_days_begin_at_midnight_before_and_after_the_clocks_are_changed(
    berlin: dict[str, Page],
) -> None:
    counted = [{"begins_at": "2026-03-29T22:00:00Z", "success": 3, "reject": 1}]
    window = {"from": "2026-03-28T12:00:00Z", "to": "2026-03-31T12:00:00Z"}
    told = await bands(berlin, unit="day", over_time=counted, **window)
    assert [(each["id"][:13], each["values"]) for each in told] == [
        ("2026-03-27T23", [0, 0]),
        ("2026-03-28T23", [0, 0]),
        ("2026-03-29T22", [3, 1]),
        ("2026-03-30T22", [0, 0]),
    ]
    # Browsers differ in whether a comma follows the weekday.
    assert [(each["tick"], each["rank"], each["told"].replace(",", "")) for each in told][1:3] == [
        ("29 Mar", 2, "Sun 29 Mar"),
        ("30 Mar", 1, "Mon 30 Mar"),
    ]


async def test_a_column_says_its_time_within_the_window_and_the_axis_its_date_at_midnight(
    berlin: dict[str, Page],
) -> None:
    window = {"from": "2026-06-01T20:20:00Z", "to": "2026-06-01T23:10:00Z"}
    told = await bands(berlin, unit="hour", **window)
    assert [(each["tick"], each["rank"], each["told"]) for each in told] == [
        ("22:00", 22, "1 Jun, 22:20–23:00"),
        ("23:00", 23, "1 Jun, 23:00–00:00"),
        ("2 Jun", 0, "2 Jun, 00:00–01:00"),
        ("01:00", 1, "2 Jun, 01:00–01:10"),
    ]
    chinese = await bands(berlin, unit="hour", lang="zh", **window)
    assert chinese[0]["told"] == "6月1日 22:20–23:00"


async def test_minutes_are_counted_one_by_one(berlin: dict[str, Page]) -> None:
    window = {"from": "2026-06-01T20:20:30Z", "to": "2026-06-01T21:20:30Z"}
    told = await bands(berlin, unit="minute", **window)
    assert len(told) == 61
    assert (told[0]["rank"], told[-1]["rank"], told[40]["tick"]) == (20, 20, "23:00")


async def test_counts_in_utc_where_the_server_did_not_know_the_zone(berlin: dict[str, Page]) -> None:
    counted = [{"begins_at": "2026-06-02T00:00:00Z", "success": 3, "reject": 1}]
    window = {"from": "2026-06-01T20:20:00Z", "to": "2026-06-02T23:10:00Z"}
    told = await bands(berlin, unit="day", zone="UTC", over_time=counted, **window)
    assert [(each["id"][:13], each["values"]) for each in told] == [
        ("2026-06-01T00", [0, 0]),
        ("2026-06-02T00", [3, 1]),
    ]
    # In March, when the clocks of this device are changed and those of UTC are not.
    window = {"from": "2026-03-28T12:00:00Z", "to": "2026-03-31T12:00:00Z"}
    told = await bands(berlin, unit="day", zone="UTC", **window)
    assert [each["id"][:13] for each in told] == [f"2026-03-{day}T00" for day in (28, 29, 30, 31)]


async def test_the_zone_is_named_with_its_distance_at_that_time(berlin: dict[str, Page]) -> None:
    assert await berlin["en"].evaluate(ZONE, "2026-01-01T00:00:00Z") == "Europe/Berlin, UTC+1"
    assert await berlin["en"].evaluate(ZONE, "2026-07-01T00:00:00Z") == "Europe/Berlin, UTC+2"
