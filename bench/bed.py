"""The test bed of a scenario: embedded servers, the machine's header, and the servers that lanes are compared with."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import machine
from bench.machine import Pinning
from bench.processes import running
from bench.report import Report
from bench.site import Site, fresh_environment, open_site
from server.dev.embedded import EmbeddedServers

APPENDFSYNC: Final = "always"


@dataclass(frozen=True)
class Bed:
    """What every scenario starts from."""

    servers: EmbeddedServers
    folder: Path
    pinning: Pinning

    def report(self, scenario: str) -> Report:
        """An empty report with its header."""
        return Report(
            scenario=scenario,
            at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            machine=machine.look(self.folder, self.pinning),
            ack="fsync",
            appendfsync=APPENDFSYNC,
        )

    @asynccontextmanager
    async def site(
        self, *, tickets: int, uses: int = 4, for_sale: int = 1_000_000, keep: int | None = None
    ) -> AsyncIterator[Site]:
        """An installation with so many tickets, see `open_site`."""
        environment = fresh_environment(self.servers, self.folder)
        async with open_site(
            self.servers, environment, self.pinning, tickets=tickets, uses=uses, for_sale=for_sale, keep=keep
        ) as site:
            yield site

    async def compared(
        self, stack: AsyncExitStack, name: str, *words: str, environment: dict[str, str] | None = None
    ) -> tuple[str, dict[str, list[int]]]:
        """Start `python -m bench.NAME`, pinned as the product's server: (its address, its processes by name)."""
        process, said = await stack.enter_async_context(
            running(("-m", f"bench.{name}", *words), environment or {}, self.pinning.server, event="serving")
        )
        return said["address"], {name: [process.pid], "load": [os.getpid()]}
