"""The streams that carry decisions from Redis to Postgres."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from server.hot.connection import ask
from server.limits import REDIS_CALL_S_MAX

ORIGIN: Final = "0-0"


class Entry(NamedTuple):
    """One entry: its id "<ms>-<seq>", and its only field's text (None: the entry is not ours)."""

    id: str
    body: str | None


def ordinal(entry_id: str) -> tuple[int, int]:
    """Entry ids as numbers: they sort as the stream does, their texts do not."""
    ms, seq = entry_id.split("-")
    return int(ms), int(seq)


class Streams:
    """Reading, measuring and trimming streams."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def read(self, stream: str, after: str, limit: int) -> list[Entry]:
        """Up to `limit` entries after the id `after`, oldest first."""
        rows: Any = await ask(self._redis.xrange(stream, min=f"({after}", max="+", count=limit))
        return [Entry(entry_id, fields.get("d")) for entry_id, fields in rows]

    async def wait(self, stream: str, after: str, seconds: float) -> bool:
        """Wait for an entry after the id; False when none came in that time (at most `REDIS_CALL_S_MAX` / 2)."""
        block_ms = int(min(seconds, REDIS_CALL_S_MAX / 2) * 1000)
        return bool(await ask(self._redis.xread({stream: after}, count=1, block=max(block_ms, 1))))

    async def trim(self, stream: str, up_to: str) -> None:
        """Forget entries up to and including the id: they are in Postgres."""
        ms, seq = ordinal(up_to)
        await ask(self._redis.xtrim(stream, minid=f"{ms}-{seq + 1}", approximate=False))

    async def last_id(self, stream: str) -> str:
        """The last id that the stream ever generated; ORIGIN for a stream that is not there."""
        if not await ask(self._redis.exists(stream)):
            return ORIGIN
        info = await ask(self._redis.xinfo_stream(stream))
        last: str = info["last-generated-id"]
        return last

    async def length(self, stream: str) -> int:
        """How many entries are not trimmed yet."""
        entries: int = await ask(self._redis.xlen(stream))
        return entries

    async def raise_last_id(self, stream: str, at_least: str) -> None:
        """See to it that new entries come after the id: a clock that went back must not hide them from the flusher."""
        if ordinal(await self.last_id(stream)) >= ordinal(at_least):
            return
        if not await ask(self._redis.exists(stream)):
            await ask(self._redis.xgroup_create(stream, "made", id="$", mkstream=True))
            await ask(self._redis.xgroup_destroy(stream, "made"))
        await ask(self._redis.execute_command("XSETID", stream, at_least))  # type: ignore[no-untyped-call]
