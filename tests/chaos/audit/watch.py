"""A look at Redis every tenth of a second, while all goes on: the cap holds at every moment, not only at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.chaos.audit.findings import Finding, breach

LOOK_S = 0.1
LOOK_S_MAX = 1.0


class Watch:
    """What was seen so far. `redis_url` is asked each time: Redis may have moved."""

    def __init__(self, redis_url: Callable[[], str]) -> None:
        self._redis_url = redis_url
        self.findings: dict[str, Finding] = {}
        self.looks = 0
        self.lag_s = 0.0  # age of the oldest decision that Redis still has
        self._products: list[str] = []
        self._streams: list[str] = []

    async def look_for_ever(self) -> None:
        """Until cancelled. A Redis that is away is looked at again later."""
        while True:
            try:
                async with (
                    asyncio.timeout(LOOK_S_MAX),
                    Redis.from_url(self._redis_url(), decode_responses=True) as redis,
                ):
                    while True:
                        async with asyncio.timeout(LOOK_S_MAX):
                            await self.look(redis)
                        await asyncio.sleep(LOOK_S)
            except (RedisError, OSError, TimeoutError, RuntimeError):
                await asyncio.sleep(LOOK_S)

    async def look(self, redis: Redis) -> None:
        """Once."""
        oldest = time.time()
        if not self._products:
            self._products = [name async for name in redis.scan_iter(count=10_000, match="{stock}:p:*")]
        for name in self._products:
            units = {field: int(n) for field, n in (await redis.hgetall(name)).items()}
            if units and units["reserved"] + units["sold"] > units["sellable"]:
                self.findings[name] = breach("1 never oversold", f"{name} during the run: {units}")
            if units and min(units.values()) < 0:
                self.findings[name] = breach(
                    "1 never oversold", f"{name} during the run, below zero: {units}"
                )
        if not self._streams:
            self._streams = [name async for name in redis.scan_iter(count=10_000, _type="stream")]
        for stream in self._streams:
            for entry_id, _ in await redis.xrange(stream, count=1):
                oldest = min(oldest, int(entry_id.partition("-")[0]) / 1000)
        self.lag_s = time.time() - oldest
        self.looks += 1
