"""Real `gateline` processes, started, stopped and killed as an operator or a failing machine would."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from server.app import open_parts
from server.config import Config
from server.hot.backlog import Backlog
from tests.road import PATIENCE_S, Road

ROOT = Path(__file__).parents[1]
GATELINE = ("-m", "server.cli")


class Process:
    """A Python process of ours and the JSON lines of its log."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.log: list[dict[str, Any]] = []
        self._other: list[str] = []
        self._logged = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, words: tuple[str, ...], environment: Mapping[str, str], *, log_level: str = "warning"
    ) -> Process:
        """`python WORDS` at the top of the repository, with these settings and no others of ours."""
        foreign = ("GATELINE_", "REDIS_URL", "DATABASE_URL", "PROMETHEUS_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        settings = {**environment, "GATELINE_LOG_LEVEL": log_level}
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, cwd=ROOT, env=clean | settings, stderr=asyncio.subprocess.PIPE
        )
        return cls(process)

    async def until(self, event: str) -> dict[str, Any]:
        """Wait for this event in the log; fails when the process ends before."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for line in self.log:
                    if line.get("event") == event:
                        return line
                assert not self._reading.done(), f"ended without {event}: {self.log} {self._other}"
                self._logged.clear()
                logged = asyncio.create_task(self._logged.wait())
                await asyncio.wait([logged, self._reading], return_when=asyncio.FIRST_COMPLETED)
                logged.cancel()

    async def ended(self) -> int:
        """Wait for its end; the exit status, below zero for the signal that ended it."""
        async with asyncio.timeout(PATIENCE_S):
            status = await self._process.wait()
            await self._reading
        return status

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._process.returncode is not None

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        self._process.send_signal(number)

    def said(self) -> list[str]:
        """What it wrote that was not a log line."""
        return self._other

    async def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.send(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """SIGKILL, as if the machine had failed."""
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()

    def errors(self) -> list[Any]:
        """What was logged as an error, and what was not a log line at all."""
        return [line for line in self.log if line["level"] in ("error", "critical")] + self._other

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            try:
                self.log.append(json.loads(raw))
            except ValueError:
                self._other.append(raw.decode(errors="replace"))
            self._logged.set()


@asynccontextmanager
async def road_to(address: str, config: Config) -> AsyncIterator[Road]:
    """The road to a server in another process; its databases are looked at over connections of our own."""
    async with open_parts(config) as parts, ClientSession(base_url=address) as session:
        backlog = Backlog(
            parts.streams,
            parts.epochs,
            parts.stream_names,
            entries_max=config.stream_entries_max,
            memory_mb_max=0,
        )
        road = Road(session, config, parts, backlog, url=address)
        await road.until_ready()
        yield road


async def until_followed(road: Road, *, product: int | None = None) -> None:
    """Wait until the other process knows this gate and this product: it follows the catalog within a second."""
    gate = await road.gate()
    async with asyncio.timeout(PATIENCE_S):
        while (await road.call("GET", "/venue", headers=gate)).status != 200:
            await asyncio.sleep(0.02)
        while product is not None:
            shown = (await road.call("GET", "/catalog")).json["products"]
            if any(each["id"] == product for each in shown):
                return
            await asyncio.sleep(0.02)
