"""The socket lane: a WebSocket for each gate, many scans under way at once, answers as they are decided.

A frame is what `POST /venue/scan` takes, with its `scan_id`; an answer is what that would have answered, or an error
with the `scan_id`. Frames go to the same admission and the same batcher, so verdicts and records are the same.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec
import structlog
from aiohttp import WSMsgType, hdrs, web

from server.domain.catalog import Operator
from server.domain.errors import ErrorCode, Refusal
from server.domain.redemption import Decision, Undecided
from server.limits import (
    DIRECTORY_POLL_S,
    STREAM_CLOSE_S_MAX,
    STREAM_FRAME_BYTES_MAX,
    STREAM_PING_S,
    STREAM_SCANS_MAX,
)
from server.telemetry import GATE_SOCKETS
from server.web import appkeys
from server.web.auth import authorization, staff
from server.web.body import decode_by
from server.web.deadline import patience_left_s, patience_s
from server.web.errors import error_body, mark, new_id
from server.web.scanning import ScanId, ScanRequest, presented, read_scan, scan_answer
from server.web.slow_clients import PatientConnection

PATH: Final = "/venue/stream"
PROTOCOL: Final = "gateline.v1"
TOKEN_ENDED: Final = 4401  # the numbers of HTTP, in the range that is free for applications (RFC 6455, 7.4.2)
OPERATOR_ENDED: Final = 4403
STOPPING: Final = 1001
NOT_TEXT: Final = 1003
_encode: Final = msgspec.json.Encoder().encode
_log: Final = structlog.get_logger("http")


class _Named(msgspec.Struct):
    """What of a bad frame its answer can name."""

    scan_id: ScanId | None = None


_naming: Final = msgspec.json.Decoder(_Named).decode


class Gates:
    """The open sockets of a process."""

    def __init__(self) -> None:
        self._open: set[GateSocket] = set()

    async def serve(self, socket: GateSocket, request: web.Request) -> None:
        """One gate, from its coming to its going."""
        self._open.add(socket)
        GATE_SOCKETS.inc()
        try:
            await socket.serve(request)
        finally:
            self._open.discard(socket)
            GATE_SOCKETS.dec()

    async def watch(self) -> None:
        """For ever: send away, within a second, those whose token or account has ended, also while they idle."""
        while True:
            await asyncio.sleep(DIRECTORY_POLL_S)
            for socket in list(self._open):
                socket.look()

    async def stop(self) -> None:
        """Answer what is under way, and send every gate away: it finds another process under the same address."""
        await asyncio.gather(*(socket.leave(STOPPING, "STOPPING") for socket in list(self._open)))


class GateSocket:
    """One gate's socket: reading, judging and answering.

    A scan is under way from its frame until its answer is written, so a gate that does not read is not read either.
    """

    def __init__(self, app: web.Application, authorization: str | None, patience_s: float | None) -> None:
        """Raises Refusal for a token that is none, or of nobody who may scan."""
        self.socket = web.WebSocketResponse(
            timeout=STREAM_CLOSE_S_MAX,
            heartbeat=STREAM_PING_S,
            protocols=(PROTOCOL,),
            compress=False,
            max_msg_size=STREAM_FRAME_BYTES_MAX,
            decode_text=False,
        )
        self._admission = app[appkeys.ADMISSION]
        self._directory = app[appkeys.DIRECTORY]
        self._tally = app[appkeys.STREAM_TALLY]
        self._tokens = app[appkeys.TOKENS]
        self._keys = self._tokens.keys
        self._authorization = authorization
        self._caller = self._tokens.verify(authorization)
        self._patience_s = patience_s  # for each frame
        self._seen = self._directory.current
        self._operator = staff(self._caller, self._seen)
        self._under_way = 0
        self._room = asyncio.Event()
        self._answers: list[bytes] = []
        self._answered = asyncio.Event()
        self._gone = False  # nothing can be written any more
        self._leaving: asyncio.Task[None] | None = None
        self._slow: set[asyncio.Task[None]] = set()  # scans of tickets that Redis does not know

    async def serve(self, request: web.Request) -> None:
        """Until the gate goes, or is sent away."""
        await self.socket.prepare(request)
        connection = request.protocol
        assert isinstance(connection, PatientConnection)  # noqa: S101
        writing = asyncio.create_task(self._write(request))
        try:
            async for message in self.socket:
                if message.type is not WSMsgType.TEXT:
                    self._send_away(NOT_TEXT, "NOT_TEXT")
                elif self._leaving is None:
                    self._take(message.data, connection.arrived)
                while self._under_way >= STREAM_SCANS_MAX and not self._gone:
                    self._room.clear()
                    await self._room.wait()  # TCP holds the gate back meanwhile
        finally:
            writing.cancel()
            ending = [writing, *self._slow, *([self._leaving] if self._leaving else [])]
            for task in self._slow:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    def look(self) -> None:
        """Send the gate away when its token, the key of its token, or its operator's account has ended."""
        if self._tokens.keys is not self._keys:
            self._keys = self._tokens.keys
            try:
                self._tokens.verify(self._authorization)
            except Refusal as refusal:
                self._send_away(TOKEN_ENDED, refusal.code.name)
                return
        if time.time() >= self._caller.expires_at_s:
            self._send_away(TOKEN_ENDED, ErrorCode.TOKEN_EXPIRED.name)
        elif self._directory.current is not self._seen:
            self._seen = self._directory.current
            try:
                self._operator = staff(self._caller, self._seen)
            except Refusal as refusal:
                self._send_away(OPERATOR_ENDED, refusal.code.name)

    async def leave(self, code: int, reason: str) -> None:
        """Take nothing new, answer what is under way, close. What is sent meanwhile can be sent again elsewhere."""
        self._send_away(code, reason)
        assert self._leaving is not None  # noqa: S101
        await asyncio.wait([self._leaving])

    def _send_away(self, code: int, reason: str) -> None:
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._close(code, reason))

    async def _close(self, code: int, reason: str) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(STREAM_CLOSE_S_MAX):
                while self._under_way and not self._gone:
                    await asyncio.sleep(0.01)
        await self.socket.close(code=code, message=reason.encode())

    # --- one scan ------------------------------------------------------------------------------------------------

    def _take(self, frame: bytes, arrived: float) -> None:
        started = time.perf_counter()
        self._under_way += 1
        if self._directory.current is not self._seen:
            self.look()
            if self._leaving is not None:
                self._under_way -= 1
                return
        try:
            asked = decode_by(read_scan, frame)
            if asked.scan_id is None:
                raise Refusal(ErrorCode.VALIDATION_FAILED, "Object missing required field `scan_id`")
            told = partial(self._told, started, asked, arrived)
            left_s = patience_left_s(self._patience_s, arrived)
            self._admission.ask(presented(asked, asked.scan_id), self._operator, told, left_s)
        except Refusal as refusal:
            self._refuse(started, _named(frame), refusal)

    def _told(
        self, started: float, asked: ScanRequest, arrived: float, answer: str | Undecided | BaseException
    ) -> None:
        scan_id = asked.scan_id or ""
        if isinstance(answer, str):
            decision = Decision.parse(answer)
            self._tally.verdict(decision.verdict)
            self._answer(started, 200, _encode(scan_answer(decision, scan_id)))
        elif isinstance(answer, Undecided):
            task = asyncio.create_task(self._admit(started, asked, arrived))
            self._slow.add(task)
            task.add_done_callback(self._slow.discard)
        else:
            self._refuse(started, scan_id, answer)

    async def _admit(self, started: float, asked: ScanRequest, arrived: float) -> None:
        """The whole of admission, for what the gate could not decide at once. Nothing was decided: asked again."""
        scan_id = asked.scan_id or ""
        try:
            left_s = patience_left_s(self._patience_s, arrived)
            decision = await self._admission.admit(presented(asked, scan_id), self._operator, left_s)
        except Exception as fault:
            self._refuse(started, scan_id, fault)
        else:
            self._answer(started, 200, _encode(scan_answer(decision, scan_id)))

    def _refuse(self, started: float, scan_id: str | None, fault: BaseException) -> None:
        if isinstance(fault, Refusal):
            refusal = Refusal(fault.code, fault.message, scan_id=scan_id)
        else:
            _log.error("request_failed", exc_info=fault)
            refusal = Refusal(ErrorCode.INTERNAL, scan_id=scan_id)
        self._answer(started, refusal.code.status, error_body(refusal, new_id()))

    def _answer(self, started: float, status: int, body: bytes) -> None:
        self._tally.request(status, time.perf_counter() - started)
        self._answers.append(body)
        self._answered.set()

    async def _write(self, request: web.Request) -> None:
        """Write answers as they come; those that came together go together."""
        try:
            while True:
                await self._answered.wait()
                self._answered.clear()
                answers, self._answers = self._answers, []
                # One write for all; aiohttp's would be one for each.
                transport = request.transport
                if transport is None or self.socket.closed:
                    return
                transport.write(b"".join(map(_framed, answers)))
                await request.protocol._drain_helper()
                self._under_way -= len(answers)
                self._room.set()
        except ConnectionError:
            pass  # the gate has gone; what was decided stands, and is told to a retry
        finally:
            self._gone = True
            self._room.set()


def _framed(text: bytes) -> bytes:
    """A text frame of a server: not masked (RFC 6455, 5.2)."""
    length = len(text)
    return b"\x81" + (bytes((length,)) if length < 126 else b"\x7e" + length.to_bytes(2, "big")) + text


def _named(frame: bytes) -> str | None:
    """The scan_id of a bad frame, where it has one."""
    try:
        return _naming(frame).scan_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


GATES: Final = web.AppKey("gates", Gates)


async def stream(request: web.Request, caller: Operator, body: None) -> web.WebSocketResponse:
    """Judge scans over a WebSocket: many under way at once.

    Each text frame is the body of `POST /venue/scan`, its `scan_id` required. Each answer is a text frame: what
    `POST /venue/scan` would have answered, verdict or error, always with the `scan_id`, as it is decided: a gate
    matches them by it. `X-Deadline-Ms` of the handshake counts for each frame. Past 64 scans under way the server reads
    on when answers are taken. It pings every 20 s.

    It closes with 4401 when the token or its key ends, 4403 when the operator is disabled, 1001 when the server stops.
    What was not answered then is sent again, with the same `scan_id`, on a new socket or by `POST /venue/scan`.

    A browser, which cannot set the Authorization header here, offers the subprotocols `gateline.v1` and
    `bearer.<token>`.
    """
    patience = patience_s(request.headers)
    if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
        raise Refusal(ErrorCode.UPGRADE_REQUIRED)
    app = request.app
    socket = GateSocket(app, authorization(request.headers), patience)
    mark(request, socket.socket)
    await app[GATES].serve(socket, request)
    return socket.socket
