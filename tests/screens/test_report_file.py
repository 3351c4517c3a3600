"""The file that is downloaded has exactly what is chosen, and a broken download saves nothing."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Page, expect

from tests.road import Road
from tests.screens.conftest import OpenWindow
from tests.screens.reporting import Day, open_report, shown

FILE = "**/reports/redemptions?*format=csv*"


@pytest.fixture
async def day(road: Road, pg: asyncpg.Connection[Any]) -> Day:
    """Scans of this moment and of the twenty hours before."""
    return await (await Day(road, pg).scanned()).remembered()


async def downloaded(page: Page) -> tuple[str, bytes]:
    """Name and content of what the button saves."""
    async with page.expect_download(timeout=60_000) as waiting:  # up to 8 MB, on however slow a machine
        await page.get_by_role("button", name="Download CSV").click()
    download = await waiting.value
    content = await asyncio.to_thread(Path(await download.path()).read_bytes)
    return download.suggested_filename, content


async def test_the_file_has_the_scans_of_window_and_filters(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road, "?window=day&function=ferry&result=reject")).page
    name, content = await downloaded(page)
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    recorded = await day.pg.fetch(
        "SELECT event_id FROM redemption_events WHERE function_code = 'ferry' AND result = 'reject'"
        " ORDER BY decided_at DESC, event_id DESC"
    )

    assert len(recorded) > 2
    assert [row["event_id"] for row in rows] == [row["event_id"] for row in recorded]
    assert {(row["function"], row["result"]) for row in rows} == {("ferry", "reject")}
    assert {row["product"] for row in rows} == {"Island day 海岛一日"}
    assert content.startswith(b"\xef\xbb\xbf")  # else Excel takes the Chinese in it for something else
    await expect(page.get_by_text(f"Saved as {name}")).to_be_visible()


async def test_its_name_has_the_window_by_the_clock_of_the_device(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    query = "?window=custom&from=2026-03-01T02:00:00Z&to=2026-03-02T03:30:00Z"
    page = (await open_report(open_window, road, query)).page
    name, content = await downloaded(page)
    assert name == "redemptions_20260301-1000_20260302-1130.csv"
    assert content.count(b"\r\n") == 1  # the head alone
    await page.locator("[data-window=day]").click()
    await shown(page)
    name, _ = await downloaded(page)
    assert re.fullmatch(r"redemptions_\d{8}-\d{4}_\d{8}-\d{4}\.csv", name)


async def test_a_file_of_many_pieces_is_whole(open_window: OpenWindow, road: Road, day: Day) -> None:
    await day.pg.execute(
        "INSERT INTO redemption_events SELECT '00-' || n || '-0', $1, 'bus', 'reject', 'NO_REMAINING', 'ACTIVE', '',"
        " '', n::text, repeat('s', 64), repeat('o', 64), repeat('v', 32), repeat('t', 64), at, at"
        " FROM generate_series(1, 30000) AS n, LATERAL (SELECT now() - n * interval '1 s' AS at) AS t",
        day.tickets[0],
    )
    page = (await open_report(open_window, road, "?window=day&reason=NO_REMAINING")).page
    _, content = await downloaded(page)
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    expected = (await day.counted(reason="NO_REMAINING"))["reject"]
    assert len(content) > 8 * 2**20
    assert len(rows) == len({row["event_id"] for row in rows}) == expected


async def test_a_download_that_breaks_off_saves_nothing_and_says_so(
    open_window: OpenWindow, road: Road, day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = await open_report(open_window, road)
    window.expected = ["Failed to load resource", "ERR_"]
    page = window.page
    monkeypatch.setattr("server.web.redemptions.REPORT_CSV_CHUNK_ROWS", 10)
    from server.web import redemptions

    pages, calls = redemptions.reports.redemptions_page, 0

    async def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += arguments[3] == 10  # the file's pages, not the list's
        if calls == 3:
            raise OSError("the record is away")
        return await pages(*arguments)

    monkeypatch.setattr(redemptions.reports, "redemptions_page", failing)
    saved: list[str] = []
    page.on("download", lambda download: saved.append(download.url))
    await page.get_by_role("button", name="Download CSV").click()
    await expect(page.locator(".csv-said")).to_contain_text("The download broke off. Nothing was saved.")
    assert saved == []

    monkeypatch.undo()
    _, content = await downloaded(page)
    assert content.count(b"\r\n") == 1 + await day.pg.fetchval("SELECT count(*) FROM redemption_events")


async def test_a_download_after_the_session_ended_asks_for_a_login(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    window = await open_report(open_window, road)
    window.expected = ["Failed to load resource"]
    page = window.page
    await page.get_by_role("button", name="Pause").click()
    await page.evaluate("localStorage.setItem('gateline.report.token', JSON.stringify('x.y.z'))")
    await page.get_by_role("button", name="Download CSV").click()
    await expect(page.locator(".door .notice")).to_contain_text("Your session is over.")
    assert await page.locator("#tile-success .value").inner_text() != "–"
