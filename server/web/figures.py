"""What the report screen shows: the chosen verdicts counted by time, and by each thing that they can be told by.

Each count stands alone, so that an answer stays small and can be asked for every few seconds; which reasons a venue had
is a question of its own, with a filter. The summary (`reports.py`) has all combinations, for a spreadsheet.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import web

from server.domain.catalog import Directory, Operator
from server.domain.errors import ErrorCode, Refusal
from server.limits import REPORT_FIGURES_ROWS_MAX
from server.store import catalog, reports
from server.web import appkeys
from server.web.body import Time
from server.web.reports import FilterQuery, StockAnswer, chosen, stock_answer, window

_HOUR: Final = timedelta(hours=1)
_UTC: Final = "UTC"
Unit = Literal["minute", "hour", "day"]
Zone = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_+/-]{1,64}\Z")]


class FiguresQuery(FilterQuery, frozen=True):
    """How to count by time: per `unit`, as the clocks of `zone` show it."""

    unit: Unit = "hour"
    zone: Zone = _UTC


class Tally(msgspec.Struct, frozen=True):
    """How many were let in, and how many were refused."""

    success: int
    reject: int


class Span(msgspec.Struct, frozen=True):
    """The same, of one unit of time."""

    begins_at: Time
    success: int
    reject: int


class Part(msgspec.Struct, frozen=True):
    """The same, of one function, venue, operator, scanner or reason."""

    code: str | None
    label: str | None
    success: int
    reject: int


class FiguresAnswer(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}):
    """Counts of the chosen verdicts, each by one thing alone, and the stock of each product."""

    start: Time
    end: Time
    answered_at: Time
    unit: Unit
    zone: str
    all: Tally
    last_hour: Tally
    over_time: list[Span]
    by_function: list[Part]
    by_location: list[Part]
    by_operator: list[Part]
    by_terminal: list[Part]
    by_reason: list[Part]
    stock: list[StockAnswer]


async def figures(request: web.Request, caller: Operator, body: FiguresQuery) -> FiguresAnswer:
    """How many were let in and refused, over time and by each thing that they can be told by; and the stock."""
    start, end = window(body)
    last_hour = end - _HOUR if end - start > _HOUR else start  # which may be the first hour of the calendar
    database = request.app[appkeys.REPORTS_DATABASE]
    zone = body.zone
    if zone != _UTC:
        async with database.connection() as connection:
            zone = zone if await reports.zone_known(connection, zone) else _UTC
    async with database.transaction(read_only=True) as connection:
        rows = await reports.redemptions_figures(
            connection, chosen(body, start, end), body.unit, zone, last_hour, REPORT_FIGURES_ROWS_MAX + 1
        )
        stock = await catalog.stock(connection)
    if len(rows) > REPORT_FIGURES_ROWS_MAX:
        raise Refusal(
            ErrorCode.INVALID_RANGE,
            f"More than {REPORT_FIGURES_ROWS_MAX} rows: ask for a shorter window or a longer unit.",
        )
    (total,) = (row for row in rows if row["kind"] == "all")
    parts = _parts(rows, request.app[appkeys.DIRECTORY].current)
    return FiguresAnswer(
        start=start,
        end=end,
        answered_at=datetime.now(UTC),
        unit=body.unit,
        zone=zone,
        all=Tally(total["success"], total["reject"]),
        last_hour=Tally(total["success_last_hour"], total["reject_last_hour"]),
        over_time=[
            Span(row["began_at"], row["success"], row["reject"]) for row in rows if row["kind"] == "time"
        ],
        **parts,
        stock=[stock_answer(each) for each in stock],
    )


def _parts(rows: list[Any], directory: Directory) -> dict[str, list[Part]]:
    """The rows that are not about time, by the field of the answer, with the names that the catalog has for them."""
    venues = {code: venue.name for code, venue in directory.venues.items()}
    labels: dict[str, dict[str, str]] = {"function": directory.functions, "location": venues}
    return {
        f"by_{kind}": [
            Part(row["code"], labels.get(kind, {}).get(row["code"]), row["success"], row["reject"])
            for row in rows
            if row["kind"] == kind
        ]
        for kind in ("function", "location", "operator", "terminal", "reason")
    }
