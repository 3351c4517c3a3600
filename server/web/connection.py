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
from aiohttp.streams import EmptyStreamReader, StreamReader
from aiohttp.web_protocol import RequestHandler

from server.domain.errors import ErrorCode, Refusal
from server.domain.redemption import Undecided
from server.limits import BODY_BYTES_MAX, BODY_REST_S_MAX
from server.web import appkeys
from server.web.errors import also_where_nothing_is
from server.web.express import Lane, PlainScan
from server.web.scanning import presented

_log: Final = structlog.get_logger("http")


class ScanConnection(RequestHandler):
    """A connection of aiohttp's with the express lane in front.

    One scan of a connection is under way at a time, since HTTP answers in order. Its message stays the first of
    aiohttp's own bounded queue until it is answered, and what comes behind it waits there.
    """

    __slots__ = ("_answered", "_lane", "_rest_due", "_under_way")

    def __init__(self, lane: Lane, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._lane = lane
        self._under_way = False
        self._rest_due: asyncio.TimerHandle | None = None  # while a part of a body is waited for
        self._answered: asyncio.Event | None = None  # set when a stop waits for the answer

    def data_received(self, data: bytes) -> None:
        """Parse, and take what is for the lane; aiohttp's own loop is woken only by what is left to it."""
        waiter, self._waiter = self._waiter, None
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        self._go_on()

    def resume_writing(self) -> None:
        """The client reads again: it may have sent more meanwhile."""
        super().resume_writing()
        self._go_on()

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
        try:
            asked = presented(scan.asked, scan.scan_id)
            self._lane.admission.ask(asked, scan.operator, partial(self._told, scan), scan.patience_s)
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


class _Server(web.Server):
    """Makes the connections."""

    def __init__(self, lane: Lane, made: web.Server) -> None:
        super().__init__(
            also_where_nothing_is(made.request_handler),
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
        self._lane = lane

    def __call__(self) -> RequestHandler:
        return ScanConnection(self._lane, self, loop=self._loop, **self._kwargs)


class ExpressRunner(web.AppRunner):
    """Runs an application of ours with the express lane."""

    async def _make_server(self) -> web.Server:
        return _Server(Lane(self.app), await super()._make_server())

    async def cleanup(self) -> None:
        """Stop; what the lane counted is in the metrics afterwards."""
        await super().cleanup()
        for tally in (appkeys.TALLY, appkeys.STREAM_TALLY):
            self.app[tally].bring()
