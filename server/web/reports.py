"""What analysts may ask: single redemptions, page by page or as CSV, and their summary."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

import msgspec
from aiohttp import web

from server.domain.catalog import Operator
from server.domain.errors import ErrorCode, Refusal
from server.limits import (
    REPORT_PAGE_DEFAULT,
    REPORT_PAGE_MAX,
    REPORT_SUMMARY_ROWS_MAX,
    REPORT_WINDOW_DAYS_MAX,
)
from server.store import catalog, reports
from server.store.reports import RedemptionFilter
from server.web import appkeys
from server.web.body import Time
from server.web.redemptions import Redemption, redemption, stream_csv

_DEFAULT_WINDOW: Final = timedelta(hours=24)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_MOMENT: Final = r"(-?\d{1,18})"  # unix microseconds
_PLACE: Final = re.compile(rf"{_MOMENT} {_MOMENT} {_MOMENT} (\d{{2}}-\d{{1,20}}-\d{{1,20}})")
Text = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._@:-]{1,64}\Z")]


class WindowQuery(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}):
    """`from` (included) to `to` (excluded), RFC 3339 with offset; by default the last 24 hours."""

    start: Time | None = None
    end: Time | None = None


class FilterQuery(WindowQuery, frozen=True):
    """Which verdicts: those that are equal to every value that is given."""

    function: Text | None = None
    location: Text | None = None
    operator: Text | None = None
    terminal_device_id: Text | None = None
    result: Literal["success", "reject"] | None = None
    reason: Text | None = None


class RedemptionsQuery(FilterQuery, frozen=True):
    """`cursor`: the `next_cursor` of the page before. With `format=csv` the whole window is streamed."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=REPORT_PAGE_MAX)] = REPORT_PAGE_DEFAULT
    cursor: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    format: Literal["json", "csv"] = "json"


class Place(msgspec.Struct, frozen=True):
    """Where a page ended: its window, and its last event."""

    start: Time
    end: Time
    decided_at: Time
    event_id: str


class RedemptionsAnswer(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}):
    """A page of recorded verdicts, and the window that it is of."""

    start: Time
    end: Time
    redemptions: list[Redemption]
    next_cursor: str | None


class SummaryRow(msgspec.Struct, frozen=True):
    """How many verdicts of one kind there were in one hour."""

    product_id: int
    product: str
    function: str
    location: str | None
    hour: Time
    result: Literal["success", "reject"]
    reason: str | None
    events: int


class StockAnswer(msgspec.Struct, frozen=True):
    """What of a product is sold, held and sellable."""

    product_id: int
    sku: str
    product: str
    sellable: int
    reserved: int
    sold: int


class SummaryAnswer(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}):
    """Counts per product, function, location, hour (its start), result and reason; and the stock of each product."""

    start: Time
    end: Time
    rows: list[SummaryRow]
    stock: list[StockAnswer]


async def redemptions(
    request: web.Request, caller: Operator, body: RedemptionsQuery
) -> RedemptionsAnswer | web.StreamResponse:
    """Recorded verdicts, newest first, in keyset pages: a page never shifts while new events arrive.

    A cursor goes on in the window of its first page, so that what lies between is neither told twice nor left out.
    """
    place = None if body.cursor is None else _read_cursor(body.cursor)
    if place is not None and body.start is None and body.end is None:
        start, end = _bounded(place.start, place.end)
    else:
        start, end = window(body)
    wanted = chosen(body, start, end)
    after = None if place is None else (place.decided_at, place.event_id)
    if body.format == "csv":
        return await stream_csv(request, wanted, after)
    async with request.app[appkeys.REPORTS_DATABASE].connection() as connection:
        rows = await reports.redemptions_page(connection, wanted, after, body.limit)
    next_cursor = None
    if len(rows) == body.limit:
        next_cursor = _cursor(Place(start, end, rows[-1]["decided_at"], rows[-1]["event_id"]))
    return RedemptionsAnswer(start, end, [redemption(row) for row in rows], next_cursor)


async def summary(request: web.Request, caller: Operator, body: WindowQuery) -> SummaryAnswer:
    """How many redemptions of what, where, when and with what result; and what is sold, held and free."""
    start, end = window(body)
    async with request.app[appkeys.REPORTS_DATABASE].transaction(read_only=True) as connection:
        rows = await reports.redemptions_summary(connection, start, end, REPORT_SUMMARY_ROWS_MAX + 1)
        stock = await catalog.stock(connection)
    if len(rows) > REPORT_SUMMARY_ROWS_MAX:
        raise Refusal(
            ErrorCode.INVALID_RANGE,
            f"More than {REPORT_SUMMARY_ROWS_MAX} rows: ask for a shorter window.",
        )
    return SummaryAnswer(
        start,
        end,
        [
            SummaryRow(
                row["product_id"],
                row["product_name"],
                row["function_code"],
                row["venue_code"],
                row["hour"],
                row["result"],
                row["reason"],
                row["events"],
            )
            for row in rows
        ],
        [stock_answer(each) for each in stock],
    )


def stock_answer(stock: catalog.StockRow) -> StockAnswer:
    """A product's stock as analysts see it."""
    return StockAnswer(stock.product_id, stock.sku, stock.name, stock.sellable, stock.reserved, stock.sold)


def chosen(query: FilterQuery, start: datetime, end: datetime) -> RedemptionFilter:
    """What a query chooses, within a window."""
    return RedemptionFilter(
        start=start,
        end=end,
        function=query.function,
        location=query.location,
        operator=query.operator,
        terminal_device_id=query.terminal_device_id,
        result=query.result,
        reason=query.reason,
    )


def window(query: WindowQuery) -> tuple[datetime, datetime]:
    """What `from` and `to` say; the one that is missing is 24 hours away from the other.

    Raises Refusal(INVALID_RANGE): upside down, longer than a year, or beyond the calendar.
    """
    try:
        end = query.end or (datetime.now(UTC) if query.start is None else query.start + _DEFAULT_WINDOW)
        start = query.start or end - _DEFAULT_WINDOW
        return _bounded(start.astimezone(UTC), end.astimezone(UTC))
    except OverflowError as fault:  # at the ends of the calendar
        raise Refusal(ErrorCode.INVALID_RANGE) from fault


def _bounded(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    if start > end or end - start > timedelta(days=REPORT_WINDOW_DAYS_MAX):
        raise Refusal(ErrorCode.INVALID_RANGE)
    return start, end


def _cursor(place: Place) -> str:
    moments = (place.start, place.end, place.decided_at)
    text = " ".join([*(str((moment - _EPOCH) // _US) for moment in moments), place.event_id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> Place:
    """Raises Refusal(INVALID_CURSOR) for all that `_cursor` does not write."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        found = _PLACE.fullmatch(text)
        if found is None:
            raise Refusal(ErrorCode.INVALID_CURSOR)
        start, end, decided_at = (_EPOCH + int(each) * _US for each in found.groups()[:3])
        place = Place(start, end, decided_at, found[4])
    except (ValueError, OverflowError, binascii.Error) as fault:
        raise Refusal(ErrorCode.INVALID_CURSOR) from fault
    if _cursor(place) != cursor:
        raise Refusal(ErrorCode.INVALID_CURSOR)
    return place
