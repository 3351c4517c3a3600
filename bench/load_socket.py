"""A raw WebSocket client: a socket per gate, frames encoded ahead, several under way on each.

Frames that are due together go out in one write. Answers come as they are decided and are matched by the last digits of
their scan_id. Closed loop: each gate keeps its window of scans under way. Open loop: scans are due by a schedule; one
whose gate has its window full waits in that gate's line with its clock running.
"""

from __future__ import annotations

import asyncio
import base64
import os
from array import array
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Final, cast
from urllib.parse import urlsplit

from bench.answers import CLOSE, PING, PONG, TEXT_FRAME, AnswerError, client_frame, read_frames
from bench.load_http import ANSWERS_S_MAX, TICK_S
from bench.requests import SCAN_ID_CHARS, SCAN_ID_DIGITS
from bench.run import Run, Work

OPEN_S_MAX: Final = 10.0
_SCAN_ID: Final = b'"scan_id":"'
_DIGITS_AT: Final = len(_SCAN_ID) + SCAN_ID_CHARS - SCAN_ID_DIGITS
_DIGITS_END: Final = len(_SCAN_ID) + SCAN_ID_CHARS
_VERDICT: Final = b'"result":"'
DECIDED, UNDECIDED = 200, 500  # as statuses of HTTP: a frame with a verdict, and one with an error


class NotServedError(Exception):
    """The server does not know this lane."""


class _Gate(asyncio.Protocol):
    """One socket."""

    def __init__(self, load: SocketLoad) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._pending = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.line: deque[int] = deque()  # requests of this gate that are due and not sent
        self.under_way = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so

    def write(self, data: bytes) -> None:
        """Send."""
        assert self._transport is not None  # noqa: S101
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        if self._pending:
            data = self._pending + data
        if not self.opened.done():
            self._pending = self._handshake(data)
            return
        end, answers = 0, 0
        for frame in read_frames(data):
            end = frame.end
            if frame.head == TEXT_FRAME:
                answers += 1
                self._load.answered(data, frame.payload, end, now)
            elif frame.head == PING:
                self.write(client_frame(data[frame.payload : end], head=PONG))
            elif frame.head == CLOSE:
                raise AnswerError(f"the server closed a socket: {data[frame.payload : end]!r}")
        self._pending = data[end:]
        if answers:
            self.under_way -= answers
            self._load.went_on(self, answers, now)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(AnswerError("a socket was closed before it was open"))
        self._load.lost(self)

    def close(self) -> None:
        """Close at once: nothing is under way."""
        if self._transport is not None:
            self._transport.abort()

    def _handshake(self, data: bytes) -> bytes:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            return data
        status = head[9:12]
        if status == b"101":
            self.opened.set_result(None)
        elif status == b"404":
            self.opened.set_exception(NotServedError("GET /venue/stream: 404"))
        else:
            self.opened.set_exception(AnswerError(f"the handshake was refused: {head!r}"))
        return rest


class SocketLoad:
    """Gates of one server, each with the bearer token of its operator. One phase at a time."""

    def __init__(self, address: str, path: str, bearers: Sequence[str], window: int) -> None:
        """`window`: how many scans of a gate are under way at most."""
        self._address = address
        self._path = path
        self._bearers = bearers
        self._window = window
        self._gates: list[_Gate] = []
        self._run: Run | None = None
        self._next = 0  # open loop: the first request that is not in any line yet
        self._under_way = 0
        self._paced = False
        self._over = asyncio.Event()

    async def __aenter__(self) -> SocketLoad:
        parts = urlsplit(self._address)
        loop = asyncio.get_running_loop()
        try:
            for bearer in self._bearers:
                _, gate = await loop.create_connection(
                    lambda: _Gate(self), parts.hostname or "", parts.port or 80
                )
                self._gates.append(gate)
                key = base64.b64encode(os.urandom(16)).decode()
                gate.write(
                    f"GET {self._path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
                    f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                    f"Authorization: Bearer {bearer}\r\nUser-Agent: gateline-bench\r\n\r\n".encode()
                )
                async with asyncio.timeout(OPEN_S_MAX):
                    await gate.opened
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for gate in self._gates:
            gate.close()
        await asyncio.sleep(0)

    async def closed(self, work: Work, seconds: float) -> Run:
        """As fast as the answers come, for so long or until the requests are used up."""
        run = self._begin(work, array("d", bytes(8 * len(work))), paced=False)
        run.until = run.began + seconds
        for index, place in enumerate(work.over):
            self._gates[place].line.append(index)
        for gate in self._gates:
            self._send(gate, self._window, perf_counter())
        await self._wait(seconds)
        if not any(gate.line for gate in self._gates):
            run.until = min(run.until, max(run.done))  # used up: the rate is that of the time they lasted
        return run

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
        await self._wait(due[-1])
        return run

    def answered(self, data: bytes, payload: int, end: int, now: float) -> None:
        """One answer: note it at the request that it belongs to."""
        run = self._run
        at = data.find(_SCAN_ID, payload, end)
        if run is None or at < 0:
            raise AnswerError(f"an answer that nobody asked for: {data[payload:end]!r}")
        index = int(data[at + _DIGITS_AT : at + _DIGITS_END])
        if not run.sent[index] or run.done[index]:
            raise AnswerError(f"an answer that nobody asked for: {data[payload:end]!r}")
        run.done[index] = now
        run.status[index] = DECIDED if data.find(_VERDICT, payload, end) >= 0 else UNDECIDED
        run.passed[index] = data.find(run.work.passed, payload, end) >= 0
        if index % run.work.keep_every == 0 or run.status[index] != DECIDED:
            run.kept[index] = data[payload:end]

    def went_on(self, gate: _Gate, answers: int, now: float) -> None:
        """A gate has heard so many answers: more of its scans may go out."""
        run = self._run
        if run is None:
            return
        self._under_way -= answers
        if self._paced:
            self._pump(now)
        elif now < run.until:
            self._send(gate, answers, now)
        if self._under_way == 0 and self._nothing_left(now, run):
            self._over.set()

    def lost(self, gate: _Gate) -> None:
        """The server ended a socket: what was under way on it stays unanswered."""
        if self._run is None:
            return
        self._run.lost += 1
        self._under_way -= gate.under_way
        gate.under_way = 0
        gate.line.clear()
        if self._under_way == 0:
            self._over.set()

    def _nothing_left(self, now: float, run: Run) -> bool:
        if self._paced:
            return self._next >= len(run.work) and not any(gate.line for gate in self._gates)
        return now >= run.until or not any(gate.line for gate in self._gates)

    def _begin(self, work: Work, due: array[float], *, paced: bool) -> Run:
        self._run = run = Run(work, due)
        self._next = self._under_way = 0
        self._paced = paced
        for gate in self._gates:
            gate.line.clear()
            gate.under_way = 0
        self._over.clear()
        run.began = perf_counter()
        return run

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds + ANSWERS_S_MAX):
                await self._over.wait()
        except TimeoutError:
            pass  # what is unanswered is counted as such
        finally:
            self._run = None

    def _send(self, gate: _Gate, number: int, now: float) -> None:
        """Send up to so many of a gate's line in one write."""
        run = self._run
        number = min(number, len(gate.line))
        if run is None or not number:
            return
        indices = [gate.line.popleft() for _ in range(number)]
        for index in indices:
            run.sent[index] = now
            if not self._paced:
                run.due[index] = run.noticed[index] = now
        gate.under_way += number
        self._under_way += number
        requests = run.work.requests
        gate.write(b"".join([requests[index] for index in indices]))

    def _pump(self, now: float) -> None:
        """Put what is due into the lines of its gates, and send what their windows have room for."""
        run = self._run
        if run is None:
            return
        due, over, number = run.due, run.work.over, len(run.work)
        while self._next < number and due[self._next] <= now:
            run.noticed[self._next] = now
            self._gates[over[self._next]].line.append(self._next)
            self._next += 1
        for gate in self._gates:
            if gate.line and gate.under_way < self._window:
                self._send(gate, self._window - gate.under_way, now)
