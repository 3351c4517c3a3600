"""Watching what Redis holds that Postgres does not have yet, so that the server refuses before Redis falls over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import msgspec

from server.domain.errors import ErrorCode, Refusal
from server.hot.epoch import Epochs
from server.hot.stream import ORIGIN, Streams, ordinal
from server.telemetry import FLUSH_LAG, STREAM_ENTRIES


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What the last look saw."""

    redis_up: bool = False
    open: bool = False
    entries: int = 0
    lag_s: float = 0.0
    memory_mb: float = 0.0


NEVER: Final = Look()


class Backlog:
    """The last look at streams, epochs and memory; the hot path asks it without asking Redis."""

    def __init__(
        self,
        streams: Streams,
        epochs: Epochs,
        names: Sequence[str],
        *,
        entries_max: int,
        memory_mb_max: int,
    ) -> None:
        self._streams = streams
        self._epochs = epochs
        self._names = names
        self._entries_max = entries_max
        self._memory_mb_max = memory_mb_max  # 0: no bound
        self.seen = NEVER

    def admit(self) -> None:
        """Raises Refusal(BACKLOG_FULL) while a bound is passed."""
        if self.full():
            raise Refusal(ErrorCode.BACKLOG_FULL)

    def full(self) -> bool:
        """A stream is longer, or Redis uses more memory, than the configuration allows."""
        seen = self.seen
        return seen.entries >= self._entries_max or 0 < self._memory_mb_max <= seen.memory_mb

    async def look(self) -> None:
        """Look again; on Refusal (Redis away, or takes no writes) the last figures stay, marked as not up."""
        try:
            state = await self._epochs.state()
            await self._epochs.try_write()  # what can be read only judges nothing
            open_now = all(self._epochs.fits(value) for value in await self._epochs.read())
            entries, lag_s = 0, 0.0
            for name in self._names:
                length = await self._streams.length(name)
                oldest = await self._streams.read(name, ORIGIN, 1)
                age_s = max(0.0, time.time() - ordinal(oldest[0].id)[0] / 1000) if oldest else 0.0
                STREAM_ENTRIES.labels(name).set(length)
                FLUSH_LAG.labels(name).set(age_s)
                entries, lag_s = max(entries, length), max(lag_s, age_s)
        except Refusal:
            self.seen = msgspec.structs.replace(self.seen, redis_up=False)
            return
        self.seen = Look(
            redis_up=True, open=open_now, entries=entries, lag_s=lag_s, memory_mb=state.memory_mb
        )
