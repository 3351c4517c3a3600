"""One installation under test: its databases, its scene, and a real `gateline serve` with its jobs beside it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.cpu import children
from bench.machine import Pinning, pin, say
from bench.processes import GATELINE, ServerProcess, output, running
from bench.seed import Scene, seed
from server import config as configuration
from server.app import Parts, open_parts
from server.config import Config
from server.dev.embedded import EmbeddedServers
from server.hot import keys
from server.hot.stock import Stock
from server.hot.stream import ORIGIN, Streams, ordinal
from server.store import outbox, redemptions
from server.store.migrate import migrate_by_owner
from server.store.pool import Database

_DRAIN_S_MAX: Final = 300.0
_SAMPLE: Final = 500  # tickets whose memory is looked at one by one
HOLD_S: Final = "7200"  # no order of a phase expires before the audit


class Unclean(RuntimeError):
    """The run does not count: a check failed; the message says which."""


class Loaded(NamedTuple):
    """How the tickets came in. `redis_bytes`: by which used_memory grew; `sampled_bytes`: MEMORY USAGE of a ticket."""

    tickets: int
    copied_s: float
    rehydrated_s: float
    redis_bytes: int
    sampled_bytes: float


@dataclass(frozen=True)
class Site:
    """A running installation. `groups`: name of a kind of process -> its pids."""

    config: Config
    environment: dict[str, str]
    address: str
    scene: Scene
    loaded: Loaded
    streams: Streams
    stock: Stock
    database: Database
    groups: dict[str, list[int]]
    processes: list[ServerProcess]
    pinning: Pinning

    @property
    def stream_names(self) -> list[str]:
        """Every stream that the flusher drains."""
        return keys.streams(self.config.shards)

    async def drained(self) -> float:
        """Wait until every stream is in Postgres and the outbox is empty; the seconds that it took. Raises Unclean."""
        began = time.perf_counter()
        while not await self._is_drained():
            if time.perf_counter() - began > _DRAIN_S_MAX:
                raise Unclean(f"flusher or outbox did not catch up in {_DRAIN_S_MAX:.0f} s")
            await asyncio.sleep(0.05)
        return time.perf_counter() - began

    async def _is_drained(self) -> bool:
        async with self.database.connection() as connection:
            cursors = await redemptions.cursors(connection)
            waiting, _ = await outbox.backlog(connection)
        if waiting:
            return False
        for name, cursor in cursors.items():
            if ordinal(await self.streams.last_id(name)) > ordinal(cursor):
                return False
        return True

    async def lag_s(self, stream: str) -> float:
        """The age of the oldest entry of a stream that Postgres does not have; 0.0 when it has all."""
        async with self.database.connection() as connection:
            cursor = (await redemptions.cursors(connection)).get(stream, ORIGIN)
        oldest = await self.streams.read(stream, cursor, 1)
        return max(0.0, time.time() - ordinal(oldest[0].id)[0] / 1000) if oldest else 0.0

    async def audit(self) -> dict[str, Any]:
        """What `gateline check` says. Raises Unclean when a process complained."""
        await self.drained()
        began = time.perf_counter()
        status, printed, complained = await output(("check", "--json"), self.environment)
        if not printed.strip():
            raise Unclean(f"`gateline check` failed with status {status}: {complained}")
        for process in self.processes:
            if complaints := process.complaints():
                raise Unclean("a process complained:\n" + "\n".join(complaints[:10]))
        said: dict[str, Any] = json.loads(printed)
        said["seconds"] = round(time.perf_counter() - began, 1)
        said["looked_at"] = sum(finding["looked_at"] for finding in said["findings"])
        return said


def fresh_environment(servers: EmbeddedServers, folder: Path) -> dict[str, str]:
    """The settings of an installation on these servers, with secrets of its own."""
    assert servers.redis_url and servers.database_url and servers.owner_database_url  # noqa: S101

    def key() -> str:
        return base64.b64encode(secrets.token_bytes(32)).decode()

    return {
        "REDIS_URL": servers.redis_url,
        "DATABASE_URL": servers.database_url,
        "GATELINE_OWNER_DATABASE_URL": servers.owner_database_url,
        "GATELINE_PORT": "0",
        "GATELINE_DATA_DIR": str(folder / "run"),
        "GATELINE_QR_KEYS": f"1:{key()}",
        "GATELINE_JWT_KEYS": f"k1:{key()}",
        "GATELINE_GATEWAY_SECRETS": key(),
        "GATELINE_GATEWAY_URL": "http://127.0.0.1:9",  # orders name it; nobody is asked
        "GATELINE_HOLD_S": HOLD_S,
        "GATELINE_BUYER_ORDERS_MAX": "100",  # the most there is: the lanes' buyers order again and again
        "GATELINE_LOG_LEVEL": "warning",
    }


def progress(what: str, done: int, total: int) -> None:
    """A bar on standard error."""
    if done < total and not sys.stderr.isatty():
        return
    share = done / total if total else 1.0
    say(f"\r  {what} {'█' * round(share * 30):<30} {done:,} of {total:,}", end="\n" if done >= total else "")


@asynccontextmanager
async def open_site(
    servers: EmbeddedServers,
    environment: dict[str, str],
    pinning: Pinning,
    *,
    tickets: int,
    uses: int = 4,
    for_sale: int = 1_000_000,
    keep: int | None = None,
) -> AsyncIterator[Site]:
    """Migrate, seed, load Redis, and start `gateline serve` and `gateline work`; both are stopped at the end."""
    config = configuration.load(environment)
    assert servers.valkey and servers.postgres  # noqa: S101
    pin(servers.valkey.pid, pinning.others)
    for pid in (servers.postgres.pid, *children(servers.postgres.pid)):
        pin(pid, pinning.record)
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(open_parts(config))
        owner_url = environment["GATELINE_OWNER_DATABASE_URL"]
        await migrate_by_owner(environment["DATABASE_URL"], owner_url)
        scene, loaded = await _load(parts, owner_url, tickets, uses, for_sale, keep)
        work, _ = await stack.enter_async_context(
            running((*GATELINE, "work"), environment, pinning.record, event="working")
        )
        serve, said = await stack.enter_async_context(
            running((*GATELINE, "serve"), environment, pinning.server, event="serving")
        )
        yield Site(
            config=config,
            environment=environment,
            address=said["address"],
            scene=scene,
            loaded=loaded,
            streams=parts.streams,
            stock=parts.stock,
            database=parts.bulk_database,
            groups={
                "serve": [serve.pid],
                "work": [work.pid],
                "valkey": [servers.valkey.pid],
                "postgres": [servers.postgres.pid],
                "load": [os.getpid()],
            },
            processes=[serve, work],
            pinning=pinning,
        )


async def _load(
    parts: Parts, url: str, tickets: int, uses: int, for_sale: int, keep: int | None
) -> tuple[Scene, Loaded]:
    """Seed the record, then load Redis as `gateline rehydrate` does."""
    began = time.perf_counter()
    scene = await seed(
        parts.bulk_database, url, tickets=tickets, uses=uses, for_sale=for_sale, keep=keep, progress=progress
    )
    copied = time.perf_counter()
    before = await _used_memory(parts)
    await parts.rehydration.rehydrate(lambda what, done, total: progress(f"{what} into Redis", done, total))
    rehydrated = time.perf_counter()
    sample = [keys.ticket(keys.shard_of(code, parts.config.shards), code) for code in scene.codes[:_SAMPLE]]
    sizes = [await parts.redis.memory_usage(name, samples=0) or 0 for name in sample]
    grown = await _used_memory(parts) - before
    return scene, Loaded(tickets, copied - began, rehydrated - copied, grown, sum(sizes) / max(len(sizes), 1))


async def _used_memory(parts: Parts) -> int:
    info = await parts.redis.info("memory")
    used: int = info["used_memory"]
    return used
