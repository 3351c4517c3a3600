"""What the attacked process holds, seen from outside and told by itself: memory, files, connections, tasks, its log."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import msgspec
from yarl import URL

from tests.web.process import Process

COUNT_S_MAX = 20.0
SETTLE_S_MAX = 20.0  # for connections that were left to end: a body is waited for for 10 s
_ESTABLISHED, _CLOSE_WAIT = "01", "08"
# What is logged when something failed that no one expected. An alert is told on purpose, also of what a stranger sent.
_FAILED = frozenset({"request_failed", "answer_not_told", "answer_failed"})


class Held(msgspec.Struct, frozen=True):
    """What a process holds at a quiet moment."""

    rss_bytes: int
    files: int
    tasks: int
    blocks: int
    malloc_bytes: int


class Watch:
    """Looks at one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._port = URL(process.address).port or 0
        self._read = 0  # lines of the log that were looked at

    async def held(self, connections: int) -> Held:
        """What it holds once no more than so many connections are open, or SETTLE_S_MAX is over."""
        try:
            async with asyncio.timeout(SETTLE_S_MAX):
                while self.connections() > connections:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass  # what is left is told by `connections`
        told = await self._told()
        return Held(
            rss_bytes=self.rss_bytes(),
            files=self._files(),
            tasks=told["tasks"],
            blocks=told["blocks"],
            malloc_bytes=told["malloc_bytes"],
        )

    def rss_bytes(self) -> int:
        """What of it is in memory."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _files(self) -> int:
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def connections(self) -> int:
        """Connections to its address that it holds open."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
        port = f":{self._port:04X}"
        return sum(1 for row in rows if row[1].endswith(port) and row[3] in (_ESTABLISHED, _CLOSE_WAIT))

    async def _told(self) -> dict[str, int]:
        before = sum('"counted"' in line for line in self._process.lines)
        os.kill(self._process.pid, signal.SIGUSR1)
        async with asyncio.timeout(COUNT_S_MAX):
            while True:
                counted = [line for line in self._process.lines if '"counted"' in line]
                if len(counted) > before:
                    told: dict[str, int] = msgspec.json.decode(counted[-1])
                    return told
                await asyncio.sleep(0.02)

    def complaints(self) -> list[str]:
        """Lines of the log since the last look that speak of a failure, or are none."""
        found = []
        lines = self._process.lines
        for line in lines[self._read :]:
            try:
                told = msgspec.json.decode(line)
            except msgspec.DecodeError:
                found.append(line)
                continue
            if told.get("event") in _FAILED or "exception" in told or "Traceback" in line:
                found.append(line)
        self._read = len(lines)
        return found


def failures_counted(metrics: str) -> int:
    """Answers of 5xx, but for 503, that the server itself counted."""
    found = re.findall(
        r'^gateline_http_requests_total\{[^}]*status="5(\d\d)"[^}]*\} ([\d.e+]+)$', metrics, re.MULTILINE
    )
    return sum(int(float(number)) for status, number in found if status != "03")
