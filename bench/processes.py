"""Processes under test: real `gateline` commands, and the servers that they are compared with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bench.machine import pin
from server.dev.process import TETHER

ROOT: Final = Path(__file__).resolve().parents[1]
GATELINE: Final = ("-m", "server.cli")
_START_S_MAX: Final = 60.0
_STOP_S_MAX: Final = 45.0  # longer than the server's own bound for leaving
_LOG_LINES_KEPT: Final = 200
_OURS: Final = ("GATELINE_", "REDIS_URL", "DATABASE_URL", "PROMETHEUS_")


class ProcessError(RuntimeError):
    """A process did not start, or failed; the message has what it said."""


class ServerProcess:
    """A Python process and its JSON log; it ends when we do, however we end."""

    def __init__(self, words: tuple[str, ...], process: asyncio.subprocess.Process) -> None:
        self._words = words
        self._process = process
        self._lines: list[str] = []
        self._said = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, words: tuple[str, ...], environment: Mapping[str, str], cores: list[int]
    ) -> ServerProcess:
        """`python WORDS` at the top of the repository, on these cores, with these settings and no others of ours."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        tie = [
            "-I",
            "-S",
            str(TETHER),
            str(os.getpid()),
            str(int(signal.SIGTERM)),
            "-1",
            "-1",
            sys.executable,
        ]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *tie,
            *words,
            cwd=ROOT,
            env={**clean, **environment},
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        pin(process.pid, cores)
        return cls(words, process)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def until(self, event: str) -> dict[str, Any]:
        """Wait for this event in the log. Raises ProcessError when the process ends before, or says nothing."""
        try:
            async with asyncio.timeout(_START_S_MAX):
                while True:
                    for line in self._lines:
                        fields = _fields(line)
                        if fields.get("event") == event:
                            return fields
                    if self._reading.done():
                        raise self._fault(f"ended without saying {event!r}")
                    self._said.clear()
                    said = asyncio.create_task(self._said.wait())
                    await asyncio.wait([said, self._reading], return_when=asyncio.FIRST_COMPLETED)
                    said.cancel()
        except TimeoutError:
            raise self._fault(f"did not say {event!r} in {_START_S_MAX:.0f} s") from None

    async def stop(self) -> None:
        """SIGTERM, and wait. Raises ProcessError when it does not end well."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_S_MAX):
                status = await self._process.wait()
                await self._reading
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise self._fault("did not end when told to, and was killed") from None
        if status not in (0, -signal.SIGTERM):
            raise self._fault(f"ended with status {status}")

    def complaints(self) -> list[str]:
        """What was logged as an error, and what was no log line at all."""
        return [
            line for line in self._lines if _fields(line).get("level") not in ("debug", "info", "warning")
        ]

    def _fault(self, what: str) -> ProcessError:
        return ProcessError(f"`{' '.join(self._words)}` {what}. Its log:\n" + "\n".join(self._lines[-20:]))

    async def _read(self) -> None:
        assert self._process.stderr is not None  # noqa: S101
        async for raw in self._process.stderr:
            if len(self._lines) < _LOG_LINES_KEPT:
                self._lines.append(raw.decode(errors="replace").rstrip())
            self._said.set()
        self._said.set()


@asynccontextmanager
async def running(
    words: tuple[str, ...], environment: Mapping[str, str], cores: list[int], *, event: str
) -> AsyncIterator[tuple[ServerProcess, dict[str, Any]]]:
    """A process that has said `event`; yields it with what it said. It is stopped at the end."""
    process = await ServerProcess.start(words, environment, cores)
    try:
        yield process, await process.until(event)
    finally:
        await process.stop()


async def output(words: tuple[str, ...], environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a `gateline` command to its end: (exit status, what it printed, what it complained of)."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *GATELINE,
        *words,
        cwd=ROOT,
        env={**clean, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, complained = await process.communicate()
    return process.returncode or 0, printed.decode(), complained.decode(errors="replace")


def _fields(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
