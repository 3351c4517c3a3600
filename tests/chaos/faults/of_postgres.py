"""Postgres is restarted, moves, has no connection left, is slow, is full."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import asyncpg

from tests.chaos.faults.fault import Scene, fault
from tests.chaos.parts import DatabasePart

LASTS_S = 5.0
DELAY_S = 0.3
JUMPS_S = (-120, 120, -45, 7, 0)
JUMPED_S = 3.0  # seen within two and a half
SEEN_OFF_S_MAX = 1.5
NO_ROOM = "No space left on device"
PANIC = "PANIC:"
REFUSED, REFUSED_S_MAX = 3, 40.0


@fault("postgres restarted", "SIGKILL; started again 2 s later")
async def restarted(scene: Scene) -> None:
    """As a failing machine that comes back."""
    await scene.installed.postgres.kill()
    await scene.last(2.0)
    await scene.installed.postgres.start()
    scene.repaired()


@fault(
    "postgres failed over",
    "SIGKILL to the primary; 1 s later its streaming replica is promoted",
    standby=True,
)
async def failed_over(scene: Scene) -> None:
    """As a failover behind a virtual address. What the primary had told as committed, the replica had on its disk."""
    installed, standby = scene.installed, scene.installed.standby
    assert standby is not None
    await installed.postgres.kill()
    await scene.last(1.0)  # until somebody notices
    await asyncio.to_thread(standby.promote)
    installed.spare.append(installed.postgres.server)
    installed.postgres = DatabasePart("postgres", standby)
    await installed.postgres.start()
    installed.point_to("postgres", standby.port)
    scene.repaired()


@fault("postgres's clock jumps", "-120 s, +120 s, -45 s, +7 s and right again, 3 s each", clocks=True)
async def clock_jumps(scene: Scene) -> None:
    """As a machine whose time is set by two masters that disagree. The jump is seen: now() is asked each time."""
    clock = scene.installed.clocks["postgres"]
    for seconds in JUMPS_S:
        clock.set(seconds)
        await scene.last(JUMPED_S)
        connection = await asyncpg.connect(scene.installed.record_url, timeout=5)
        try:
            seen = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())")
        finally:
            await connection.close()
        if abs(float(seen) - time.time() - seconds) > SEEN_OFF_S_MAX:
            raise AssertionError(
                f"Postgres was to be {seconds} s off, and is {float(seen) - time.time():.1f} s"
            )
    scene.repaired()


@fault("postgres out of connections", f"others hold every connection for {LASTS_S:.0f} s; ours were cut")
async def out_of_connections(scene: Scene) -> None:
    """As a neighbour that leaks connections, after a network that broke ours."""
    installed = scene.installed
    ways = [link for name, link in installed.links.items() if name.endswith(">postgres")]
    held: list[asyncpg.Connection[Any]] = []
    try:
        for link in ways:
            await link.refuse()
        for _ in range(10):  # the ends of ours take a moment
            with suppress(asyncpg.TooManyConnectionsError):
                while True:
                    held.append(await asyncpg.connect(installed.postgres.server.url, timeout=5))
            await asyncio.sleep(0.05)
        scene.notes.append(f"others held {len(held)} connections")
        for link in ways:
            await link.heal()
        await scene.last(LASTS_S)
    finally:
        for each in held:
            each.terminate()
    scene.repaired()


@fault("postgres slow", f"{DELAY_S} s more for each packet, both ways, for {2 * LASTS_S:.0f} s")
async def slow(scene: Scene) -> None:
    """As a network between continents."""
    ways = [link for name, link in scene.installed.links.items() if name.endswith(">postgres")]
    for link in ways:
        link.delay_s = DELAY_S
    await scene.last(2 * LASTS_S)
    for link in ways:
        await link.heal()
    scene.repaired()


@fault(
    "postgres full",
    f"no room on its disk, until 3 statements were refused and for {LASTS_S:.0f} s",
    small_disk=True,
)
async def full(scene: Scene) -> None:
    """Every table that has to grow is refused; a server that gives up is started again once there is room."""
    disk, postgres = scene.installed.small_disk, scene.postgres
    assert disk is not None
    disk.fill()
    async with asyncio.timeout(REFUSED_S_MAX):  # an installation that never noticed proves nothing
        while postgres.told(NO_ROOM) < REFUSED and postgres.running:
            await asyncio.sleep(0.1)
            disk.fill()  # what was let go of meanwhile
    await scene.last(LASTS_S)
    scene.notes.append(f"the server's role was told {postgres.told(NO_ROOM)} times: {NO_ROOM}")
    disk.free()
    if not postgres.running:
        scene.notes.append("it ended itself, and was started again")
        await scene.installed.postgres.start()
    scene.repaired()


@fault(
    "postgres's log full",
    "no room for its write-ahead log: it ends itself; room again and started",
    small_disk=True,
)
async def log_full(scene: Scene) -> None:
    """Postgres cannot commit what it cannot log, and ends with PANIC rather than forget."""
    disk = scene.installed.small_disk
    assert disk is not None
    disk.fill()
    connection = await asyncpg.connect(scene.installed.record_url, timeout=5)
    async with asyncio.timeout(REFUSED_S_MAX):
        while scene.postgres.running and PANIC not in await _said(scene):
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await connection.fetchval(
                    "SELECT pg_logical_emit_message(true, 'ballast', repeat('x', 1000000))"
                )
            await asyncio.sleep(0.02)
    connection.terminate()
    await scene.last(1.0)
    scene.notes.append(next(line for line in (await _said(scene)).splitlines() if PANIC in line)[:200])
    disk.free()
    await scene.installed.postgres.kill()
    await scene.installed.postgres.start()
    scene.repaired()


async def _said(scene: Scene) -> str:
    return await asyncio.to_thread(scene.postgres.log.read_text, errors="replace")


@fault("both databases gone", "SIGKILL to both; Valkey back after 1 s, Postgres after 4 s")
async def both(scene: Scene) -> None:
    """As a rack without power. Gates stay shut until the record can say what a Valkey that was restarted lacks."""
    installed = scene.installed
    await asyncio.gather(installed.valkey.kill(), installed.postgres.kill())
    await scene.last(1.0)
    await installed.valkey.start()
    await scene.last(3.0)
    await installed.postgres.start()
    scene.repaired()
