"""The line of connections that brought more than one turn of the event loop takes.

The loop below us (libuv) reads up to 49,152 ready sockets before it runs anything else, as long as a thousand of them
are ready each time it looks. In a flood of requests it would do nothing but read and refuse: no scan would be sent to
Redis, and no answer told, for seconds. So a turn takes so much and no more; whoever comes later in it stands in line:
scans in one, which gets most of each turn, everything else in another. When they take too long, those at the head are
told so without being read.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Final, Protocol

from server.domain.errors import ErrorCode, Refusal
from server.limits import LINE_WAIT_S_MAX, REQUEST_COST, SCAN_HEAD_BYTES_MAX, TURN_COST, TURNED_AWAY_MAX
from server.web.errors import error_body

SCANS_SHARE: Final = 0.75  # of a turn, when others wait as well
_PACE: Final = TURN_COST / 0.03  # a second, before anything was measured
_LEARNS: Final = 0.2  # the weight of a turn in the pace: it is known after some tens of milliseconds
_SCAN: Final = b"POST /venue/scan HTTP/1.1\r\n"
# Names and values as RFC 9110 has them, and nothing that somebody in front of us could read in another way.
_HEAD: Final = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e]*\r\n){1,40}\r\n").fullmatch
_ODD: Final = re.compile(
    rb"^(?:transfer-encoding|expect|upgrade|proxy-connection|content-encoding"
    rb"|connection(?!:[ \t]*keep-alive[ \t]*\r\n)):?",
    re.I | re.M,
).search
_LENGTHS: Final = re.compile(rb"^content-length:[ \t]*([0-9]{1,5})?", re.I | re.M).findall
_HOSTS: Final = re.compile(rb"^host:", re.I | re.M).findall
_SCAN_ID: Final = re.compile(rb'"scan_id"\s*:\s*"([A-Za-z0-9._:-]{1,64})"').search


class Comer(Protocol):
    """A connection that stands in line."""

    def come_up(self) -> None:
        """Its turn has come."""

    def turn_away(self) -> bool:
        """Refuse what it brought, at next to no cost; False where it has to be read first."""


class _Queue:
    """Those of one kind that wait, with what each will cost."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, Comer]] = deque()
        self.cost = 0

    def add(self, cost: int, comer: Comer) -> None:
        self.waiting.append((cost, comer))
        self.cost += cost

    def take(self, *, newest: bool) -> tuple[int, Comer]:
        cost, comer = self.waiting.pop() if newest else self.waiting.popleft()
        self.cost -= cost
        return cost, comer


class Line:
    """All connections of a process that wait for their turn."""

    def __init__(self) -> None:
        self._scans, self._others = _Queue(), _Queue()
        self.held = 0  # bytes that connections brought while they stand here
        self._taken = 0  # in this turn
        self._pace = _PACE
        self._turned = 0.0  # when the last turn began, if it left a line
        self._turn_due = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def admits(self, cost: int) -> bool:
        """Whether what came may be taken now; if not, it has to `wait`. `cost`: see `cost_of`."""
        if not self._turn_due:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._turn_due, self._taken = True, 0
            self._loop.call_soon(self._turn)
        if self._taken >= TURN_COST:  # so as long as anyone waits
            return False
        self._taken += cost
        return True

    def wait(self, cost: int, comer: Comer, *, scans: bool) -> None:
        """Stand in line, with scans or with anything else."""
        (self._scans if scans else self._others).add(cost, comer)

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
        too_long = self._scans.cost + self._others.cost > self._pace * LINE_WAIT_S_MAX
        share = SCANS_SHARE if self._others.waiting else 1.0
        for queue, until in (
            (self._scans, share * TURN_COST),
            (self._others, TURN_COST),
            (self._scans, TURN_COST),
        ):
            while queue.waiting and self._taken < until:
                cost, comer = queue.take(newest=too_long)
                self._taken += cost
                comer.come_up()
        if too_long:
            self._turn_away()
        waiting = bool(self._scans.waiting or self._others.waiting)
        self._turned = now if waiting else 0.0
        if waiting and not self._turn_due:
            self._turn_due = True
            loop.call_soon(self._turn)

    def _turn_away(self) -> None:
        """Of the longer line, the oldest. What cannot be refused unread costs the turn what it costs."""
        read = 0
        for _ in range(TURNED_AWAY_MAX):
            queue = max(self._scans, self._others, key=lambda each: each.cost)
            if not queue.waiting or read >= TURN_COST:
                break
            cost, comer = queue.take(newest=False)
            if not comer.turn_away():
                read += cost
                comer.come_up()
        self._taken += read


def is_scan(data: bytes) -> bool:
    """Whether this begins like a scan of the express lane."""
    return data.startswith(_SCAN)


def cost_of(data: bytes, *, scans: bool) -> int:
    """What taking this costs, in bytes of scans: anything else goes aiohttp's way, which takes longer."""
    return len(data) if scans else max(len(data), REQUEST_COST)


def refused_unread(data: bytes, request_id: str) -> bytes | None:
    """The body of OVERLOADED for what is one whole scan and nothing else; None for whatever is not plainly that.

    It has not been parsed: so it must leave no doubt where it ends. Whatever could mean another framing, a second
    length, and a head that is not as RFC 9110 has it are for the parser.
    """
    end = data.find(b"\r\n\r\n", 0, SCAN_HEAD_BYTES_MAX) + 4
    if end < 4 or not is_scan(data):
        return None
    head = data[len(_SCAN) : end]
    if _HEAD(head) is None or _ODD(head) or len(_HOSTS(head)) != 1:
        return None
    length = _LENGTHS(head)
    if len(length) != 1 or not length[0] or int(length[0]) != len(data) - end:
        return None
    scan_id = _SCAN_ID(data, end)
    detail = {} if scan_id is None else {"scan_id": scan_id[1].decode("ascii")}
    return error_body(Refusal(ErrorCode.OVERLOADED, **detail), request_id)
