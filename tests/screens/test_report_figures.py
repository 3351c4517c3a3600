"""The report's figures are those of the record, in every chart, in the table behind it and in the list of scans."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Page, expect

from server.domain.catalog import Role
from tests.road import Road
from tests.screens.conftest import OpenWindow
from tests.screens.reporting import (
    HOUR,
    SUCCESS,
    Day,
    bars_of,
    columns_of,
    later,
    log_in,
    next_second,
    open_report,
    shown,
    table_of,
    tile,
)

PARTS = {
    "by_function": (
        "function_code",
        {"bus": "Bus ride", "ferry": "Ferry crossing", "museum": "博物馆 Museum"},
    ),
    "by_location": ("venue_code", {code: f"Venue {code}" for code in ("pier-1", "pier-2", "museum-1")}),
    "by_terminal": ("terminal_device_id", {}),
    "by_operator": ("operator", {}),
}
REASONS = {
    "No uses left": "NO_REMAINING",
    "Code used already": "ALREADY_REDEEMED",
    "Not checked at this venue": "WRONG_VENUE_FUNCTION",
}


@pytest.fixture
async def day(road: Road, pg: asyncpg.Connection[Any]) -> Day:
    """Scans of this moment and of the twenty hours before."""
    return await (await Day(road, pg).scanned()).remembered()


async def test_the_headline_is_what_the_record_and_the_interface_have(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road)).page
    counts, last = await day.counted(), await day.counted(HOUR)
    told = (
        await road.call(
            "GET",
            "/reports/figures",
            params={"from": (datetime.now(UTC) - 24 * HOUR).isoformat()},
            headers=await road.analyst(),
        )
    ).json

    assert counts["success"] > 50 and counts["reject"] > 10
    assert told["all"] == {"success": counts["success"], "reject": counts["reject"]}
    assert await tile(page, "success") == str(counts["success"])
    assert await tile(page, "reject") == str(counts["reject"])
    everyone = counts["success"] + counts["reject"]
    assert await tile(page, "share") == f"{100 * counts['reject'] / everyone:.1f}%"
    assert await tile(page, "last_hour") == str(last["success"]) == "4"
    await expect(page.locator("#tile-last_hour")).to_contain_text(f"let in; {last['reject']} refused")


async def test_a_chart_and_the_table_behind_it_have_the_numbers_of_the_record(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road)).page
    for card, (column, names) in PARTS.items():
        await has_the_numbers(page, day, card, column, names)


async def has_the_numbers(page: Page, day: Day, card: str, column: str, names: dict[str, str]) -> None:
    """This card shows what the record has in this column."""
    counts = await day.counted()
    codes = {key.split("=")[1].rsplit(" ")[0] for key in counts if key.startswith(f"{column}=")}
    expected = {
        names.get(code, "None named" if code == "None" else code): (
            counts[f"{column}={code} success"],
            counts[f"{column}={code} reject"],
        )
        for code in codes
    }

    assert len(expected) >= 2
    assert await bars_of(page, card) == {
        n: f"{let_in} in · {out} refused" for n, (let_in, out) in expected.items()
    }
    rows = await table_of(page.locator(f"#{card}"))
    assert {row[0]: (int(row[1]), int(row[2])) for row in rows} == expected
    assert all(int(row[3]) == int(row[1]) + int(row[2]) for row in rows)
    assert [int(row[3]) for row in rows] == sorted((int(row[3]) for row in rows), reverse=True)
    await expect(page.locator(f"#{card} svg.bars")).to_be_hidden()


async def test_refusals_are_told_by_reason_in_words(open_window: OpenWindow, road: Road, day: Day) -> None:
    page = (await open_report(open_window, road)).page
    counts = await day.counted()
    told = await bars_of(page, "by_reason")

    assert {name: int(text.split(" · ")[0]) for name, text in told.items()} == {
        name: counts[f"reason={code} reject"] for name, code in REASONS.items()
    }
    rows = await table_of(page.locator("#by_reason"))
    assert {row[0]: f"{row[1]} · {row[2]}" for row in rows} == told


async def test_every_hour_has_its_column_also_those_without_scans(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road)).page
    expected: Counter[tuple[datetime, str]] = Counter()
    for row in await day.pg.fetch("SELECT decided_at, result FROM redemption_events"):
        expected[row["decided_at"].replace(minute=0, second=0, microsecond=0), row["result"]] += 1
    labels = await columns_of(page)

    assert sorted(labels) == [min(labels) + n * HOUR for n in range(25)]
    assert labels == {at: (expected[at, "success"], expected[at, "reject"]) for at in labels}
    assert sum(map(sum, labels.values())) == expected.total()
    rows = await table_of(page.locator("#over_time"))
    assert [(int(row[1]), int(row[2])) for row in reversed(rows)] == [labels[at] for at in sorted(labels)]
    await expect(page.locator("#over_time .note")).to_have_text("per hour · Asia/Shanghai, UTC+8")


async def test_stock_shows_what_is_sold_held_and_free(open_window: OpenWindow, road: Road, day: Day) -> None:
    page = (await open_report(open_window, road)).page
    assert await bars_of(page, "stock") == {"Island day 海岛一日": "2 sold · 5 held · 93 free"}
    widths = await page.locator("#stock g[data-id]").evaluate(
        "(row) => [...row.querySelectorAll('rect:not(.track)')].map((bar) => Number(bar.getAttribute('width')))"
    )
    assert [round(100 * width / sum(widths)) for width in widths] == [2, 5, 93]
    assert await table_of(page.locator("#stock")) == [
        ["Island day 海岛一日 (ISLAND-DAY)", "2", "5", "93", "100"]
    ]


async def test_more_than_eight_gates_are_summed_up_in_the_chart_and_all_in_the_table(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    now = datetime.now(UTC)
    for gate in range(10, 20):
        for _ in range(gate):
            await day.write(now - 3 * HOUR, terminal_device_id=f"lane-{gate}", **SUCCESS)
    page = (await open_report(open_window, road)).page
    told = await bars_of(page, "by_terminal")
    rows = await table_of(page.locator("#by_terminal"))

    assert len(told) == 8 and len(rows) == 14
    assert list(told)[-1] == "7 others"
    sums = [sum(int(row[n]) for row in rows[7:]) for n in (1, 2)]
    assert told["7 others"] == f"{sums[0]} in · {sums[1]} refused"


async def test_a_new_scan_shows_by_itself(open_window: OpenWindow, road: Road, day: Day) -> None:
    page = (await open_report(open_window, road, still=True)).page
    before = int(await tile(page, "success"))
    await expect(page.locator(".freshness .tag")).to_have_text("Live")
    as_of = await page.locator(".freshness .when").inner_text()

    await day.scan(await road.qr(day.tickets[1]), "bus", "pier-1", "gina", "gate-9")
    await road.flushed()
    await next_second()
    await later(page)

    await expect(page.locator("#tile-success .value")).to_have_text(str(before + 1))
    await expect(page.locator("#by_terminal svg.bars")).to_contain_text("gate-9")
    first = page.locator("#newest [data-id]").first
    await expect(first).to_contain_text("Let in")
    await expect(first).to_contain_text("gate-9 · gina")
    await expect(page.locator(".freshness .when")).not_to_have_text(as_of)
    assert re.fullmatch(r"Updated \d\d:\d\d:\d\d", await page.locator(".freshness .when").inner_text())


async def test_nothing_is_drawn_again_while_nothing_happens(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road, still=True)).page
    charts = page.locator("#by_function svg.bars, #stock svg.bars, #newest [data-id]")
    await charts.evaluate_all("(drawn) => drawn.forEach((each) => each.setAttribute('data-same', ''))")
    as_of = await page.locator(".freshness .when").inner_text()
    await next_second()
    await later(page)
    await expect(page.locator(".freshness .when")).not_to_have_text(as_of)
    same = await charts.evaluate_all("(drawn) => drawn.map((each) => each.hasAttribute('data-same'))")
    assert len(same) == 22 and all(same)


async def test_the_newest_scans_say_what_happened_and_more_gives_all_of_them_once(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road, still=True)).page
    rows = page.locator("#newest [data-id]")
    await expect(rows).to_have_count(20)
    refused = rows.first
    for text in (
        "Refused",
        "Not checked at this venue",
        "Ferry crossing",
        "Venue museum-1",
        "gus",
        day.tickets[0],
    ):
        await expect(refused).to_contain_text(text)

    more = page.get_by_role("button", name="Show more")
    total = await day.pg.fetchval("SELECT count(*) FROM redemption_events")
    for wanted in range(40, total, 20):
        await more.click()
        await expect(rows).to_have_count(wanted)
    await more.click()
    await expect(rows).to_have_count(total)
    # A refresh puts what is new on top, and takes nothing away.
    await day.scan(await road.qr(day.tickets[1]), "bus", "pier-1", "gina", "gate-9")
    await road.flushed()
    await next_second()
    await later(page)
    await expect(rows).to_have_count(total + 1)
    ids = [await row.get_attribute("data-id") for row in await rows.all()]
    recorded = await day.pg.fetch(
        "SELECT event_id FROM redemption_events ORDER BY decided_at DESC, event_id DESC"
    )
    assert ids == [row["event_id"] for row in recorded]
    await expect(page.get_by_text("That is all.")).to_be_visible()


@pytest.mark.parametrize(("lang", "words"), [("zh", "离线补传"), ("en", "Scanned offline")])
async def test_a_scan_that_was_uploaded_later_says_so(
    open_window: OpenWindow, road: Road, day: Day, lang: str, words: str
) -> None:
    now = datetime.now(UTC)
    live = await day.write(now - timedelta(minutes=2), **SUCCESS)
    late = await day.write(now - timedelta(minutes=1), **SUCCESS, uploaded=True, scanned_at=now - 3 * HOUR)
    page = (await open_report(open_window, road, lang=lang)).page
    await expect(page.locator(f"#newest [data-id='{late}']")).to_contain_text(words)
    await expect(page.locator(f"#newest [data-id='{live}']")).not_to_contain_text(words)


async def test_before_anything_happened_it_says_so_once(open_window: OpenWindow, road: Road) -> None:
    page = (await open_report(open_window, road)).page
    assert [await tile(page, name) for name in ("success", "reject", "share")] == ["0", "0", "–"]
    await expect(page.locator("#over_time")).to_contain_text(
        "No scans in this window. Choose a longer one above."
    )
    await expect(page.locator(".charts section:visible")).to_have_count(2)
    await expect(page.locator("#stock")).to_contain_text("There are no products yet.")
    await expect(page.locator(".charts button:visible")).to_have_count(0)


async def test_a_device_whose_clock_is_wrong_sees_the_newest_scans_all_the_same(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    await road.staff("amy", Role.ANALYST)
    window = await open_window("/report", phone=False)
    await window.context.clock.install(time=datetime.now(UTC) - timedelta(days=2))
    await window.go("/report?window=hour")
    await log_in(window)
    await shown(window.page)
    assert await tile(window.page, "success") == "4"
