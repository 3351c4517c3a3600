"""The flusher: every stream entry into Postgres, exactly once, in order.

Rows and cursor move in one transaction, so a crash at any point repeats nothing and loses nothing: before the commit
nothing was written, after it the cursor says so, and an entry that was not trimmed is simply not read again. The
cursor's row lock is the leadership: any number of processes may run this.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec
import structlog

from server.domain.orders import NewOrder, Order
from server.flows.settle import settle_free
from server.hot import keys
from server.hot.stock import read_order
from server.hot.stream import ORIGIN, Entry, Streams
from server.limits import (
    FLUSH_BATCH_MAX,
    FLUSH_BUSY_ENTRIES_MIN,
    FLUSH_BUSY_LINGER_S,
    FLUSH_LINGER_S,
    FLUSH_ORDERS_MAX,
    FLUSH_WAIT_S,
    GUARD_POLL_S,
)
from server.store import event_rows, orders, outbox, redemptions
from server.store.locks import join_unless_loading
from server.store.outbox import Kind, Message
from server.store.pool import Connection, Database, savepoint
from server.store.redemptions import NotInRecord
from server.telemetry import DEAD_LETTERS, FLUSH_SECONDS, FLUSHED, alert

_log: Final = structlog.get_logger(__name__)
# What says "this entry can never be written", in contrast to "Postgres cannot be asked now".
_REFUSED: Final = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.DataError,
    NotInRecord,
    ValueError,
    RecursionError,  # JSON nested without end
    msgspec.DecodeError,
)


class _Stages:
    """Tells the metrics how long each stage of a round took: from the end of the one before."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._at = time.perf_counter()

    def end(self, stage: str) -> None:
        now = time.perf_counter()
        FLUSH_SECONDS.labels(self._stream, stage).observe(now - self._at)
        self._at = now


class Flusher:
    """Writes streams to Postgres."""

    def __init__(self, db: Database, streams: Streams) -> None:
        self._db = db
        self._streams = streams
        self._last: dict[str, str] = {}
        self._written: dict[str, int] = {}  # entries of the last step

    async def follow(self, names: Sequence[str]) -> None:
        """Make sure that these streams have cursors."""
        async with self._db.transaction() as connection:
            await redemptions.create_cursors(connection, names)

    async def step(self, stream: str) -> None:
        """One round: wait for entries, give them a moment to gather, write them. No pause while more are waiting."""
        before = self._written.pop(stream, 0)
        if before < _batch_max(stream):
            if not await self._streams.wait(stream, self._last.get(stream, ORIGIN), FLUSH_WAIT_S):
                return
            # An order has a buyer who waits
            busy = before >= FLUSH_BUSY_ENTRIES_MIN and stream != keys.ORDERS_STREAM
            await asyncio.sleep(FLUSH_BUSY_LINGER_S if busy else FLUSH_LINGER_S)
        self._written[stream] = await self.flush(stream)
        if self._written[stream] == 0:
            await asyncio.sleep(GUARD_POLL_S)  # another process has the stream, or Redis is being loaded

    async def flush(self, stream: str, *, loading: bool = False) -> int:
        """Write one batch; how many entries. 0 also while another flusher has the stream or Redis is being loaded.

        `loading`: the caller is the rehydration itself, to which 0 says that nothing is left. It waits for the stream:
        one that it took over from may be gone, and its transaction not yet.

        Raises Refusal when Redis or Postgres is away.
        """
        async with self._db.transaction() as connection:
            if not loading and not await join_unless_loading(connection):
                return 0
            lock = redemptions.lock_cursor if loading else redemptions.try_lock_cursor
            cursor = await lock(connection, stream)
            if cursor is None:
                return 0
            stages = _Stages(stream)
            entries = await self._streams.read(stream, cursor, _batch_max(stream))
            stages.end("read")
            written = entries[-1].id if entries else cursor
            if entries:
                await _write(connection, stream, entries, stages)
                await redemptions.move_cursor(connection, stream, written)
                stages.end("write")
        stages.end("commit")
        await self._streams.trim(stream, written)
        stages.end("trim")
        self._last[stream] = written
        FLUSHED.labels(stream).inc(len(entries))
        return len(entries)

    async def drain(self, streams: Sequence[str], *, loading: bool = False) -> None:
        """Write until nothing is left to read."""
        for stream in streams:
            while await self.flush(stream, loading=loading):
                pass


def _batch_max(stream: str) -> int:
    return FLUSH_ORDERS_MAX if stream == keys.ORDERS_STREAM else FLUSH_BATCH_MAX


async def _write(connection: Connection, stream: str, entries: Sequence[Entry], stages: _Stages) -> None:
    """Write entries in order; of a batch that is refused the halves, so that only what is refused is set aside."""
    try:
        async with savepoint(connection):
            if stream == keys.ORDERS_STREAM:
                new = [read_order(entry.body or "") for entry in entries]
                stages.end("parse")
                await _write_orders(connection, new)
            else:
                events = event_rows.read(keys.shard_of_stream(stream), entries)
                stages.end("parse")
                await redemptions.insert(connection, events)
    except _REFUSED as fault:
        half = len(entries) // 2
        if half == 0:
            await _set_aside(connection, stream, entries[0], fault)
            return
        await _write(connection, stream, entries[:half], stages)
        await _write(connection, stream, entries[half:], stages)


async def _write_orders(connection: Connection, new: Sequence[NewOrder]) -> None:
    await orders.insert(connection, new)
    free = [Order.just_made(order) for order in new if order.total_fen == 0]
    if free:
        await settle_free(connection, free)


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
        async with savepoint(connection):
            if await orders.get(connection, order.order_id) is None:
                await outbox.send(connection, [Message(Kind.RELEASE, order.order_id, order.units())])
    except _REFUSED:
        _log.error("dead_letter_unreadable", entry_id=entry.id)
