"""Recorded verdicts as analysts see them: the shape of one, and many of them as a file."""

from __future__ import annotations

import asyncio
import csv
import io
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec
import structlog
from aiohttp import web

from server.domain.errors import Refusal
from server.limits import REPORT_CSV_CHUNK_ROWS, REPORT_WRITE_S_MAX
from server.store import reports
from server.store.pool import Database
from server.store.reports import RedemptionFilter
from server.web import appkeys
from server.web.body import Time
from server.web.errors import mark

# What a spreadsheet takes for the beginning of a formula, also in its full width; and what it skips before one.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_COLUMNS: Final = (
    "event_id", "ts", "ticket_code", "product_id", "product", "function", "result", "reason", "operator", "location",
    "terminal_device_id", "scan_id", "scanned_at", "uploaded",
)  # fmt: skip
_log: Final = structlog.get_logger(__name__)


class Redemption(msgspec.Struct, frozen=True):
    """One recorded verdict."""

    event_id: str
    ts: Time
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
    scanned_at: Time
    uploaded: bool


def redemption(row: Any) -> Redemption:
    """A row of the record as analysts see it."""
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
        scanned_at=row["scanned_at"],
        uploaded=row["uploaded"],
    )


async def stream_csv(
    request: web.Request, wanted: RedemptionFilter, after: tuple[datetime, str] | None
) -> web.StreamResponse:
    """The whole window, page by page: neither the server nor the client holds more than a page.

    A page's connection goes back before the page is sent, so that clients who read slowly keep none from the jobs. What
    fails once the head is out cuts the connection: then the client sees that the file is not whole.
    """
    database = request.app[appkeys.REPORTS_DATABASE]
    page = await _page(database, wanted, after)  # before the head: a refusal is still an answer of its own
    response = web.StreamResponse(headers={"Content-Disposition": 'attachment; filename="redemptions.csv"'})
    response.content_type, response.charset = "text/csv", "utf-8"
    mark(request, response)
    await response.prepare(request)
    try:
        await _write(response, [list(_COLUMNS)])
        while page:
            rows = [redemption(row) for row in page]
            await _write(response, [[_cell(getattr(row, name)) for name in _COLUMNS] for row in rows])
            page = await _page(database, wanted, (rows[-1].ts, rows[-1].event_id))
    except Exception as fault:  # whatever it is: the head is out, so no error can be told any more
        log = _log.warning if isinstance(fault, Refusal | TimeoutError | OSError) else _log.exception
        log("report_cut", reason=str(fault) or type(fault).__name__)
        if request.transport is not None:
            request.transport.abort()
    return response


async def _page(
    database: Database, wanted: RedemptionFilter, after: tuple[datetime, str] | None
) -> list[Any]:
    async with database.connection() as connection:
        return await reports.redemptions_page(connection, wanted, after, REPORT_CSV_CHUNK_ROWS)


async def _write(response: web.StreamResponse, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    async with asyncio.timeout(REPORT_WRITE_S_MAX):
        await response.write(text.getvalue().encode())


def _cell(value: Any) -> str:
    """A value as text that no spreadsheet takes for a formula. Source: OWASP, CSV Injection; CWE-1236."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return "'" + text if text.startswith(_FORMULA) else text
