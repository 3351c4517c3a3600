"""What analysts may ask: single redemptions, page by page or as CSV, and their summary."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import web

from server.domain.catalog import Operator
from server.domain.errors import ErrorCode, Refusal
from server.limits import (
    REPORT_CSV_CHUNK_ROWS,
    REPORT_CSV_ROWS_MAX,
    REPORT_PAGE_DEFAULT,
    REPORT_PAGE_MAX,
    REPORT_WINDOW_DAYS_MAX,
)
from server.store import catalog, reports
from server.store.pool import Connection
from server.store.reports import RedemptionFilter
from server.web import appkeys

_DEFAULT_WINDOW: Final = timedelta(hours=24)
_EVENT_ID: Final = re.compile(r"\d{2}-\d{1,20}-\d{1,20}")
_FORMULA: Final = ("=", "+", "-", "@")
_COLUMNS: Final = (
    "event_id", "ts", "ticket_code", "product_id", "product", "function", "result", "reason", "operator", "location",
    "terminal_device_id", "scan_id",
)  # fmt: skip
Time = Annotated[datetime, msgspec.Meta(tz=True)]
Text = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._@:-]{1,64}\Z")]


class WindowQuery(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}):
    """`from` (included) to `to` (excluded), RFC 3339 with offset; by default the last 24 hours."""

    start: Time | None = None
    end: Time | None = None


class RedemptionsQuery(WindowQuery, frozen=True):
    """`cursor`: the `next_cursor` of the page before. With `format=csv` the whole window is streamed."""

    function: Text | None = None
    location: Text | None = None
    operator: Text | None = None
    result: Literal["success", "reject"] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=REPORT_PAGE_MAX)] = REPORT_PAGE_DEFAULT
    cursor: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    format: Literal["json", "csv"] = "json"


class Redemption(msgspec.Struct, frozen=True):
    event_id: str
    ts: datetime
    ticket_code: str
    product_id: int
    product: str
    function: str
    result: Literal["success", "reject"]
    reason: str | None
    operator: str
    location: str | None
    terminal_device_id: str | None
    scan_id: str


class RedemptionsAnswer(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}):
    start: datetime
    end: datetime
    redemptions: list[Redemption]
    next_cursor: str | None


class SummaryRow(msgspec.Struct, frozen=True):
    product_id: int
    product: str
    function: str
    location: str | None
    hour: datetime
    result: Literal["success", "reject"]
    reason: str | None
    events: int


class StockAnswer(msgspec.Struct, frozen=True):
    product_id: int
    sku: str
    product: str
    sellable: int
    reserved: int
    sold: int


class SummaryAnswer(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}):
    """Counts per product, function, location, hour (its start), result and reason; and the stock of each product."""

    start: datetime
    end: datetime
    rows: list[SummaryRow]
    stock: list[StockAnswer]


async def redemptions(
    request: web.Request, caller: Operator, body: RedemptionsQuery
) -> RedemptionsAnswer | web.StreamResponse:
    """Recorded verdicts, newest first, in keyset pages: a page never shifts while new events arrive."""
    start, end = _window(body)
    wanted = RedemptionFilter(
        start=start,
        end=end,
        function=body.function,
        location=body.location,
        operator=body.operator,
        result=body.result,
    )
    after = None if body.cursor is None else _read_cursor(body.cursor)
    if body.format == "csv":
        return await _stream_csv(request, wanted, after)
    async with request.app[appkeys.REPORTS_DATABASE].connection() as connection:
        rows = await reports.redemptions_page(connection, wanted, after, body.limit)
    next_cursor = _cursor(rows[-1]) if len(rows) == body.limit else None
    return RedemptionsAnswer(start, end, [_redemption(row) for row in rows], next_cursor)


async def summary(request: web.Request, caller: Operator, body: WindowQuery) -> SummaryAnswer:
    """How many redemptions of what, where, when and with what result; and what is sold, held and free."""
    start, end = _window(body)
    async with request.app[appkeys.REPORTS_DATABASE].transaction(read_only=True) as connection:
        rows = await reports.redemptions_summary(connection, start, end)
        stock = await catalog.stock(connection)
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
        [StockAnswer(s.product_id, s.sku, s.name, s.sellable, s.reserved, s.sold) for s in stock],
    )


def _window(query: WindowQuery) -> tuple[datetime, datetime]:
    try:
        end = query.end or (datetime.now(UTC) if query.start is None else query.start + _DEFAULT_WINDOW)
        start = query.start or end - _DEFAULT_WINDOW
        start, end = start.astimezone(UTC), end.astimezone(UTC)
    except OverflowError as fault:
        raise Refusal(ErrorCode.INVALID_RANGE) from fault
    if start > end or end - start > timedelta(days=REPORT_WINDOW_DAYS_MAX):
        raise Refusal(ErrorCode.INVALID_RANGE)
    return start, end


def _cursor(row: Any) -> str:
    return _cursor_at(row["decided_at"], row["event_id"])


def _cursor_at(decided_at: datetime, event_id: str) -> str:
    place = f"{decided_at.isoformat()} {event_id}"
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        place = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        decided_at, _, event_id = place.partition(" ")
        moment = datetime.fromisoformat(decided_at).astimezone(UTC)
    except (ValueError, OverflowError, binascii.Error) as fault:
        raise Refusal(ErrorCode.INVALID_CURSOR) from fault
    # Only what `_cursor_at` writes: one spelling, and nothing that Postgres could not take.
    if not _EVENT_ID.fullmatch(event_id) or _cursor_at(moment, event_id) != cursor:
        raise Refusal(ErrorCode.INVALID_CURSOR)
    return moment, event_id


def _redemption(row: Any) -> Redemption:
    return Redemption(
        event_id=row["event_id"],
        ts=row["decided_at"],
        ticket_code=row["ticket_code"],
        product_id=row["product_id"],
        product=row["product_name"],
        function=row["function_code"],
        result=row["result"],
        reason=row["reason"],
        operator=row["operator"],
        location=row["venue_code"],
        terminal_device_id=row["terminal_device_id"],
        scan_id=row["scan_id"],
    )


async def _stream_csv(
    request: web.Request, wanted: RedemptionFilter, after: tuple[datetime, str] | None
) -> web.StreamResponse:
    """The whole window, page by page: neither the server nor the client holds more than a page."""
    database = request.app[appkeys.REPORTS_DATABASE]
    async with database.connection() as connection:
        page = await reports.redemptions_page(connection, wanted, after, REPORT_CSV_CHUNK_ROWS)
        response = web.StreamResponse()
        response.content_type = "text/csv"
        response.charset = "utf-8"
        response.headers["Content-Disposition"] = 'attachment; filename="redemptions.csv"'
        await response.prepare(request)
        await response.write(_csv_lines([list(_COLUMNS)]))
        await _write_pages(response, connection, wanted, page)
    await response.write_eof()
    return response


async def _write_pages(
    response: web.StreamResponse, connection: Connection, wanted: RedemptionFilter, page: list[Any]
) -> None:
    written = 0
    while page and written < REPORT_CSV_ROWS_MAX:
        rows = [_redemption(row) for row in page]
        await response.write(_csv_lines([[_cell(getattr(row, name)) for name in _COLUMNS] for row in rows]))
        written += len(page)
        after = (page[-1]["decided_at"], page[-1]["event_id"])
        page = await reports.redemptions_page(connection, wanted, after, REPORT_CSV_CHUNK_ROWS)


def _csv_lines(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    """A value as text that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    text = str(value)
    return "'" + text if text.startswith(_FORMULA) else text
