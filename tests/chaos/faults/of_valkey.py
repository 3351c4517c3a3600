"""Valkey dies, forgets, is replaced, is full, takes no writes, hangs."""

from __future__ import annotations

import asyncio
import shutil

from redis.asyncio import Redis

from tests.chaos import disk
from tests.chaos.faults.fault import Scene, fault
from tests.chaos.installation import follow
from tests.chaos.parts import ClockedValkey, DatabasePart

LASTS_S = 4.0


@fault("valkey killed", "SIGKILL; started again with its log")
async def killed(scene: Scene) -> None:
    """As a failing machine that comes back."""
    await scene.installed.valkey.kill()
    await scene.last(1.0)
    await scene.installed.valkey.start()
    scene.repaired()


@fault("valkey emptied", "SIGKILL; started again without any data", loses="what Postgres did not have yet")
async def emptied(scene: Scene) -> None:
    """As a machine that comes back with a new disk."""
    await scene.installed.valkey.kill()
    shutil.rmtree(scene.valkey.folder / "appendonlydir")
    await scene.installed.valkey.start()
    scene.repaired()


@fault(
    "valkey's log cut short", "SIGKILL; its log loses the last second", loses="what Postgres did not have yet"
)
async def cut_short(scene: Scene) -> None:
    """As a disk that lied about what it had written."""
    log = max((scene.valkey.folder / "appendonlydir").glob("*.incr.aof"))
    kept = log.stat().st_size
    await scene.last(1.0)
    await scene.installed.valkey.kill()
    scene.notes.append(f"{log.stat().st_size - kept} bytes of its log cut off")
    with log.open("r+b") as file:
        file.truncate(kept)
    await scene.installed.valkey.start()
    scene.repaired()


@fault("valkey replaced by its replica", "SIGKILL; the replica is promoted, a new one follows", ack="replica")
async def replaced(scene: Scene) -> None:
    """As a failover behind a virtual address; the new primary needs a replica of its own before it may speak."""
    installed = scene.installed
    assert installed.replica is not None
    await installed.valkey.kill()
    await scene.last(0.5)  # until somebody notices
    promoted = installed.replica.server
    assert isinstance(promoted, ClockedValkey)
    async with Redis.from_url(promoted.url) as redis:
        await redis.replicaof("NO", "ONE")
    promoted.become()
    installed.spare.append(installed.valkey.server)
    installed.valkey = DatabasePart("valkey", promoted)
    await installed.valkey.start()
    installed.point_to("redis", promoted.port)
    await follow(installed)
    scene.repaired()


@fault("valkey full", f"maxmemory for {LASTS_S:.0f} s, without eviction")
async def full(scene: Scene) -> None:
    """Every command that would need memory is refused."""
    await scene.tell_redis("CONFIG", "SET", "maxmemory", "1mb")
    await scene.last(LASTS_S)
    await scene.tell_redis("CONFIG", "SET", "maxmemory", "0")
    scene.repaired()


@fault("valkey read-only", f"made a replica of nobody for {LASTS_S:.0f} s")
async def read_only(scene: Scene) -> None:
    """As after a failover that nobody told us of."""
    await scene.tell_redis("REPLICAOF", "127.0.0.1", 1)
    await scene.last(LASTS_S)
    await scene.tell_redis("REPLICAOF", "NO", "ONE")
    scene.repaired()


@fault("valkey's disk full", "its log cannot grow; it ends itself; room again and started")
async def disk_full(scene: Scene) -> None:
    """At `always` a Valkey that cannot write its log ends rather than forget."""
    disk.limit_growth(scene.valkey.pid, scene.valkey.folder, 0)
    async with asyncio.timeout(20):
        while scene.valkey.running:
            await asyncio.sleep(0.05)
    await scene.last(1.0)
    await scene.installed.valkey.start()
    scene.repaired()


@fault("valkey hangs", f"SIGSTOP for {LASTS_S:.0f} s")
async def hangs(scene: Scene) -> None:
    """Connections stand, and nothing answers."""
    scene.installed.valkey.halt()
    await scene.last(LASTS_S)
    scene.installed.valkey.go_on()
    scene.repaired()


@fault(
    "valkey's network swallows", f"connections to it pass nothing for {LASTS_S:.0f} s, then all of it, late"
)
async def swallowed(scene: Scene) -> None:
    """As a switch that forgets where its ports lead."""
    ways = [link for name, link in scene.installed.links.items() if name.endswith(">redis")]
    for link in ways:
        link.swallow()
    await scene.last(LASTS_S)
    for link in ways:
        await link.heal()
    scene.repaired()
