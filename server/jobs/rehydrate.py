"""Rehydration: Redis is rebuilt from Postgres and what survives of its streams; and the guard that sees the need.

The gates are closed first, so that nothing is spent or held. Then the streams are drained, so that Postgres knows
everything; then stock, holds, tickets and recent verdicts are written; then the gates open. A Postgres lock keeps
flushers and publishers of other processes out meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import structlog
from redis.asyncio import Redis

from server.config import Ack
from server.domain.errors import ErrorCode, Refusal
from server.domain.redemption import Decision, Verdict, pack_terms
from server.flows.lookup import TicketLoader
from server.hot import keys
from server.hot.epoch import Epochs
from server.hot.loading import Loading
from server.hot.scripts import ScriptRunner
from server.hot.stock import Level
from server.hot.stream import ORIGIN, Streams, ordinal
from server.jobs.flusher import Flusher
from server.limits import IDEMPOTENCY_REPLAY_S, REHYDRATE_PAGE, SCAN_REPLAY_S
from server.store import catalog, orders, redemptions, tickets
from server.store.locks import Lock, alone_for_session, still_here
from server.store.pool import Database

Progress = Callable[[str, int, int], None]  # what is being loaded, how many are done, how many there are
_log: Final = structlog.get_logger(__name__)


def _silent(what: str, done: int, total: int) -> None:
    """No progress shown."""


class Rehydration:
    """Loads Redis."""

    def __init__(
        self,
        db: Database,
        redis: Redis,
        streams: Streams,
        epochs: Epochs,
        loader: TicketLoader,
        flusher: Flusher,
        shards: int,
        *,
        durable: bool,
    ) -> None:
        """`durable`: Redis writes to disk before it answers (acknowledgement `fsync` or `replica`)."""
        self._db = db
        self._redis = redis
        self._runner = ScriptRunner(
            redis, Ack.MEMORY
        )  # what is loaded stands in the record, and is told to nobody
        self._streams = streams
        self._epochs = epochs
        self._loader = loader
        self._flusher = flusher
        self._shards = shards
        self._durable = durable
        self._names = keys.streams(shards)

    async def guard(self) -> None:
        """See whether Redis is loaded, and if not, load it. Raises Refusal when Redis or Postgres is away.

        Redis emptied, or sharded anew: all is loaded. Redis restarted with its data: the gates are shut at once, even
        while Postgres is away; they open when nothing is missing that Postgres has already, otherwise all is loaded.
        """
        if await self._loaded():
            return
        await self._epochs.shut_others((await self._epochs.state()).run_id)
        async with self._alone() as session:
            if await self._loaded():  # another process was faster
                return
            state = await self._epochs.state()
            restarted = all(self._epochs.was_ours(epoch) for epoch in await self._epochs.read())
            loading = await self._begin()
            if restarted and not await self._behind_the_record():
                await self._load_stock(loading)  # the outbox moves units without an entry in any stream
                await self._open(session, loading, state.run_id)
                _log.warning("redis_restarted", reason="its data is complete; the gates are open again")
            else:
                await self._load(session, loading, state.run_id, _silent)

    async def rehydrate(
        self, progress: Progress = _silent, *, drained: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Load everything, whatever Redis has. `drained`: to be done once the gates are closed, before that is lost."""
        async with self._alone() as session:
            state = await self._epochs.state()
            loading = await self._begin()
            if drained is not None:
                await drained()
            await self._load(session, loading, state.run_id, progress)

    async def _begin(self) -> Loading:
        """Close the gates, then drain the streams: from here on Postgres knows everything."""
        loading = Loading(self._redis, self._runner, self._epochs, self._shards)
        await loading.begin()
        await self._drain()
        return loading

    async def _loaded(self) -> bool:
        state = await self._epochs.state()
        wanted = self._epochs.wanted(state.run_id)
        return all(epoch == wanted for epoch in await self._epochs.read())

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        session = await self._db.session()
        try:
            await alone_for_session(session, Lock.REHYDRATION)
            yield session
        except (TimeoutError, OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError) as fault:
            raise Refusal(ErrorCode.POSTGRES_UNAVAILABLE) from fault
        finally:
            session.terminate()
            await self._runner.aclose()

    async def _drain(self) -> None:
        """Also streams of an earlier number of shards."""
        await self._flusher.follow(self._names)
        async with self._db.connection() as connection:
            known = await redemptions.cursors(connection)
        await self._flusher.drain(sorted({*known, *self._names}), loading=True)

    async def _behind_the_record(self) -> bool:
        """Redis may have lost entries that Postgres has: then its tickets and stock lost what those did, too.

        Its last ids tell that only as long as nobody adds new ones. Whoever asks a restarted Redis first shuts its
        gates (`shut.lua`); but they are believed only where Redis writes to disk before it answers.
        """
        if not self._durable:
            return True
        async with self._db.connection() as connection:
            cursors = await redemptions.cursors(connection)
        for name in self._names:
            if ordinal(await self._streams.last_id(name)) < ordinal(cursors.get(name, ORIGIN)):
                return True
        return False

    async def _load(
        self, session: asyncpg.Connection[Any], loading: Loading, run_id: str, progress: Progress
    ) -> None:
        _log.warning("rehydration_begins")
        async with self._db.connection() as connection:
            cursors = await redemptions.cursors(connection)
        for name in self._names:
            await self._meet(name, cursors.get(name, ORIGIN))
        await (
            loading.forget_tickets()
        )  # also what Redis alone has: of another number of shards, or of a newer record
        await self._load_stock(loading)
        loaded = await self._load_tickets(loading, progress)
        await self._load_verdicts(loading)
        await self._open(session, loading, run_id)
        _log.warning("rehydration_done", tickets=loaded)

    async def _meet(self, stream: str, cursor: str) -> None:
        """Stream and cursor end at one id, whichever was behind: Redis that lost entries, or Postgres that went back.

        Postgres that went back has a cursor before entries that were trimmed long ago. No flush would ever move it, and
        whoever waits for it to pass the stream's last id would wait until somebody scans or orders.
        """
        await self._streams.raise_last_id(stream, cursor)
        last = await self._streams.last_id(stream)
        if ordinal(last) > ordinal(cursor):
            async with self._db.transaction() as connection:
                locked = await redemptions.try_lock_cursor(connection, stream)
                if locked is not None and not await self._streams.read(stream, locked, 1):
                    await redemptions.move_cursor(connection, stream, last)

    async def _open(self, session: asyncpg.Connection[Any], loading: Loading, run_id: str) -> None:
        """Open the gates, unless Redis was replaced or the lock was lost while it was being loaded."""
        await still_here(session)
        if (await self._epochs.state()).run_id != run_id:
            raise Refusal(ErrorCode.REDIS_UNAVAILABLE)
        await loading.finish(run_id)

    async def _load_stock(self, loading: Loading) -> None:
        """Stock and holds of ONE snapshot. What changes later stands in the outbox, which waits for us."""
        since = datetime.now(UTC) - timedelta(seconds=IDEMPOTENCY_REPLAY_S)
        async with self._db.transaction(read_only=True) as connection:
            levels = {
                row.product_id: Level(row.sellable, row.reserved, row.sold)
                for row in await catalog.stock(connection)
            }
            await loading.forget_sales(levels)
            await loading.stock(levels)
            after = ""
            while page := await orders.pending_page(connection, after, REHYDRATE_PAGE):
                await loading.holds(page)
                after = page[-1].order_id
            after = ""
            while keys_page := await orders.recent_keys_page(connection, since, after, REHYDRATE_PAGE):
                await loading.idempotency(
                    [(order_id, buyer, key, payload) for order_id, buyer, key, payload, _ in keys_page],
                    [max(1, int((created - since).total_seconds())) for *_, created in keys_page],
                )
                after = keys_page[-1][0]

    async def _load_tickets(self, loading: Loading, progress: Progress) -> int:
        async with self._db.connection() as connection:
            total = await tickets.count(connection)
        done = 0
        progress("tickets", 0, total)
        reading = asyncio.create_task(self._page_of_tickets(""))
        try:
            while hashes := await reading:
                reading = asyncio.create_task(self._page_of_tickets(max(hashes)))  # while this one is written
                await loading.tickets(hashes)
                done += len(hashes)
                progress("tickets", done, max(total, done))
        finally:
            reading.cancel()
            await asyncio.wait([reading])
        return done

    async def _page_of_tickets(self, after: str) -> dict[str, list[str]]:
        async with self._db.connection() as connection:
            codes = await tickets.codes_page(connection, after, REHYDRATE_PAGE)
        return await self._loader.gate_hashes(codes) if codes else {}

    async def _load_verdicts(self, loading: Loading) -> None:
        """What gates were told during the last day, so that a retry across the loss is answered as before."""
        since = datetime.now(UTC) - timedelta(seconds=SCAN_REPLAY_S)
        after = (since, "")
        while True:
            async with self._db.connection() as connection:
                rows = await redemptions.verdicts_page(connection, since, after, REHYDRATE_PAGE)
                codes = sorted({row["ticket_code"] for row in rows})
                terms = {ticket.code: ticket for ticket in await tickets.get_many(connection, codes)}
            if not rows:
                return
            now_ms = int(datetime.now(UTC).timestamp() * 1000)
            told = [(row["scan_id"], _decision(row, _terms(terms[row["ticket_code"]]))) for row in rows]
            await loading.verdicts(told, now_ms)
            after = (rows[-1]["decided_at"], rows[-1]["event_id"])


def _terms(ticket: Any) -> str:
    return pack_terms([(left.function_code, left.label, left.total_uses) for left in ticket.entitlements])


def _decision(row: Any, terms: str) -> Decision:
    return Decision(
        verdict=Verdict.SUCCESS if row["reason"] is None else Verdict[row["reason"]],
        event_id=row["event_id"],
        ticket_code=row["ticket_code"],
        function_code=row["function_code"],
        ticket_status=row["ticket_status"],
        remaining=row["remaining"],
        first=row["first_event"],
        decided_ms=round(row["decided_at"].timestamp() * 1000),
        terms=terms,
    )
