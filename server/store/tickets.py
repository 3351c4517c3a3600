"""Tickets and their entitlements."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from server.domain.redemption import WHERE_SEPARATOR, EntitlementLeft
from server.domain.tickets import SpentQr, Ticket, TicketStatus
from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("tickets")
_REDEMPTIONS: Final = load("redemptions")


async def insert(connection: Connection, tickets: Sequence[Ticket]) -> None:
    """Write issued tickets. Raises asyncpg.UniqueViolationError when one was issued for that unit before."""
    parts = [
        (ticket.code, position, left)
        for ticket in tickets
        for position, left in enumerate(ticket.entitlements)
    ]
    await connection.execute(
        _Q["insert_tickets"],
        [ticket.code for ticket in tickets],
        [ticket.order_id for ticket in tickets],
        [ticket.position for ticket in tickets],
        [ticket.unit for ticket in tickets],
        [ticket.buyer_id for ticket in tickets],
        [ticket.product_id for ticket in tickets],
        [ticket.product_name for ticket in tickets],
        [ticket.valid_from for ticket in tickets],
        [ticket.valid_until for ticket in tickets],
        [ticket.issued_at for ticket in tickets],
        [code for code, _, _ in parts],
        [position for _, position, _ in parts],
        [left.function_code for _, _, left in parts],
        [left.label for _, _, left in parts],
        [left.total_uses for _, _, left in parts],
    )


async def get_many(connection: Connection, codes: Sequence[str]) -> list[Ticket]:
    """The tickets of these codes that exist, in no particular order."""
    return await _with_entitlements(connection, await connection.fetch(_Q["tickets_by_code"], list(codes)))


async def of_buyer(connection: Connection, buyer_id: str, limit: int) -> list[Ticket]:
    """The buyer's tickets, newest first."""
    return await _with_entitlements(
        connection, await connection.fetch(_Q["tickets_of_buyer"], buyer_id, limit)
    )


async def codes_page(connection: Connection, after: str, limit: int) -> list[str]:
    """Codes of all tickets, in order, after the code `after`."""
    return [row["code"] for row in await connection.fetch(_Q["codes_after"], after, limit)]


async def count(connection: Connection) -> int:
    """How many tickets there are."""
    number: int = await connection.fetchval(_Q["count_tickets"])
    return number


async def spent_qrs(
    connection: Connection, codes: Sequence[str], since: datetime
) -> dict[str, list[SpentQr]]:
    """Ticket code -> the QRs spent on it since then, as its Redis hash remembers them."""
    spent: dict[str, list[SpentQr]] = {}
    for row in await connection.fetch(_REDEMPTIONS["spent_since"], list(codes), since):
        place = (row["venue_code"] or "") + WHERE_SEPARATOR + (row["terminal_device_id"] or "")
        spent.setdefault(row["ticket_code"], []).append(
            SpentQr(
                row["jti"],
                row["function_code"],
                row["event_id"],
                row["scan_id"],
                place,
                row["remaining"],
                round(row["decided_at"].timestamp() * 1000),
            )
        )
    return spent


async def _with_entitlements(connection: Connection, rows: Sequence[Any]) -> list[Ticket]:
    parts: dict[str, list[EntitlementLeft]] = {row["code"]: [] for row in rows}
    for part in await connection.fetch(_Q["entitlements_of"], list(parts)):
        parts[part["ticket_code"]].append(
            EntitlementLeft(part["function_code"], part["label"], part["total_uses"], part["remaining_uses"])
        )
    return [
        Ticket(
            code=row["code"],
            order_id=row["order_id"],
            position=row["position"],
            unit=row["unit"],
            buyer_id=row["buyer_id"],
            product_id=row["product_id"],
            product_name=row["product_name"],
            status=TicketStatus(row["status"]),
            valid_from=row["valid_from"],
            valid_until=row["valid_until"],
            issued_at=row["issued_at"],
            entitlements=tuple(parts[row["code"]]),
        )
        for row in rows
    ]
