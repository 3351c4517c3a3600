"""The flusher: every stream entry into Postgres, exactly once, in order.

Rows and cursor move in one transaction, so a crash at any point repeats nothing and loses nothing: before the commit
nothing was written, after it the cursor says so, and an entry that was not trimmed is simply not read again. The
cursor's row lock is the leadership: any number of processes may run this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec
import structlog

from server.domain.orders import NewOrder, Order
from server.domain.redemption import RedemptionEvent
from server.flows.settle import settle_free
from server.hot import keys
from server.hot.stock import read_order
from server.hot.stream import ORIGIN, Entry, Streams
from server.limits import FLUSH_BATCH_MAX, FLUSH_LINGER_S, FLUSH_WAIT_S, GUARD_POLL_S
from server.store import orders, outbox, redemptions
from server.store.locks import join_unless_loading
from server.store.outbox import Kind, Message
from server.store.pool import Connection, Database
from server.store.redemptions import EntitlementMissing
from server.telemetry import DEAD_LETTERS, FLUSHED, alert

_log: Final = structlog.get_logger(__name__)
# What says "this entry can never be written", in contrast to "Postgres cannot be asked now".
_REFUSED: Final = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.DataError,
    EntitlementMissing,
    ValueError,
    RecursionError,  # JSON nested without end
    msgspec.DecodeError,
)


class Flusher:
    """Writes streams to Postgres."""

    def __init__(self, db: Database, streams: Streams) -> None:
        self._db = db
        self._streams = streams
        self._last: dict[str, str] = {}

    async def follow(self, names: Sequence[str]) -> None:
        """Make sure that these streams have cursors."""
        async with self._db.transaction() as connection:
            await redemptions.create_cursors(connection, names)

    async def step(self, stream: str) -> None:
        """One round: wait for entries, give them a moment to gather, write them."""
        if await self._streams.wait(stream, self._last.get(stream, ORIGIN), FLUSH_WAIT_S):
            await asyncio.sleep(FLUSH_LINGER_S)
            if await self.flush(stream) == 0:
                await asyncio.sleep(GUARD_POLL_S)  # another process has the stream, or Redis is being loaded

    async def flush(self, stream: str, *, loading: bool = False) -> int:
        """Write one batch; how many entries. 0 also while another flusher has the stream or Redis is being loaded.

        `loading`: the caller is the rehydration itself. Raises Refusal when Redis or Postgres is away.
        """
        async with self._db.transaction() as connection:
            if not loading and not await join_unless_loading(connection):
                return 0
            cursor = await redemptions.try_lock_cursor(connection, stream)
            if cursor is None:
                return 0
            entries = await self._streams.read(stream, cursor, FLUSH_BATCH_MAX)
            written = entries[-1].id if entries else cursor
            if entries:
                await self._write(connection, stream, entries)
                await redemptions.move_cursor(connection, stream, written)
        await self._streams.trim(stream, written)
        self._last[stream] = written
        FLUSHED.labels(stream).inc(len(entries))
        return len(entries)

    async def drain(self, streams: Sequence[str], *, loading: bool = False) -> None:
        """Write until nothing is left to read."""
        for stream in streams:
            while await self.flush(stream, loading=loading):
                pass

    async def _write(self, connection: Connection, stream: str, entries: Sequence[Entry]) -> None:
        try:
            async with connection.transaction():
                await _write_entries(connection, stream, entries)
        except _REFUSED:
            # Somewhere in the batch: one by one, so that only what is refused is set aside.
            for entry in entries:
                try:
                    async with connection.transaction():
                        await _write_entries(connection, stream, [entry])
                except _REFUSED as fault:
                    await _set_aside(connection, stream, entry, fault)


async def _write_entries(connection: Connection, stream: str, entries: Sequence[Entry]) -> None:
    if stream == keys.ORDERS_STREAM:
        await _write_orders(connection, [read_order(entry.body or "") for entry in entries])
    else:
        events = [RedemptionEvent.parse(entry.id, entry.body or "") for entry in entries]
        await redemptions.insert(connection, keys.shard_of_stream(stream), events)


async def _write_orders(connection: Connection, new: Sequence[NewOrder]) -> None:
    await orders.insert(connection, new)
    for order in new:
        if order.total_fen == 0:
            await settle_free(connection, Order.just_made(order))


async def _set_aside(connection: Connection, stream: str, entry: Entry, fault: Exception) -> None:
    """Keep a refused entry with its reason, and give back what it held."""
    reason = getattr(fault, "constraint_name", None) or type(fault).__name__
    await redemptions.insert_dead_letter(connection, stream, entry.id, f"{reason}: {fault}", entry.body or "")
    if stream == keys.ORDERS_STREAM:
        await _give_back(connection, entry)
    DEAD_LETTERS.labels(stream).inc()
    alert("DEAD_LETTER", stream=stream, entry_id=entry.id, reason=reason)


async def _give_back(connection: Connection, entry: Entry) -> None:
    """Release what a refused order holds, unless the very order is recorded: told twice, it stands and holds on."""
    try:
        order = Order.just_made(read_order(entry.body or ""))
        async with connection.transaction():
            if await orders.get(connection, order.order_id) is None:
                await outbox.send(connection, [Message(Kind.RELEASE, order.order_id, order.units())])
    except _REFUSED:
        _log.error("dead_letter_unreadable", entry_id=entry.id)
