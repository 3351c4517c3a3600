"""Telling a breach from what is merely under way, on a system that goes on selling and scanning.

Redis and Postgres agree once the flusher and the outbox have caught up, and they are never both still. So whoever
suspects something looks at it again and alone: Redis, then (the flusher's cursor having passed all that Redis had
decided by then) Postgres, then Redis again. What is under way settles between two looks; a breach stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from redis.asyncio import Redis

from server.domain.errors import ErrorCode, Refusal
from server.hot.connection import ask
from server.hot.epoch import Epochs
from server.hot.stream import ORIGIN, Streams, ordinal
from server.jobs.findings import Tally
from server.limits import CHECK_ASKS, CHECK_CATCH_UP_S_MAX, CHECK_LOOK_PAUSE_S, CHECK_LOOKS
from server.store import check, redemptions
from server.store.pool import Database

# (rule, what is suspected: an order id, a ticket code, a key) -> what is wrong with it
Faults = dict[tuple[Tally, str], str]
# Looks at these again. None: not to be judged now, because a gate is closed or the flusher does not catch up.
Look = Callable[[Sequence[str]], Awaitable[Faults | None]]
T = TypeVar("T")
_POLL_S: Final = 0.02  # about the time that the flusher takes for a batch


async def again(call: Callable[[], Awaitable[T]]) -> T:
    """What a reading of Redis gives. One that had no answer is tried again: the work of minutes is not thrown away.

    Raises Refusal(REDIS_UNAVAILABLE) when there is still none.
    """
    for _ in range(CHECK_ASKS - 1):
        try:
            return await ask(call())
        except Refusal as refusal:
            if refusal.code is not ErrorCode.REDIS_UNAVAILABLE:
                raise
            await asyncio.sleep(CHECK_LOOK_PAUSE_S)
    return await ask(call())


async def read_all(redis: Redis, add: Callable[[Any], object], *, at_once: bool = False) -> list[Any]:
    """The answers to the readings that `add` puts into a pipeline; `at_once`: of one moment. As `again`."""

    async def call() -> list[Any]:
        async with redis.pipeline(transaction=at_once) as pipe:
            add(pipe)
            return await pipe.execute()

    return await again(call)


class CatchUp:
    """How far Postgres is behind Redis, and the other way round."""

    def __init__(self, db: Database, streams: Streams, epochs: Epochs, names: Sequence[str]) -> None:
        self._db = db
        self._streams = streams
        self._epochs = epochs
        self._names = names
        self._late: set[str] = set()

    async def settle(self) -> list[str]:
        """Wait, at most 10 s, until all that is decided by now has arrived; what is still behind then."""
        deadline = asyncio.get_running_loop().time() + CHECK_CATCH_UP_S_MAX
        async with self._db.connection() as connection:
            mark = await check.outbox_mark(connection)
        noted = await self.note(self._names)
        while True:
            behind = [*await self._closed(), *await self._unflushed(noted), *await self._untold(mark)]
            if not behind or asyncio.get_running_loop().time() > deadline:
                return behind
            await asyncio.sleep(_POLL_S)

    async def open(self) -> bool:
        """Every gate is loaded and open to us: what Redis has is all there is."""
        return all(self._epochs.fits(epoch) for epoch in await self._epochs.read())

    async def note(self, names: Iterable[str]) -> dict[str, str]:
        """Stream -> the last id it generated."""
        return {name: await self._streams.last_id(name) for name in names}

    async def passed(self, noted: Mapping[str, str]) -> bool:
        """Wait, at most 10 s, until the flusher has passed these ids.

        A stream that was late once is not waited for again: with the flusher away a check would take hours.
        """
        deadline = asyncio.get_running_loop().time() + CHECK_CATCH_UP_S_MAX
        while late := await self._behind(noted):
            if self._late.issuperset(late) or asyncio.get_running_loop().time() > deadline:
                self._late.update(late)
                return False
            await asyncio.sleep(_POLL_S)
        return True

    async def _behind(self, noted: Mapping[str, str]) -> list[str]:
        async with self._db.connection() as connection:
            cursors = await redemptions.cursors(connection)
        return [
            name for name, last_id in noted.items() if ordinal(cursors.get(name, ORIGIN)) < ordinal(last_id)
        ]

    async def _closed(self) -> list[str]:
        wanted = self._epochs.wanted((await self._epochs.state()).run_id)
        found = zip(self._epochs.names, await self._epochs.read(), strict=True)
        return [f"{name}: the gate is closed" for name, epoch in found if epoch != wanted]

    async def _unflushed(self, noted: Mapping[str, str]) -> list[str]:
        return [
            f"{name}: {await self._streams.length(name):,} entries are not flushed"
            for name in await self._behind(noted)
        ]

    async def _untold(self, mark: int) -> list[str]:
        async with self._db.connection() as connection:
            waiting = await check.outbox_up_to(connection, mark)
        return [f"outbox: {waiting:,} messages are not applied"] if waiting else []


async def confirm(suspects: Faults, look: Look) -> None:
    """Enter the faults that hold in 3 looks, a moment apart, into their tallies; also those that cannot be judged."""
    held = suspects
    for number in range(CHECK_LOOKS):
        if not held:
            return
        if number:
            await asyncio.sleep(CHECK_LOOK_PAUSE_S)
        seen = await look(sorted({subject for _, subject in held}))
        if seen is None:
            for (tally, _), text in held.items():
                tally.undecided(text)
            return
        held = {key: seen[key] for key in held if key in seen}
    for (tally, _), text in held.items():
        tally.breach(text)
