"""The express lane: a scan that came whole and plain is answered on its connection, without a request object.

For each request aiohttp makes a request, a response, a writer and a task; a scan needs none of them. The lane takes the
message from aiohttp's own parser, looks at it as the ordinary way does, and posts it to the batcher; when the verdict
comes, the connection writes one piece of bytes. Whatever is not a plain scan with a good token (another address, a
chunked body, a bad field, an ended token, a ticket that Redis does not know) goes aiohttp's ordinary way, to the
handler of the same route. So one place says what is wrong with a request; the lane says verdicts and "not now".

`connection.py` is where the lane meets aiohttp.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, TypeGuard

import msgspec
import structlog
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_parser import RawRequestMessage

from server.domain.catalog import Directory, Operator
from server.domain.errors import ErrorCode, Refusal
from server.domain.redemption import Decision
from server.limits import SENDER_BYTES_MAX, TOKEN_CACHE_MAX
from server.web import appkeys
from server.web.auth import Audience, staff
from server.web.deadline import patience_s
from server.web.errors import EVERY_ANSWER, RETRY_AFTER_S, error_body, new_id, request_id_of
from server.web.line import Line, refused_unread
from server.web.scanning import PATH, ScanRequest, read_scan, scan_answer

_JSON: Final = "application/json"
_encode: Final = msgspec.json.Encoder().encode
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}  # the enum is asked slowly
_FIXED: Final = "".join(f"{name}: {value}\r\n" for name, value in EVERY_ANSWER.items())
_log: Final = structlog.get_logger("http")


class PlainScan(msgspec.Struct, frozen=True, gc=False):
    """A scan that the lane can take: who asks, and what."""

    operator: Operator
    asked: ScanRequest
    scan_id: str
    request_id: str
    started: float  # by the monotonic clock, seconds
    patience_s: float | None


class _Sender(msgspec.Struct, frozen=True, gc=False):
    """Who sends these very headers, as long as their token, its key and the directory last."""

    operator: Operator
    expires_at_s: int
    directory: Directory
    keys: Mapping[str, bytes]  # of tokens
    patience_s: float | None


class Lane:
    """What the express connections of one application share."""

    def __init__(self, app: web.Application) -> None:
        self.line = Line()
        self._tokens = app[appkeys.TOKENS]
        self._directory = app[appkeys.DIRECTORY]
        self.admission = app[appkeys.ADMISSION]
        self._tally = app[appkeys.TALLY]
        self._every_line = app[appkeys.CONFIG].log_level == "debug"
        # A gate sends the same headers with every scan: what they say is looked up by them as a whole.
        self._senders: dict[object, _Sender] = {}
        self._second = 0
        self._date = ""

    @staticmethod
    def is_for(message: object) -> TypeGuard[RawRequestMessage]:
        """Whether this may be a scan of the lane, by its first line and framing."""
        return (
            isinstance(message, RawRequestMessage)
            and message.path == PATH
            and message.method == hdrs.METH_POST
            and message.version == HttpVersion11
            and not (message.should_close or message.chunked or message.upgrade or message.compression)
        )

    def read(self, message: RawRequestMessage, body: bytes) -> PlainScan | None:
        """The scan, or None for whatever the ordinary way has to look at."""
        started = time.perf_counter()
        try:
            sender = self._senders.get(message.raw_headers)
            if sender is not None:
                request_id = new_id()
                if (
                    sender.directory is not self._directory.current
                    or sender.keys is not self._tokens.keys
                    or time.time() >= sender.expires_at_s
                ):
                    sender = None
            if sender is None:
                sender = self._look(message)
                if sender is None:
                    return None
                request_id = request_id_of(message.headers)
            asked = read_scan(body)
        except Exception:  # whatever is wrong with it, the ordinary way says so
            return None
        scan_id = asked.scan_id or new_id()
        return PlainScan(sender.operator, asked, scan_id, request_id, started, sender.patience_s)

    def _look(self, message: RawRequestMessage) -> _Sender | None:
        """Who sends this; None for what is no gate or no plain JSON. Raises Refusal for a bad token or header."""
        headers = message.headers
        if (
            headers.get(hdrs.CONTENT_TYPE) != _JSON
            or hdrs.CONTENT_ENCODING in headers
            or hdrs.EXPECT in headers
        ):
            return None
        caller = self._tokens.verify(headers.get(hdrs.AUTHORIZATION))
        if caller.audience is not Audience.GATE:
            return None
        directory = self._directory.current
        operator, keys = staff(caller, directory), self._tokens.keys
        sender = _Sender(operator, caller.expires_at_s, directory, keys, patience_s(headers))
        size = sum(len(name) + len(value) for name, value in message.raw_headers)
        if (
            "X-Request-Id" not in headers and size <= SENDER_BYTES_MAX
        ):  # with one, it is another head each time
            if len(self._senders) >= TOKEN_CACHE_MAX:
                self._senders.clear()
            self._senders[message.raw_headers] = sender
        return sender

    def verdict(self, scan: PlainScan, line: str, *, last: bool) -> bytes:
        """The whole answer: 200 and the verdict. `last`: the connection ends with it."""
        decision = Decision.parse(line)
        body = _encode(scan_answer(decision, scan.scan_id))
        self._tally.verdict(decision.verdict)
        return self._whole(scan, 200, body, last=last)

    def refusal(self, scan: PlainScan, refusal: Refusal, *, last: bool) -> bytes:
        """The whole answer: why there is no verdict."""
        told = Refusal(refusal.code, refusal.message, **{**refusal.detail, "scan_id": scan.scan_id})
        return self._whole(scan, told.code.status, error_body(told, scan.request_id), last=last)

    def refused_unread(self, data: bytes) -> bytes | None:
        """The whole answer to a scan for which there is no time; None for what has to be parsed."""
        request_id = new_id()
        body = refused_unread(data, request_id)
        if body is None:
            return None
        self._tally.request(503, 0.0)
        return self._answer(503, request_id, body, last=False)

    def refused_for_good(self) -> bytes:
        """The whole answer to whatever there is no time for; the connection ends with it."""
        request_id = new_id()
        self._tally.request(503, 0.0)
        return self._answer(503, request_id, error_body(Refusal(ErrorCode.OVERLOADED), request_id), last=True)

    def _whole(self, scan: PlainScan, status: int, body: bytes, *, last: bool) -> bytes:
        seconds = time.perf_counter() - scan.started
        self._tally.request(status, seconds)
        if self._every_line or status >= 400:
            log = _log.debug if status < 400 else _log.info
            log(
                "request",
                method="POST",
                route=PATH,
                status=status,
                ms=round(seconds * 1000, 2),
                request_id=scan.request_id,
            )
        return self._answer(status, scan.request_id, body, last=last)

    def _answer(self, status: int, request_id: str, body: bytes, *, last: bool) -> bytes:
        again = f"Retry-After: {RETRY_AFTER_S}\r\n" if status == 503 else ""
        end = "Connection: close\r\n" if last else ""
        head = (
            f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: {_JSON}\r\n{again}"
            f"X-Request-Id: {request_id}\r\n{_FIXED}Content-Length: {len(body)}\r\n"
            f"Date: {self._now()}\r\n{end}\r\n"
        )
        return head.encode("ascii") + body

    def _now(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._date = second, formatdate(second, usegmt=True)
        return self._date
