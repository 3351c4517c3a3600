"""The rules of verdicts and of the streams that carry them, between Redis and Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from server.domain.redemption import Decision
from server.hot import keys
from server.hot.stock import read_order
from server.hot.stream import ORIGIN, Entry, Streams, ordinal
from server.jobs.catch_up import CatchUp, Faults, again, confirm, read_all
from server.jobs.check_record import Progress
from server.jobs.findings import Tally
from server.limits import CHECK_PAGE, SAID_TURNS
from server.store import check, redemptions
from server.store.pool import Connection, Database

_ABSENT_S: Final = -2  # the time to live of what is not there


class VerdictCheck:
    """Holds what gates were told, and how far the streams are written, against the record."""

    def __init__(self, db: Database, redis: Redis, streams: Streams, catch_up: CatchUp, shards: int) -> None:
        self._db = db
        self._redis = redis
        self._streams = streams
        self._catch_up = catch_up
        self._shards = shards
        self._names = keys.streams(shards)
        self._told = Tally("4-told", "What a scan was told is in the record, word for word")
        self._cursors = Tally("4-cursor", "No cursor is ahead of its stream; what it passed is in the record")
        self.tallies = [self._told, self._cursors]

    # --- What gates were told -------------------------------------------------------------------------------

    async def said(self, progress: Progress) -> None:
        """All scans of which Redis keeps what they were told."""
        for shard in range(self._shards):
            for place, name in enumerate(keys.said(shard)):
                await self._look_at_hash(place, name)
                async for scan_ids in self._pages(name):
                    self._told.looked(len(scan_ids))
                    suspects = await self._judge(await self._texts(shard, scan_ids))
                    await confirm(suspects, partial(self._look_at_told, shard))
                    progress("scans told", len(scan_ids))

    async def _look_at_hash(self, place: int, name: str) -> None:
        """It knows its turn, which is one of its place, and ends by itself: `redeem.lua` writes all that at once."""
        turn, left_s = await read_all(
            self._redis, lambda pipe: (pipe.hget(name, ""), pipe.ttl(name)), at_once=True
        )
        known = turn is not None and turn.isdigit() and int(turn) % SAID_TURNS == place
        if left_s != _ABSENT_S and not (known and left_s >= 0):
            self._told.breach(f"{name}: of turn {turn!r}, and ends in {left_s} s")

    async def _pages(self, name: str) -> AsyncIterator[list[str]]:
        cursor: Any = 0
        while True:
            found: Any = await again(partial(self._redis.hscan, name, cursor, count=CHECK_PAGE))
            cursor, lines = found
            yield [scan_id for scan_id in lines if scan_id]  # "" names the hash's turn
            if int(cursor) == 0:
                return

    async def _look_at_told(self, shard: int, scan_ids: Sequence[str]) -> Faults | None:
        texts = await self._texts(shard, scan_ids)
        if not await self._catch_up.passed(await self._catch_up.note([keys.redemptions(shard)])):
            return None
        faults = await self._judge(texts)
        return faults if await self._catch_up.open() else None

    async def _texts(self, shard: int, scan_ids: Sequence[str]) -> dict[str, list[str]]:
        """What each scan was told, in whichever hashes it stands."""
        if not scan_ids:
            return {}
        lines: list[list[str | None]] = await read_all(
            self._redis, lambda pipe: [pipe.hmget(name, list(scan_ids)) for name in keys.said(shard)]
        )
        found = [[text for text in each if text is not None] for each in zip(*lines, strict=True)]
        return dict(zip(scan_ids, found, strict=True))

    async def _judge(self, texts: Mapping[str, Sequence[str]]) -> Faults:
        faults: Faults = {}
        told: dict[str, Decision] = {}
        for scan_id, found in texts.items():
            if len(found) > 1:
                faults[self._told, scan_id] = f"scan {scan_id}: told in {len(found)} turns"
            try:
                if found:
                    told[scan_id] = Decision.parse(found[0])
            except ValueError:
                faults[self._told, scan_id] = f"scan {scan_id}: Redis keeps what cannot be read"
        async with self._db.connection() as connection:
            events = await check.events_by_id(connection, [decision.event_id for decision in told.values()])
        for scan_id, decision in told.items():
            if wrong := _wrong(scan_id, decision, events.get(decision.event_id)):
                faults[self._told, scan_id] = f"scan {scan_id}: {wrong}"
        return faults

    # --- How far the streams are written --------------------------------------------------------------------

    async def streams(self) -> None:
        """Every stream of the present number of shards."""
        self._cursors.looked(len(self._names))
        suspects: Faults = {}
        for name in self._names:
            suspects |= await self._look_at_stream(name, self._cursors)
        await confirm(suspects, self._look_at_streams)

    async def _look_at_streams(self, subjects: Sequence[str]) -> Faults | None:
        faults: Faults = {}
        for name in {subject.partition(" ")[0] for subject in subjects}:
            faults |= await self._look_at_stream(name, None)
        return faults if await self._catch_up.open() else None

    async def _look_at_stream(self, name: str, counted: Tally | None) -> Faults:
        """The cursor is read first, and streams only grow: so it may be behind what Redis says then, never ahead."""
        async with self._db.connection() as connection:
            cursor = (await redemptions.cursors(connection)).get(name, ORIGIN)
        last_id = await self._streams.last_id(name)
        if ordinal(cursor) > ordinal(last_id):
            text = f"{name}: the record is at {cursor}, the stream only at {last_id}"
            return {(self._cursors, name): text}
        faults: Faults = {}
        after = ORIGIN
        while entries := await self._streams.read(name, after, CHECK_PAGE):
            passed = [entry for entry in entries if ordinal(entry.id) <= ordinal(cursor)]
            if counted is not None:
                counted.looked(len(passed))
            async with self._db.connection() as connection:
                lost = await _unrecorded(connection, name, passed)
            for entry_id in lost:
                text = f"{name}: entry {entry_id} was passed and is not in the record"
                faults[self._cursors, f"{name} {entry_id}"] = text
            if len(passed) < len(entries):
                return faults
            after = entries[-1].id
        return faults


def _wrong(scan_id: str, told: Decision, row: Any) -> str:
    """What the record says otherwise than the scan was told; empty when they agree."""
    if not told.verdict.names_ticket:
        return f"told {told.verdict.name}, which is never recorded, with an event" if told.event_id else ""
    if row is None:
        return f"told {told.verdict.name}, and the record has no such event"
    differing = [name for name, said, recorded in _parts(scan_id, told, row) if said != recorded]
    return f"{', '.join(differing)} other than in event {row['event_id']}" if differing else ""


def _parts(scan_id: str, told: Decision, row: Any) -> Iterator[tuple[str, object, object]]:
    yield "verdict", told.verdict.name, row["reason"] or "SUCCESS"
    yield "ticket", told.ticket_code, row["ticket_code"]
    yield "function", told.function_code, row["function_code"]
    yield "scan_id", scan_id, row["scan_id"]
    yield "status", told.ticket_status, row["ticket_status"]
    yield "remaining", told.remaining, row["remaining"]
    yield "first", told.first, row["first_event"]
    yield "time", told.decided_ms, round(row["decided_at"].timestamp() * 1000)


async def _unrecorded(connection: Connection, stream: str, entries: Sequence[Entry]) -> list[str]:
    """Ids of those entries that are neither in the record nor among those that it refused."""
    if not entries:
        return []
    if stream == keys.ORDERS_STREAM:
        orders = {entry.id: _order_id(entry) for entry in entries}
        known = await check.order_statuses(connection, [each for each in orders.values() if each])
        missing = [entry_id for entry_id, order_id in orders.items() if order_id not in known]
    else:
        shard = keys.shard_of_stream(stream)
        events = {entry.id: f"{shard:02d}-{entry.id}" for entry in entries}
        recorded = await check.events_by_id(connection, list(events.values()))
        missing = [entry_id for entry_id, event_id in events.items() if event_id not in recorded]
    refused = await check.refused_entries(connection, stream, missing)
    return [entry_id for entry_id in missing if entry_id not in refused]


def _order_id(entry: Entry) -> str | None:
    try:
        return read_order(entry.body or "").order_id
    except (msgspec.DecodeError, ValueError):
        return None
