"""A buyer's tickets and their QR."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import msgspec
from aiohttp import web

from server.domain.qr_image import draw_png, draw_svg
from server.domain.redemption import EntitlementLeft
from server.domain.tickets import Ticket
from server.web import appkeys
from server.web.auth import Caller
from server.web.body import Time, ticket_code

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class TicketProduct(msgspec.Struct, frozen=True):
    """What a ticket is for."""

    id: int
    name: str


class TicketAnswer(msgspec.Struct, frozen=True):
    """A ticket, with what is left on it right now."""

    ticket_code: str
    order_id: str
    product: TicketProduct
    status: Literal["ACTIVE", "REDEEMED", "VOID"]
    valid_from: Time | None
    valid_until: Time | None
    entitlements: list[EntitlementLeft]


class TicketsAnswer(msgspec.Struct, frozen=True):
    """The buyer's tickets."""

    tickets: list[TicketAnswer]


class QrQuery(msgspec.Struct, frozen=True):
    """Which picture of the token to draw, as a data: URI."""

    image: Literal["svg", "png", "none"] = "svg"


class QrAnswer(msgspec.Struct, frozen=True):
    """A fresh QR token, and its picture."""

    qr_token: str
    qr_image: str | None
    jti: str
    issued_at: Time
    expires_at: Time
    valid_for_seconds: int


async def my_tickets(request: web.Request, caller: Caller, body: None) -> TicketsAnswer:
    """The buyer's tickets, newest first, with what is left on them right now."""
    owned = await request.app[appkeys.WALLET].of_buyer(caller.subject)
    return TicketsAnswer([ticket_answer(ticket) for ticket in owned])


async def show_qr(request: web.Request, caller: Caller, body: QrQuery) -> QrAnswer:
    """A fresh, short-lived, encrypted QR token for the buyer's own ticket."""
    shown = await request.app[appkeys.WALLET].show(ticket_code(request), caller.subject)
    draw = {"svg": draw_svg, "png": draw_png}.get(body.image)
    return QrAnswer(
        qr_token=shown.token,
        qr_image=draw(shown.token) if draw is not None else None,
        jti=shown.jti,
        issued_at=from_unix_ms(shown.issued_at_ms),
        expires_at=from_unix_ms(shown.expires_at_ms),
        valid_for_seconds=(shown.expires_at_ms - shown.issued_at_ms) // 1000,
    )


def ticket_answer(ticket: Ticket) -> TicketAnswer:
    """A ticket as clients see it."""
    return TicketAnswer(
        ticket_code=ticket.code,
        order_id=ticket.order_id,
        product=TicketProduct(ticket.product_id, ticket.product_name),
        status=ticket.status.value,
        valid_from=ticket.valid_from,
        valid_until=ticket.valid_until,
        entitlements=list(ticket.entitlements),
    )


def from_unix_ms(unix_ms: int) -> datetime:
    """Unix milliseconds as a time in UTC, exactly."""
    return _EPOCH + timedelta(milliseconds=unix_ms)
