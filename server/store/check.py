"""What `gateline check` asks of the record. Functions named `wrong_…` return one row per breach of a page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("check")


class OrdersPage(msgspec.Struct, frozen=True):
    """Orders after the last page's end; `last` is None when there are no more."""

    last: str | None
    orders: int
    paid: int


class TicketsPage(msgspec.Struct, frozen=True):
    """Tickets after the last page's end; `last` is None when there are no more."""

    last: str | None
    tickets: int


class ProductUnits(msgspec.Struct, frozen=True):
    """Units of one product in one snapshot: ever ordered, and of these reserved and sold; and what the outbox says.

    `committing`, `releasing`: units that Redis is yet to be told of; `capping`: so is a cap.
    """

    product_id: int
    sellable: int
    ordered: int
    reserved: int
    sold: int
    committing: int
    releasing: int
    capping: bool


class RepeatedScans(msgspec.Struct, frozen=True):
    """Of `events` verdicts, `repeats` followed another one on the same ticket and scan_id too soon."""

    events: int
    repeats: int
    examples: list[str]


async def outbox_mark(connection: Connection) -> int:
    """The newest message of the outbox; 0 when it is empty."""
    mark: int = await connection.fetchval(_Q["caught_up_mark"])
    return mark


async def outbox_up_to(connection: Connection, mark: int) -> int:
    """How many messages up to that one still wait."""
    waiting: int = await connection.fetchval(_Q["outbox_up_to"], mark)
    return waiting


async def orders_page(connection: Connection, after: str, limit: int) -> OrdersPage:
    """The next page of orders, by id."""
    row: Any = await connection.fetchrow(_Q["orders_page"], after, limit)
    return OrdersPage(*row.values())


async def wrong_totals(connection: Connection, after: str, last: str) -> list[Any]:
    """Rows (id, total_fen, lines_fen)."""
    return list(await connection.fetch(_Q["wrong_totals"], after, last))


async def wrong_issues(connection: Connection, after: str, last: str) -> list[Any]:
    """Rows (id, status, due, issued)."""
    return list(await connection.fetch(_Q["wrong_issues"], after, last))


async def wrong_payments(connection: Connection, after: str, last: str) -> list[Any]:
    """Rows (id, status, total_fen, applied, exact, refunds)."""
    return list(await connection.fetch(_Q["wrong_payments"], after, last))


async def count_attempts(connection: Connection, after: str, last: str) -> int:
    """How many payment attempts a page of orders has."""
    number: int = await connection.fetchval(_Q["count_attempts"], after, last)
    return number


async def wrong_attempts(connection: Connection, after: str, last: str) -> list[Any]:
    """Rows (out_trade_no, phase, status of the order)."""
    return list(await connection.fetch(_Q["wrong_attempts"], after, last))


async def tickets_page(connection: Connection, after: str, limit: int) -> TicketsPage:
    """The next page of tickets, by code."""
    row: Any = await connection.fetchrow(_Q["tickets_page"], after, limit)
    return TicketsPage(*row.values())


async def count_entitlements(connection: Connection, after: str, last: str) -> int:
    """How many (ticket, function) a page of tickets has."""
    number: int = await connection.fetchval(_Q["count_entitlements"], after, last)
    return number


async def count_successes(connection: Connection, after: str, last: str) -> int:
    """How many successes a page of tickets has."""
    number: int = await connection.fetchval(_Q["count_successes"], after, last)
    return number


async def wrong_uses(connection: Connection, after: str, last: str) -> list[Any]:
    """Rows (ticket_code, function_code, total, remaining, successes)."""
    return list(await connection.fetch(_Q["wrong_uses"], after, last))


async def wrong_statuses(connection: Connection, after: str, last: str) -> list[Any]:
    """Rows (code, status, remaining)."""
    return list(await connection.fetch(_Q["wrong_statuses"], after, last))


async def wrong_goods(connection: Connection, after: str, last: str) -> list[str]:
    """Codes of tickets that are not what their order's line sold."""
    return [row["code"] for row in await connection.fetch(_Q["not_as_sold"], after, last)]


async def wrong_passes(connection: Connection, after: str, last: str) -> list[Any]:
    """Rows (ticket_code, jti, function_code, passed)."""
    return list(await connection.fetch(_Q["qrs_spent_twice"], after, last))


async def event_times(connection: Connection) -> tuple[datetime, datetime] | None:
    """When the first and the last verdict were decided; None: there are none."""
    row: Any = await connection.fetchrow(_Q["event_times"])
    return None if row["first"] is None else (row["first"], row["last"])


async def repeated_scans(
    connection: Connection, start: datetime, end: datetime, within: timedelta, examples: int
) -> RepeatedScans:
    """Verdicts of [start, end) that follow another on the same ticket and scan_id within that time."""
    row: Any = await connection.fetchrow(_Q["scans_told_twice"], start, end, within, examples)
    return RepeatedScans(*row.values())


async def orphans(
    connection: Connection, start: datetime, end: datetime, examples: int
) -> tuple[int, list[str]]:
    """How many verdicts of [start, end) are on tickets that are not recorded, and some of them."""
    row: Any = await connection.fetchrow(_Q["events_of_no_ticket"], start, end, examples)
    return row["events"], row["examples"]


async def scans_out_of_time(
    connection: Connection,
    start: datetime,
    end: datetime,
    upload: timedelta,
    clocks: timedelta,
    examples: int,
) -> tuple[int, list[str]]:
    """How many verdicts of [start, end) are on scans that cannot have been made then, and some of them.

    `upload`: how late a scan may be uploaded; `clocks`: how far clocks may be apart.
    """
    row: Any = await connection.fetchrow(_Q["scans_out_of_their_time"], start, end, upload, clocks, examples)
    return row["events"], row["examples"]


async def money_columns(connection: Connection) -> list[tuple[str, str, str]]:
    """(table, column, type) of every column that holds money."""
    return [tuple(row.values()) for row in await connection.fetch(_Q["money_columns"])]


async def units_of_products(connection: Connection, product_ids: Sequence[int] | None) -> list[ProductUnits]:
    """Units of these products, or of all."""
    ids = None if product_ids is None else list(product_ids)
    return [ProductUnits(*row.values()) for row in await connection.fetch(_Q["units_of_products"], ids)]


async def order_statuses(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    """Order id -> status, of those that are recorded."""
    return {row["id"]: row["status"] for row in await connection.fetch(_Q["statuses_of_orders"], list(ids))}


async def pending_page(connection: Connection, after: str, limit: int) -> list[str]:
    """Ids of orders that hold units, in order, after `after`."""
    return [row["id"] for row in await connection.fetch(_Q["pending_ids"], after, limit)]


async def known_codes(connection: Connection, codes: Sequence[str]) -> set[str]:
    """The ticket codes among these that are recorded."""
    return {row["code"] for row in await connection.fetch(_Q["known_codes"], list(codes))}


async def told_about(connection: Connection, subjects: Sequence[str]) -> set[str]:
    """Those of these orders, tickets or products of which the outbox has yet to tell Redis something."""
    return {row["subject"] for row in await connection.fetch(_Q["told_about"], list(subjects))}


async def events_by_id(connection: Connection, ids: Sequence[str]) -> dict[str, Any]:
    """Event id -> its row, of those that are recorded."""
    return {row["event_id"]: row for row in await connection.fetch(_Q["events_by_id"], list(ids))}


async def refused_entries(connection: Connection, stream: str, ids: Sequence[str]) -> dict[str, str]:
    """Entry id -> reason, of those that the record refused."""
    rows = await connection.fetch(_Q["refused_entries"], stream, list(ids))
    return {row["entry_id"]: row["reason"] for row in rows}


async def newest_dead_letters(connection: Connection, limit: int) -> list[Any]:
    """Rows (stream, entry_id, reason)."""
    return list(await connection.fetch(_Q["newest_dead_letters"], limit))
