"""A ticket: what is issued for one unit of a paid order, and how it is written for the gate."""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import datetime

import msgspec

from server.domain.orders import Order
from server.domain.redemption import EntitlementLeft, pack_remaining, pack_terms


class TicketStatus(enum.Enum):
    """The values of `tickets.status`; the transitions stand in `sql/schema.sql`."""

    ACTIVE = "ACTIVE"
    REDEEMED = "REDEEMED"
    VOID = "VOID"


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """A ticket with what is left on it, as Postgres has it (behind Redis by the flusher's lag)."""

    code: str
    order_id: str
    position: int
    unit: int
    buyer_id: str
    product_id: int
    product_name: str
    status: TicketStatus
    valid_from: datetime | None
    valid_until: datetime | None
    issued_at: datetime
    entitlements: tuple[EntitlementLeft, ...]


class SpentQr(msgspec.Struct, frozen=True):
    """A successful redemption, as the ticket's hash remembers it: who spent this QR for this function."""

    jti: str
    function_code: str
    event_id: str
    scan_id: str
    place: str
    remaining: str
    decided_ms: int


def issue(order: Order, issued_at: datetime, new_code: Callable[[], str]) -> list[Ticket]:
    """The tickets of a paid order: one per unit, in the order of its lines."""
    return [
        _ticket(order, position, unit, issued_at, new_code())
        for position, line in enumerate(order.lines)
        for unit in range(1, line.qty + 1)
    ]


def _ticket(order: Order, position: int, unit: int, issued_at: datetime, code: str) -> Ticket:
    line = order.lines[position]
    valid_from, valid_until = line.terms.validity(issued_at)
    return Ticket(
        code=code,
        order_id=order.order_id,
        position=position,
        unit=unit,
        buyer_id=order.buyer_id,
        product_id=line.product_id,
        product_name=line.terms.name,
        status=TicketStatus.ACTIVE,
        valid_from=valid_from,
        valid_until=valid_until,
        issued_at=issued_at,
        entitlements=tuple(
            EntitlementLeft(part.code, part.label, part.quantity, part.quantity)
            for part in line.terms.functions
        ),
    )


def gate_hash(ticket: Ticket, spent: list[SpentQr]) -> list[str]:
    """The fields and values, in turn, of the ticket's Redis hash (see `hot/lua/redeem.lua`)."""
    fields = [
        "e", pack_terms([(left.function_code, left.label, left.total_uses) for left in ticket.entitlements]),
        "r", pack_remaining([(left.function_code, left.remaining_uses) for left in ticket.entitlements]),
        "o", ticket.buyer_id,
    ]  # fmt: skip
    if ticket.status is TicketStatus.VOID:
        fields += ["s", ticket.status.value]
    if ticket.valid_from is not None:
        fields += ["a", str(_unix_ms(ticket.valid_from))]
    if ticket.valid_until is not None:
        fields += ["z", str(_unix_ms(ticket.valid_until))]
    for qr in spent:
        told = "\t".join((qr.event_id, qr.scan_id, qr.place, qr.remaining, str(qr.decided_ms)))
        fields += [f"j:{qr.jti}:{qr.function_code}", told]
    return fields


def _unix_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
