"""What a script call costs this process, on redis-py's own way and on ours: `python -m bench.script_calls`.

Both call the same script, which only returns as many lines as a batch of scans would, on the same embedded Valkey, in
turns. Figures are CPU of this process; the ratio is of one run, since machines drift.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import uvloop

from server.config import Ack
from server.dev.embedded import embedded
from server.hot.connection import connect
from server.hot.scripts import Script, ScriptRunner

BATCHES: Final = (1, 16, 64)
CALLS: Final = 400
ROUNDS: Final = 5


async def main(url: str) -> None:
    """Print CPU per call of both ways, for each size of batch."""
    redis = connect(url)
    runner = ScriptRunner(redis, Ack.MEMORY)
    script = Script("redeem")
    script.text = "local a = {} for i = 1, #KEYS do a[i] = string.rep('x', 120) end return a"
    script.sha = str(await redis.script_load(script.text))
    sys.stdout.write(
        f"{'scans a call':>12} {'redis-py':>12} {'kept':>12} {'ratio':>8}   (µs of CPU a call)\n"
    )
    for scans in BATCHES:
        keys = [f"{{s00}}:t:{number:032d}" for number in range(scans)]
        args: list[str | int] = [f"{number:016d}" for number in range(scans * 9)]

        async def theirs(keys: list[str] = keys, args: list[str | int] = args) -> object:
            return await redis.evalsha(script.sha, len(keys), *keys, *args)

        async def ours(keys: list[str] = keys, args: list[str | int] = args) -> object:
            return await runner.run(script, keys, args)

        pairs = [(await cpu_us(theirs), await cpu_us(ours)) for _ in range(ROUNDS)]
        library, kept = (statistics.median(column) for column in zip(*pairs, strict=True))
        sys.stdout.write(f"{scans:>12} {library:>12.0f} {kept:>12.0f} {library / kept:>8.1f}\n")
    await runner.aclose()
    await redis.aclose(close_connection_pool=True)


async def cpu_us(call: Callable[[], Awaitable[object]]) -> float:
    """CPU of this process for one call, in microseconds."""
    await call()
    before = time.process_time()
    for _ in range(CALLS):
        await call()
    return (time.process_time() - before) / CALLS * 1e6


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded(
            Path(folder), need_valkey=True, need_postgres=False, appendfsync="always", erase=True
        ) as servers,
    ):
        uvloop.run(main(servers.redis_url or ""))
