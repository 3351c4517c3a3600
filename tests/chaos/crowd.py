"""All clients of a run: they begin together, and at the end each finishes what it has begun."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.chaos.buyers import Buyer
from tests.chaos.client import PATIENCE_S, Client, Day
from tests.chaos.gates import WAYS, Gate, Wallets
from tests.chaos.gateway import PayingGateway
from tests.chaos.installation import Installation
from tests.chaos.scene import GATES, Scene, set_scene

BUYERS = tuple(f"buyer-{number}" for number in range(6))
FINISH_S_MAX = 60.0  # after all is healed: for what is under way


class Crowd:
    """Buyers, their gateway, and gates."""

    def __init__(self, day: Day, scene: Scene, secret: bytes, ways: dict[str, int]) -> None:
        self.day = day
        self.wallets = Wallets(scene)
        self.gateway = PayingGateway(day, "gateway", secret)
        self.buyers = [Buyer(day, name, scene, self.gateway, self.wallets.put) for name in BUYERS]
        self.gates = [
            Gate(day, f"gate-{number}", scene.gates[number], self.wallets, ways) for number in range(GATES)
        ]
        self._working: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Everybody works from now on."""
        working = [*(each.work() for each in self.buyers), *(each.work() for each in self.gates)]
        self._working = [asyncio.create_task(each) for each in working]

    def check(self) -> None:
        """Raises what a client failed with: a fault of the harness, not of the server."""
        for task in self._working:
            if task.done() and not self.day.closing.is_set():
                task.result()

    async def leave(self) -> None:
        """At once, whatever is under way: when the harness has failed, or everybody has finished."""
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)

    async def finish(self) -> None:
        """Nothing new; what is under way is insisted on until it is definite, for a while."""
        self.day.closing.set()
        finishing = asyncio.gather(*self._working)
        await asyncio.wait([finishing], timeout=FINISH_S_MAX)
        self.day.over.set()
        await finishing
        await self.gateway.settle()
        clients: tuple[Client, ...] = (self.gateway, *self.buyers, *self.gates)
        for client in clients:
            client.diary.close()


@asynccontextmanager
async def gather(
    installed: Installation, seed: int, *, patience_s: float = PATIENCE_S, ways: dict[str, int] = WAYS
) -> AsyncIterator[Crowd]:
    """Set the scene, and bring everybody there. Their diaries lie in `folder`/diaries."""
    folder: Path = installed.folder / "diaries"
    folder.mkdir()  # noqa: ASYNC240 - before anything runs
    scene = await set_scene(installed, list(BUYERS))
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    async with aiohttp.ClientSession(connector=connector) as session:
        crowd = Crowd(Day(installed.doors, folder, seed, session, patience_s), scene, installed.secret, ways)
        try:
            yield crowd
        finally:
            await crowd.leave()
