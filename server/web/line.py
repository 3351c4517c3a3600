"""The line of connections that brought more than one turn of the event loop takes.

The loop below us (libuv) reads up to 49,152 ready sockets before it runs anything else, as long as a thousand of them
are ready each time it looks. In a flood of requests it would do nothing but read and refuse: no scan would be sent to
Redis, and no answer told, for seconds. So a turn takes so many bytes and no more; whoever comes later in it stands in
line. When the line takes too long, scans at its head are told so without being read.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Final, Protocol

from server.domain.errors import ErrorCode, Refusal
from server.limits import LINE_WAIT_S_MAX, TURN_BYTES, TURNED_AWAY_MAX
from server.web.errors import error_body

_PACE: Final = TURN_BYTES / 0.03  # bytes a second, before anything was measured
_LEARNS: Final = 0.2  # the weight of a turn in the pace: it is known after some tens of milliseconds
_SCAN: Final = b"POST /venue/scan HTTP/1.1\r\n"
_ODD: Final = re.compile(
    rb"\r\n(?:transfer-encoding|expect|upgrade|connection|content-encoding)[ \t]*:", re.I
)
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,5})[ \t]*\r\n", re.I)
_SCAN_ID: Final = re.compile(rb'"scan_id"\s*:\s*"([A-Za-z0-9._:-]{1,64})"')


class Comer(Protocol):
    """A connection that stands in line."""

    def come_up(self) -> None:
        """Its turn has come."""

    def turn_away(self) -> bool:
        """Refuse what it brought, at next to no cost; False where it has to be read first."""


class Line:
    """All connections of a process that wait for their turn."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Comer]] = deque()
        self._bytes = 0  # of those that wait
        self._taken = 0  # bytes, in this turn
        self._pace = _PACE
        self._turned = 0.0  # when the last turn began, if it left a line
        self._turn_due = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def admits(self, size: int) -> bool:
        """Whether what came, so many bytes, may be taken now; if not, it has to `wait`."""
        if not self._turn_due:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._turn_due, self._taken = True, 0
            self._loop.call_soon(self._turn)
        if self._taken >= TURN_BYTES:  # so as long as anyone waits
            return False
        self._taken += size
        return True

    def wait(self, size: int, comer: Comer) -> None:
        """Stand in line with so many bytes."""
        self._waiting.append((size, comer))
        self._bytes += size

    def _turn(self) -> None:
        """The next turn of the loop: first who stands in line, and only then what it reads.

        In the order of arrival; but in a line that takes too long that would serve only those who have given up by
        then. So there the newest get through, and of the oldest as many are turned away as there is time for.
        """
        loop = self._loop
        if loop is None:
            return
        now = loop.time()
        if self._turned and now > self._turned:
            self._pace += (self._taken / (now - self._turned) - self._pace) * _LEARNS
        self._turn_due, self._taken = False, 0
        waiting = self._waiting
        too_long = self._bytes > self._pace * LINE_WAIT_S_MAX
        next_one = waiting.pop if too_long else waiting.popleft
        while waiting and self._taken < TURN_BYTES:
            size, comer = next_one()
            self._bytes -= size
            self._taken += size
            comer.come_up()
        for _ in range(min(TURNED_AWAY_MAX, len(waiting)) if too_long else 0):
            size, comer = waiting.popleft()
            self._bytes -= size
            if not comer.turn_away():
                comer.come_up()
        self._turned = now if waiting else 0.0
        if waiting and not self._turn_due:
            self._turn_due = True
            loop.call_soon(self._turn)


def refused_unread(data: bytes, request_id: str) -> bytes | None:
    """The body of OVERLOADED for what is one whole scan and nothing else; None for whatever is not plainly that.

    It has not been parsed: so it must leave no doubt where it ends. Header names that could mean another framing, a
    second length, and line ends that are not CRLF are for the parser.
    """
    end = data.find(b"\r\n\r\n") + 4
    if end < 4 or not data.startswith(_SCAN):
        return None
    head = data[: end - 2]
    length = _LENGTH.findall(head)
    if (
        len(length) != 1
        or int(length[0]) != len(data) - end
        or head.count(b"\n") != head.count(b"\r\n")
        or head.lower().count(b"content-length") != 1
        or _ODD.search(head)
    ):
        return None
    scan_id = _SCAN_ID.search(data, end)
    detail = {} if scan_id is None else {"scan_id": scan_id[1].decode("ascii")}
    return error_body(Refusal(ErrorCode.OVERLOADED, **detail), request_id)
