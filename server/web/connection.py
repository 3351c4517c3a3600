"""Connections with the express lane in front of aiohttp's own way, see `express.py`.

This stands on a few names of aiohttp's connection that are not its public interface: `_messages` (what was parsed and
not yet handled), `_waiter` (its loop waits on it for the next), `_close` (no more requests). The lock file holds the
version, and the tests hold that both ways answer alike.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EmptyStreamReader, StreamReader
from aiohttp.web_protocol import RequestHandler

from server.domain.errors import ErrorCode, Refusal
from server.domain.redemption import Undecided
from server.limits import BODY_BYTES_MAX, BODY_REST_S_MAX, HELD_BYTES, LINE_BYTES_MAX
from server.web import appkeys
from server.web.deadline import patience_left_s
from server.web.errors import also_where_nothing_is
from server.web.express import Lane, PlainScan
from server.web.line import cost_of, is_scan
from server.web.scanning import presented
from server.web.slow_clients import PatientConnection, PatientRunner, PatientServer

_log: Final = structlog.get_logger("http")


class ScanConnection(PatientConnection):
    """A connection of aiohttp's with the express lane in front.

    One scan of a connection is under way at a time, since HTTP answers in order. Its message stays the first of
    aiohttp's own bounded queue until it is answered, and what comes behind it waits there.
    """

    __slots__ = ("_answered", "_between", "_came", "_held", "_lane", "_line", "_rest_due", "_under_way")

    def __init__(self, lane: Lane, manager: PatientServer, **options: Any) -> None:
        super().__init__(manager, **options)
        self._lane = lane
        self._line = lane.line
        self._between = True  # as far as we know, no message is half parsed: all came one by one, each whole
        self._held = b""  # what came while this connection stands in line
        self._came = 0.0  # when it began to stand there, by the loop's clock; 0.0: it does not
        self._under_way = False
        self._rest_due: asyncio.TimerHandle | None = None  # while a part of a body is waited for
        self._answered: asyncio.Event | None = None  # set when a stop waits for the answer

    def data_received(self, data: bytes) -> None:
        """Take what came now, or, when others brought enough for this turn of the loop, stand in line with it."""
        if not data:  # aiohttp goes on with what its parser kept
            self._parse(data)
            return
        if self._came:
            self._hold(data)
            return
        scans = self._upgraded or is_scan(data)
        cost = cost_of(data, scans=scans)
        now = self._loop.time()
        if self._line.admits(cost):
            self.arrived = now
            self._parse(data)
            return
        self._came = now
        self._line.wait(cost, self, scans=scans)
        self._hold(data)

    def _hold(self, data: bytes) -> None:
        """Keep what came until the turn of this connection: little of each, and not too much of all."""
        self._held += data
        self._line.held += len(data)
        if len(self._held) > HELD_BYTES:
            self._pause_transport_reading()
            if self._line.held > LINE_BYTES_MAX:
                self._let_go()
                self._cut("LINE_FULL")

    def turn_away(self) -> bool:
        """Say that there is no time, without parsing; False where something is being answered.

        The connection of what is not plainly one scan ends with that: nobody knows where its next request begins.
        """
        waiter = self._waiter  # aiohttp's loop waits: nothing is being answered
        if waiter is None or waiter.done() or self._messages:
            return False
        if self._close or self._paused or self.transport is None:
            return False
        told = self._lane.refused_unread(self._held) if self._between else None
        if told is None:
            self.transport.write(self._lane.refused_for_good())
            self.force_close()
        else:
            self._hear()
            self.transport.write(told)
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        self._let_go()
        return True

    def _let_go(self) -> bytes:
        """Leave the line: what this connection held there."""
        held, self._held, self._came = self._held, b"", 0.0
        self._line.held -= len(held)
        if not (self._reading_paused or self._buffer_paused):
            self._resume_transport_reading()
        return held

    def come_up(self) -> None:
        """The end of the line."""
        self.arrived, held = self._came, self._let_go()
        if self.transport is None:
            return
        try:
            self._parse(held)
        except Exception:  # as the event loop does with what `data_received` raises; the others go on
            _log.exception("connection_failed")
            self.transport.abort()

    def _parse(self, data: bytes) -> None:
        """Parse, and take what is for the lane; aiohttp's own loop is woken only by what is left to it."""
        waiter, self._waiter = self._waiter, None
        before = len(self._messages)
        try:
            RequestHandler.data_received(self, data)
        finally:
            self._waiter = waiter
        self._note_arrivals(before)
        if self._between and data:
            self._between = self._was_one(data)
        self._look_at_head(data)
        self._go_on()

    def _was_one(self, data: bytes) -> bool:
        """Whether that was one whole message and nothing else, so that the parser stands between two."""
        if len(self._messages) != 1:
            return False
        message, payload = self._messages[0]
        if not isinstance(message, RawRequestMessage) or message.compression or message.chunked:
            return False
        length = 0 if isinstance(payload, EmptyStreamReader) else payload.total_bytes
        return bool(payload.is_eof()) and data.find(b"\r\n\r\n") + 4 + length == len(data)

    def resume_writing(self) -> None:
        """The client reads again: it may have sent more meanwhile."""
        super().resume_writing()
        self._go_on()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has gone. A loop of aiohttp's just woken for a request would ask what is there no more."""
        waiter, loop = self._waiter, self._task_handler
        super().connection_lost(exc)
        if waiter is not None and waiter.done() and loop is not None:
            loop.cancel()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Ends the connection; a scan under way is answered first, since its decision stands."""
        if self._under_way:
            self._answered = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._answered.wait()
        await super().shutdown(timeout)

    def _process_keepalive(self) -> None:
        """A connection with a scan or a body under way is not idle, though aiohttp's loop waits; a deaf one is."""
        if self._messages and not self._paused:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def _go_on(self) -> None:
        """Take the next message if aiohttp's loop waits for one; wake that loop if it is not for the lane."""
        waiter = self._waiter
        if not self._messages or waiter is None or waiter.done() or self._under_way or self._paused:
            return
        message, payload = self._messages[0]
        scan = None
        if self._lane.is_for(message):
            body = _whole(payload)
            if body is None and self._rest_due is None:
                # Head and body often come as two packets: the next one may bring it all.
                self._rest_due = self._loop.call_later(BODY_REST_S_MAX, self._go_on)
                return
            scan = self._lane.read(message, body) if body else None
        self._rest_came()
        if scan is None:
            waiter.set_result(None)
            return
        self._under_way = True
        if self._may_go:
            self.keep()
        try:
            patience_s = patience_left_s(scan.patience_s, self._arrivals[0])
            asked = presented(scan.asked, scan.scan_id)
            self._lane.admission.ask(asked, scan.operator, partial(self._told, scan), patience_s)
        except Exception as fault:
            self._told(scan, fault)

    def _rest_came(self) -> None:
        if self._rest_due is not None:
            self._rest_due.cancel()
            self._rest_due = None

    def _told(self, scan: PlainScan, answer: str | Undecided | BaseException) -> None:
        """The gate's word on the scan under way."""
        self._under_way = False
        if self._answered is not None:
            self._answered.set()
        if isinstance(answer, Undecided):
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)
                return
            answer = Refusal(ErrorCode.GATE_CLOSED)  # we are stopping: another process will look further
        told = self._answer(scan, answer)
        if self.transport is None:
            return  # the client has gone; what was decided stands, and a retry is told it
        self.transport.write(told)
        self._handled()

    def _answer(self, scan: PlainScan, answer: str | BaseException) -> bytes:
        if isinstance(answer, str):
            try:
                return self._lane.verdict(scan, answer, last=self._close)
            except Exception as fault:
                answer = fault
        if not isinstance(answer, Refusal):
            _log.error("request_failed", request_id=scan.request_id, exc_info=answer)
            answer = Refusal(ErrorCode.INTERNAL)
        return self._lane.refusal(scan, answer, last=self._close)

    def _handled(self) -> None:
        """What aiohttp's loop does after each request."""
        self._messages.popleft()
        self.take_arrival()
        if self._parser is None or self._close or self.transport is None:
            if self.transport is not None:
                self.transport.close()
            return
        self._parser.message_consumed()
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        if self._messages:
            self._loop.call_soon(self._go_on)


def _whole(payload: StreamReader) -> bytes | None:
    """The body, left where it is; None while a part of it is under way, and b"" for what the lane does not read."""
    if isinstance(payload, EmptyStreamReader) or payload.total_bytes > BODY_BYTES_MAX:
        return b""
    if not payload._eof:
        return None
    return b"".join(payload._buffer)


class _Server(PatientServer):
    """Makes the connections."""

    def __init__(self, lane: Lane, made: web.Server, *, connections_max: int) -> None:
        super().__init__(made, connections_max=connections_max)
        self.request_handler = also_where_nothing_is(made.request_handler)
        self._lane = lane

    def __call__(self) -> RequestHandler:
        return ScanConnection(self._lane, self, loop=self._loop, **self._kwargs)


class ExpressRunner(PatientRunner):
    """Runs an application of ours with the express lane."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(Lane(self.app), made, connections_max=self._connections_max)

    async def cleanup(self) -> None:
        """Stop; what the lane counted is in the metrics afterwards."""
        await super().cleanup()
        for tally in (appkeys.TALLY, appkeys.STREAM_TALLY):
            self.app[tally].bring()
