"""A buyer's wallet: tickets with what is left on them right now, and their QR tokens."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from server.domain import qr
from server.domain.errors import ErrorCode, Refusal
from server.domain.redemption import unpack_remaining
from server.domain.tickets import Ticket, TicketStatus
from server.hot.throttle import Throttle
from server.hot.tickets import GateTickets, TicketOwner
from server.limits import TICKETS_PAGE_MAX
from server.store import tickets
from server.store.pool import Database


class Wallet:
    """Reads tickets from the record, and what is left on them from Redis, which is ahead of it."""

    def __init__(
        self,
        db: Database,
        gate: GateTickets,
        qr_keys: qr.QrKeys,
        throttle: Throttle,
        *,
        qr_ttl_s: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._db = db
        self._gate = gate
        self._qr_keys = qr_keys
        self._throttle = throttle
        self._qr_ttl_ms = qr_ttl_s * 1000
        self._now = now

    async def of_buyer(self, buyer_id: str) -> list[Ticket]:
        """The buyer's tickets, newest first, with live remaining uses."""
        async with self._db.connection() as connection:
            owned = await tickets.of_buyer(connection, buyer_id, TICKETS_PAGE_MAX)
        return await self._live(owned)

    async def find(self, code: str) -> Ticket:
        """One ticket with live remaining uses. Raises Refusal(TICKET_NOT_FOUND)."""
        return (await self._live([await self._recorded(code)]))[0]

    async def of_owner(self, code: str, buyer_id: str) -> Ticket:
        """The buyer's own ticket. Raises Refusal(TICKET_NOT_FOUND), also for the ticket of someone else."""
        return (await self._live([await self._recorded(code, buyer_id)]))[0]

    async def _recorded(self, code: str, buyer_id: str | None = None) -> Ticket:
        """Someone else's is answered as one that is not there, and as soon."""
        async with self._db.connection() as connection:
            found = await tickets.get_many(connection, [code])
        if not found or buyer_id not in (None, found[0].buyer_id):
            raise Refusal(ErrorCode.TICKET_NOT_FOUND)
        return found[0]

    async def show(self, code: str, buyer_id: str) -> qr.IssuedQr:
        """A fresh QR token for the buyer's own ticket.

        Raises Refusal: TICKET_NOT_FOUND, TICKET_NOT_USABLE; TOO_MANY_REQUESTS, to its owner alone. Redis is asked
        first, so that people at the gate can show their tickets while Postgres is away.
        """
        now_ms = int(self._now() * 1000)
        owner = await self._owner(code, buyer_id)
        expired = owner.valid_until_ms is not None and now_ms >= owner.valid_until_ms
        if expired or owner.status == TicketStatus.VOID.value:
            raise Refusal(ErrorCode.TICKET_NOT_USABLE)
        await self._throttle.qr(code)
        return qr.issue(self._qr_keys, code, now_ms=now_ms, ttl_ms=self._qr_ttl_ms)

    async def _owner(self, code: str, buyer_id: str) -> TicketOwner:
        """The ticket, if it is the buyer's; someone else's is looked for as far as one that is not there."""
        try:
            owner = await self._gate.owner(code)
        except Refusal:
            owner = None
        if owner is not None and owner.buyer_id == buyer_id:
            return owner
        ticket = await self._recorded(code, buyer_id)
        until = ticket.valid_until
        until_ms = None if until is None else int(until.timestamp() * 1000)
        return TicketOwner(ticket.buyer_id, ticket.status.value, until_ms)

    async def behind(self, token: str) -> tuple[qr.QrContent, Ticket]:
        """The ticket behind a QR token, nothing being consumed.

        Raises Refusal with the token's own reason: QR_MALFORMED, QR_TAMPERED, QR_UNKNOWN_KEY, QR_EXPIRED; or
        TICKET_NOT_FOUND.
        """
        content = qr.read(self._qr_keys, token)
        if isinstance(content, qr.QrFault):
            raise Refusal(ErrorCode[content.value])
        if content.expired(int(self._now() * 1000)):
            raise Refusal(ErrorCode.QR_EXPIRED)
        return content, await self.find(content.ticket_code)

    async def _live(self, recorded: list[Ticket]) -> list[Ticket]:
        try:
            remaining = await self._gate.remaining([ticket.code for ticket in recorded])
        except Refusal:
            return recorded  # Redis is away: what Postgres has is shown, behind by the flusher's lag at most
        return [
            ticket if uses is None else _with_uses(ticket, unpack_remaining(uses))
            for ticket, uses in zip(recorded, remaining, strict=True)
        ]


def _with_uses(ticket: Ticket, uses: dict[str, int]) -> Ticket:
    status = ticket.status
    if status is not TicketStatus.VOID:
        status = TicketStatus.ACTIVE if any(uses.values()) else TicketStatus.REDEEMED
    return msgspec.structs.replace(
        ticket,
        status=status,
        entitlements=tuple(
            msgspec.structs.replace(left, remaining_uses=uses[left.function_code])
            for left in ticket.entitlements
        ),
    )
