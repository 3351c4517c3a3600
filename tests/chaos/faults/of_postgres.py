"""Postgres is restarted, moves, has no connection left, is slow, is full."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import suppress
from typing import Any

import asyncpg

from server.dev.embedded_postgres import EmbeddedPostgres
from server.dev.embedded_server import free_port
from server.dev.postgres_home import open_home
from tests.chaos.faults.fault import Scene, fault
from tests.chaos.parts import DatabasePart

LASTS_S = 5.0
DELAY_S = 0.3


@fault("postgres restarted", "SIGKILL; started again 2 s later")
async def restarted(scene: Scene) -> None:
    """As a failing machine that comes back."""
    await scene.installed.postgres.kill()
    await scene.last(2.0)
    await scene.installed.postgres.start()
    scene.repaired()


@fault("postgres failed over", "SIGKILL; another server is started from its disk, at another address")
async def failed_over(scene: Scene) -> None:
    """As a machine that takes the dead one's volume over. (The embedded server lets nobody stream from it.)"""
    installed = scene.installed
    old = installed.postgres.server
    assert isinstance(old, EmbeddedPostgres) and old._home is not None
    source = old._home.folder
    await installed.postgres.kill()
    standby = EmbeddedPostgres(installed.folder / "standby", port=free_port())
    await asyncio.to_thread(_take_over, source, standby)
    installed.spare.append(old)
    installed.postgres = DatabasePart("postgres", standby)
    await installed.postgres.start()
    installed.point_to("postgres", standby.port)
    scene.repaired()


def _take_over(source: Any, standby: EmbeddedPostgres) -> None:
    standby._data_dir.mkdir(mode=0o755)
    home = open_home(standby._data_dir)
    try:
        command = ["cp", "-a", str(source / "data"), *map(str, source.glob("*password")), str(home.folder)]
        subprocess.run(command, check=True, timeout=60)
        (home.data / "postmaster.pid").unlink(missing_ok=True)
    finally:
        home.release()


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


@fault("postgres full", f"no room on its disk for {LASTS_S:.0f} s", small_disk=True)
async def full(scene: Scene) -> None:
    """Every table that has to grow is refused; a server that gives up is started again once there is room."""
    disk = scene.installed.small_disk
    assert disk is not None
    disk.fill()
    await scene.last(LASTS_S)
    disk.free()
    if not scene.installed.postgres.server.running:
        scene.notes.append("it ended itself, and was started again")
        await scene.installed.postgres.start()
    scene.repaired()


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
