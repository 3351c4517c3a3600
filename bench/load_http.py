"""A raw HTTP client: pre-encoded requests over kept-alive connections, one under way on each.

Closed loop: every connection sends its next request when the last is answered: that finds the peak. Open loop: requests
are due by a schedule that does not wait for answers, and one that finds no free connection waits in line with its clock
running: that shows what a stall does to those who come meanwhile.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Final, cast
from urllib.parse import urlsplit

from bench.answers import AnswerError, read_http
from bench.run import Run, Work

ANSWERS_S_MAX: Final = 15.0  # after the last request: longer than any bound of the server
ODD: Final = 300  # answers from this status on are kept: they are to be told of
TICK_S: Final = 0.001  # uvloop counts in milliseconds


class _Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self, load: HttpLoad) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._pending = b""
        self.index = -1  # the request under way; -1: none

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so

    def send(self, index: int, request: bytes) -> None:
        """Send a request; the connection must have none under way."""
        self.index = index
        assert self._transport is not None  # noqa: S101
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        if self._pending:
            data = self._pending + data
            self._pending = b""
        answer = read_http(data)
        if answer is None:
            self._pending = data
            return
        index, self.index = self.index, -1
        if answer.end != len(data) or index < 0:
            raise AnswerError(f"bytes that nobody asked for: {data[answer.end :][:80]!r}")
        self._load.answered(self, index, now, answer.status, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)

    def close(self) -> None:
        """Close at once: nothing is under way."""
        if self._transport is not None:
            self._transport.abort()


class HttpLoad:
    """So many connections to one server. One phase at a time."""

    def __init__(self, address: str, connections: int, patience_s: float = math.inf) -> None:
        """`patience_s`: a request of the open loop that finds no connection for so long is not sent any more."""
        self._patience_s = patience_s
        parts = urlsplit(address)
        self._place = (parts.hostname or "", parts.port or 80)
        self._number = connections
        self._connections: list[_Connection] = []
        self._free: deque[_Connection] = deque()
        self._run: Run | None = None
        self._next = self._noticed = 0
        self._paced = False
        self._open = 0  # requests under way
        self._over = asyncio.Event()

    async def __aenter__(self) -> HttpLoad:
        loop = asyncio.get_running_loop()
        for _ in range(self._number):
            _, connection = await loop.create_connection(lambda: _Connection(self), *self._place)
            self._connections.append(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()
        await asyncio.sleep(0)

    async def closed(self, work: Work, seconds: float) -> Run:
        """As fast as the answers come, for so long or until the requests are used up."""
        run = self._begin(work, array("d", bytes(8 * len(work))), paced=False)
        run.until = run.began + seconds
        for connection in self._connections[: len(work)]:
            self._send_next(connection, perf_counter())
        return await self._finish(run, seconds)

    async def paced(self, work: Work, due: Sequence[float]) -> Run:
        """Each request when it is due: `due` has seconds from the start, one per request, in order."""
        began = perf_counter() + 0.05
        run = self._begin(work, array("d", (began + each for each in due)), paced=True)
        run.began, run.until = began, began + due[-1]
        loop = asyncio.get_running_loop()

        def tick() -> None:
            self._pump(perf_counter())
            if self._next < len(work):
                loop.call_later(TICK_S, tick)

        tick()
        return await self._finish(run, due[-1])

    def answered(self, connection: _Connection, index: int, now: float, status: int, data: bytes) -> None:
        """An answer came: note it, and go on."""
        run = self._run
        if run is None:
            raise AnswerError("an answer after the end of its phase")
        run.done[index] = now
        run.status[index] = status
        work = run.work
        run.passed[index] = data.count(work.passed)
        if index % work.keep_every == 0 or status >= ODD:
            run.kept[index] = data
        self._open -= 1
        if self._paced:
            self._free.append(connection)
            self._pump(now)
        elif now < run.until:
            self._send_next(connection, now)
        if self._open == 0 and (self._next >= len(work) or now >= run.until):
            self._over.set()

    def lost(self, connection: _Connection) -> None:
        """The server ended a connection: what was under way on it stays unanswered."""
        if self._run is None:
            return
        self._run.lost += 1
        if connection.index >= 0:
            self._open -= 1
        if connection in self._free:
            self._free.remove(connection)
        if self._open == 0:
            self._over.set()

    def _begin(self, work: Work, due: array[float], *, paced: bool) -> Run:
        self._run = run = Run(work, due)
        self._next = self._noticed = self._open = 0
        self._paced = paced
        self._free = deque(self._connections)
        self._over.clear()
        run.began = perf_counter()
        return run

    async def _finish(self, run: Run, seconds: float) -> Run:
        try:
            async with asyncio.timeout(seconds + ANSWERS_S_MAX):
                await self._over.wait()
        except TimeoutError:
            pass  # what is unanswered is counted as such
        finally:
            self._run = None
        if not self._paced and self._next >= len(run.work):
            run.until = min(run.until, max(run.done))  # used up: the rate is that of the time they lasted
        return run

    def _send_next(self, connection: _Connection, now: float) -> None:
        run, index = self._run, self._next
        if run is None or index >= len(run.work):
            return
        self._next = index + 1
        self._open += 1
        run.due[index] = run.noticed[index] = run.sent[index] = now
        connection.send(index, run.work.requests[index])

    def _pump(self, now: float) -> None:
        """Send what is due, as long as connections are free."""
        run, free = self._run, self._free
        if run is None:
            return
        due, number = run.due, len(run.work)
        while self._noticed < number and due[self._noticed] <= now:
            run.noticed[self._noticed] = now
            self._noticed += 1
        while free and self._next < self._noticed:
            index = self._next
            self._next = index + 1
            if now - due[index] > self._patience_s:
                continue
            self._open += 1
            run.sent[index] = now
            free.popleft().send(index, run.work.requests[index])
