"""Finding an order or a ticket wherever it is: in the record, or still on its way to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from server.domain.errors import ErrorCode, Refusal
from server.domain.orders import Order
from server.domain.tickets import gate_hash
from server.hot import keys
from server.hot.stock import Stock
from server.hot.stream import Streams, ordinal
from server.hot.tickets import GateTickets
from server.limits import READ_OWN_WRITE_S_MAX, SCAN_REPLAY_S, TICKET_LOAD_S_MAX
from server.store import orders, redemptions, tickets
from server.store.pool import Connection, Database

T = TypeVar("T")
_POLL_S = 0.02  # about the time that the flusher takes for a batch


class OrderLookup:
    """Reading one's own write: an order just made lives in Redis until the flusher has written its row."""

    def __init__(self, db: Database, stock: Stock) -> None:
        self._db = db
        self._stock = stock

    async def find(self, order_id: str, buyer_id: str | None = None) -> Order:
        """The order as it stands; with `buyer_id`, if it is theirs.

        Raises Refusal: ORDER_NOT_FOUND, or that Postgres or Redis is away.

        While Postgres is away, an order just made is still found. Someone else's is looked for as far as one that is
        not there, so that neither the answer nor its time tells that it exists.
        """
        away: Refusal | None = None
        try:
            order = await self._recorded(order_id, buyer_id)
            if order is not None:
                return order
        except Refusal as refusal:
            away = refusal
        new = await self._stock.held(order_id)
        if new is not None and buyer_id in (None, new.buyer_id):
            return Order.just_made(new)
        if away is not None:
            raise away
        order = await self._recorded(order_id, buyer_id)  # and ended between the two looks
        if order is None:
            raise Refusal(ErrorCode.ORDER_NOT_FOUND)
        return order

    async def _recorded(self, order_id: str, buyer_id: str | None) -> Order | None:
        async with self._db.connection() as connection:
            order = await orders.get(connection, order_id)
        return order if order is not None and buyer_id in (None, order.buyer_id) else None

    async def with_lock(self, order_id: str, act: Callable[[Connection, Order], Awaitable[T]]) -> T:
        """Run `act` in one transaction with the order's row locked, waiting for the row if the order is just made.

        Raises Refusal: ORDER_NOT_FOUND; NOT_RECORDED_YET when the flusher did not bring the row in 3 s; whatever `act`
        raises rolls the transaction back.
        """
        deadline = asyncio.get_running_loop().time() + READ_OWN_WRITE_S_MAX
        while True:
            async with self._db.transaction() as connection:
                order = await orders.get(connection, order_id, lock=True)
                if order is not None:
                    return await act(connection, order)
            if await self._stock.held(order_id) is None:
                async with self._db.connection() as connection:
                    if await orders.get(connection, order_id) is None:
                        raise Refusal(ErrorCode.ORDER_NOT_FOUND)
                continue
            if asyncio.get_running_loop().time() > deadline:
                raise Refusal(ErrorCode.NOT_RECORDED_YET)
            await asyncio.sleep(_POLL_S)


class TicketLoader:
    """Brings tickets from the record to the gate."""

    def __init__(self, db: Database, streams: Streams, gate: GateTickets, shards: int) -> None:
        self._db = db
        self._streams = streams
        self._gate = gate
        self._shards = shards

    async def load_unknown(self, code: str) -> bool:
        """Load a ticket that Redis was just seen not to have. False: the record does not have it either.

        No double spend: while the ticket is absent nothing can spend it, and everything that spent it before stands in
        the stream up to the id noted now; so once the flusher's cursor has passed that id, Postgres knows all.
        Raises Refusal: NOT_RECORDED_YET after 2 s of waiting, POSTGRES_UNAVAILABLE, GATE_CLOSED.
        """
        stream = keys.redemptions(keys.shard_of(code, self._shards))
        noted = ordinal(await self._streams.last_id(stream))
        deadline = asyncio.get_running_loop().time() + TICKET_LOAD_S_MAX
        while True:
            async with self._db.connection() as connection:
                written = (await redemptions.cursors(connection)).get(stream, "0-0")
            if ordinal(written) >= noted:
                return await self.load_absent([code]) > 0
            if asyncio.get_running_loop().time() > deadline:
                raise Refusal(ErrorCode.NOT_RECORDED_YET)
            await asyncio.sleep(_POLL_S)

    async def load_absent(self, codes: list[str]) -> int:
        """Load tickets that Redis does not have; how many of them the record has. Raises Refusal(GATE_CLOSED)."""
        hashes = await self.gate_hashes(codes)
        await self._gate.load_absent(hashes)
        return len(hashes)

    async def gate_hashes(self, codes: list[str]) -> dict[str, list[str]]:
        """Code -> fields and values of its Redis hash, of those codes that the record has."""
        since = datetime.now(UTC) - timedelta(seconds=SCAN_REPLAY_S)
        async with self._db.transaction(read_only=True) as connection:
            found = await tickets.get_many(connection, codes)
            spent = await tickets.spent_qrs(connection, codes, since)
        return {ticket.code: gate_hash(ticket, spent.get(ticket.code, [])) for ticket in found}
