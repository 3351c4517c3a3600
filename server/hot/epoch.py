"""The epochs: whether a shard, or stock, is loaded and open, and for which Redis it was loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from redis.asyncio import Redis

from server.hot import keys
from server.hot.connection import ask

_MIB: Final = 1024 * 1024
_SHUT: Final = " shut"


class RedisState(msgspec.Struct, frozen=True):
    """The Redis process behind the address, and what it uses."""

    run_id: str
    memory_mb: float


class Epochs:
    """The gates. An epoch holds "<run id of Redis> <shard count>": a restart or a re-sharding shows."""

    def __init__(self, redis: Redis, shards: int) -> None:
        self._redis = redis
        self._shards = shards
        self.names: Sequence[str] = [keys.STOCK_EPOCH, *(keys.epoch(shard) for shard in range(shards))]

    def wanted(self, run_id: str) -> str:
        """What the epochs hold when all is loaded for this Redis and this number of shards."""
        return f"{run_id} {self._shards}"

    def fits(self, epoch: str | None) -> bool:
        """Whether a gate of this epoch is open to us: it is loaded, and for our number of shards."""
        return epoch is not None and epoch.split()[1:] == [str(self._shards)]

    async def read(self) -> list[str | None]:
        """The epochs, in the order of `names`; None: closed."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in self.names:
                pipe.get(name)
            values: list[str | None] = await ask(pipe.execute())
        return values

    async def shut_others(self, run_id: str) -> None:
        """Shut the gates that were not loaded for this Redis: it is another process, or was sharded otherwise.

        Needs no Postgres: what a restarted Redis has may be behind what it had told, so nothing is judged until that
        is known. A shut epoch says for whom it was loaded, so that a complete Redis needs no loading.
        """
        for name, value in zip(self.names, await self.read(), strict=True):
            if value is None or value == self.wanted(run_id) or value.endswith(_SHUT):
                continue
            async with self._redis.pipeline(transaction=True) as pipe:
                await ask(pipe.watch(name))
                if await ask(pipe.get(name)) == value:
                    pipe.multi()  # type: ignore[no-untyped-call]
                    pipe.set(name, value + _SHUT)
                    await ask(pipe.execute())

    def was_ours(self, epoch: str | None) -> bool:
        """Whether a gate, open or shut, was loaded for our number of shards."""
        return epoch is not None and self.fits(epoch.removesuffix(_SHUT))

    async def try_write(self) -> None:
        """Raises Refusal(REDIS_UNAVAILABLE) when Redis takes no writes: it is full, read-only, or its disk is."""
        await ask(self._redis.set(keys.WRITE_PROBE, ""))

    async def state(self) -> RedisState:
        """The process behind the address. Raises Refusal(REDIS_UNAVAILABLE), also while it is loading its file."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.info("server")
            pipe.info("memory")
            server, memory = await ask(pipe.execute())
        return RedisState(server["run_id"], memory["used_memory"] / _MIB)
