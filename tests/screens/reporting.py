"""A day at three venues for the report, scanned at real gates and, for the hours before, written into the record."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from playwright.async_api import Locator, Page, expect

from server.domain.catalog import Role
from tests.road import PASSWORD, Road
from tests.screens.conftest import OpenWindow
from tests.screens.looking import Window
from tests.web.test_reports import write

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
SUCCESS = {"result": "success", "reason": None}


class Day:
    """What happened; `ticket` is a code that more may be written about, `qr()` a token that is let in once more."""

    def __init__(self, road: Road, pg: asyncpg.Connection[Any]) -> None:
        self.road = road
        self.pg = pg
        self.tickets: list[str] = []
        self.product = 0
        self._number = 1_000

    async def scanned(self) -> Day:
        """Seven scans at gates, of this moment: four let in, three refused."""
        road = self.road
        await road.venue("pier-1", ["bus", "ferry"])
        await road.venue("pier-2", ["ferry"])
        await road.venue("museum-1", ["museum"])
        self.product = await road.product({"bus": 9, "ferry": 9, "museum": 1}, sku="ISLAND-DAY", sellable=100)
        self.tickets = [ticket["ticket_code"] for ticket in await road.buy({self.product: 2})]
        await road.order({self.product: 5}, buyer="bob")
        ann, _ = self.tickets
        token = await road.qr(ann)
        await self.scan(token, "bus", "pier-1", "gina", "gate-1")
        await self.scan(token, "bus", "pier-1", "gina", "gate-1", "ALREADY_REDEEMED")
        await self.scan(token, "ferry", "pier-2", "gus", "gate-2")
        await self.scan(await road.qr(ann), "ferry", "pier-1", "gina", "gate-1")
        await self.scan(await road.qr(ann), "museum", "museum-1", "gus", None)
        await self.scan(await road.qr(ann), "museum", "museum-1", "gus", None, "NO_REMAINING")
        await self.scan(await road.qr(ann), "ferry", "museum-1", "gus", None, "WRONG_VENUE_FUNCTION")
        await road.flushed()
        return self

    async def scan(
        self,
        token: str,
        function: str,
        venue: str,
        operator: str,
        terminal: str | None,
        reason: str | None = None,
    ) -> None:
        """One scan, which ends as it is said."""
        device = {"terminal_device_id": terminal} if terminal else {}
        told = await self.road.scan(token, function, gate=operator, venue_code=venue, **device)
        assert told.json.get("reason") == reason, told

    async def remembered(self, hours: int = 20) -> Day:
        """Before: some verdicts in the middle of each of so many hours, not the same in any two of them."""
        ann = self.tickets[0]
        now = datetime.now(UTC)
        for hour in range(1, hours + 1):
            for number in range(hour % 7 + 1):
                at = now - hour * HOUR - 20 * MINUTE - number * MINUTE
                refused = (hour + number) % 5 == 0
                await self.write(
                    at,
                    ticket=ann,
                    function_code=("bus", "ferry", "museum")[number % 3],
                    venue_code=("pier-1", "pier-2", "museum-1", None)[(hour + number) % 4],
                    operator=("gina", "gus")[hour % 2],
                    terminal_device_id=("gate-1", "gate-2", "gate-3", None)[number % 4],
                    **({"reason": ("ALREADY_REDEEMED", "NO_REMAINING")[hour % 2]} if refused else SUCCESS),
                )
        return self

    async def write(self, at: datetime, *, ticket: str | None = None, **changes: Any) -> str:
        """One verdict at that moment, straight into the record; its event id."""
        self._number += 1
        return await write(self.pg, ticket or self.tickets[0], self._number, at, **changes)

    async def counted(self, since: timedelta = 24 * HOUR, **where: str | None) -> Counter[str]:
        """What the record has of that time: `success`, `reject` and, for each column, `column=value result`."""
        rows = await self.pg.fetch(
            "SELECT * FROM redemption_events WHERE decided_at >= $1", datetime.now(UTC) - since
        )
        counts: Counter[str] = Counter()
        for row in rows:
            if any(row[column] != value for column, value in where.items()):
                continue
            counts[row["result"]] += 1
            for column in ("function_code", "venue_code", "operator", "terminal_device_id", "reason"):
                counts[f"{column}={row[column]} {row['result']}"] += 1
        return counts


async def log_in(window: Window, username: str = "amy") -> None:
    """By the form."""
    page = window.page
    await page.get_by_label("User name").or_(page.get_by_label("用户名")).fill(username)
    await page.get_by_label("Password").or_(page.get_by_label("密码")).fill(PASSWORD)
    await page.get_by_role("button", name="Log in").or_(page.get_by_role("button", name="登录")).click()


async def open_report(
    open_window: OpenWindow, road: Road, query: str = "?window=day", *, still: bool = False, **options: Any
) -> Window:
    """The report of an analyst who has logged in, with its figures; `still`: its clock stands, see `later`."""
    await road.staff("amy", Role.ANALYST)
    window = await open_window(None, **{"phone": False, **options})
    if still:
        await window.stand_still()
    await window.go(f"/report{query}")
    await log_in(window)
    await shown(window.page)
    return window


async def shown(page: Page) -> None:
    """Wait until what is on the screen is what was chosen."""
    await expect(page.locator(".figures")).to_have_attribute("aria-busy", "false")


async def later(page: Page) -> None:
    """Longer than the page ever waits before it asks again, by its clock; and what it asks then has gone out."""
    await page.clock.fast_forward(61_000)
    await page.wait_for_timeout(300)


async def next_second() -> None:
    """What happened so far is over by the server's answers, too, which tell the page whole seconds."""
    await asyncio.sleep(1)


async def tile(page: Page, name: str) -> str:
    """The text of a headline figure."""
    text: str = await page.locator(f"#tile-{name} .value").inner_text()
    return text


async def table_of(card: Locator) -> list[list[str]]:
    """The rows of the table behind a chart, as they are shown."""
    if await card.locator("table").is_hidden():
        await card.locator("button").click()
    rows: list[list[str]] = await card.locator("table").evaluate(
        "(table) => [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return rows


async def bars_of(page: Page, card: str) -> dict[str, str]:
    """What a chart of bars says: name -> its numbers in words."""
    svg = page.locator(f"#{card} svg.bars")
    await expect(svg).to_be_visible()
    rows: list[list[str]] = await svg.evaluate(
        "(svg) => [...svg.querySelectorAll('[data-id]')]"
        ".map((row) => [...row.querySelectorAll('text')].map((text) => text.textContent))"
    )
    return {row[0]: row[1] for row in rows}


async def columns_of(page: Page) -> dict[datetime, tuple[int, int]]:
    """What the chart over time says: beginning of a column -> let in and refused."""
    told: list[list[str]] = await page.locator("#over_time svg.columns").evaluate(
        "(svg) => [...svg.querySelectorAll('.band')].map((band) => [band.dataset.id, band.getAttribute('aria-label')])"
    )
    return {
        datetime.fromisoformat(at): (int(found[1]), int(found[2]))
        for at, text in told
        for found in [re.search(r"Let in (\d+) Refused (\d+)$", text)]
        if found
    }
