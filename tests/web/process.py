"""`gateline serve` as a process of its own, as production runs it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tests.road import PATIENCE_S


class Process:
    """A running `gateline serve`, and every line that it wrote to standard error."""

    def __init__(self, address: str, lines: list[str], pid: int) -> None:
        self.address = address
        self.lines = lines
        self.pid = pid

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every line read as JSON: fails if one is not."""
        return [msgspec.json.decode(line) for line in self.lines]


@asynccontextmanager
async def gateline(
    environment: dict[str, str], *options: str, module: tuple[str, ...] = ("server.cli",)
) -> AsyncIterator[Process]:
    """The process, when it listens; at the end it is asked to stop, and every line is read."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *module, "serve", *options,
        env={**os.environ, **environment}, stderr=asyncio.subprocess.PIPE, limit=2**22,
    )  # fmt: skip
    assert process.stderr is not None
    stderr = process.stderr
    lines: list[str] = []
    address = ""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not address:
                line = (await stderr.readline()).decode()
                assert line, f"it ended: {lines}"
                lines.append(line)
                address = msgspec.json.decode(line).get("address", "")
        reading = asyncio.create_task(_read(stderr, lines))
        yield Process(address, lines, process.pid)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(process.wait(), reading)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _read(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode())
