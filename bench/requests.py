"""Requests as gates, buyers and the payment gateway send them, encoded before the clock starts.

Every scan is a real one: a token of the product's own making, distinct, sealed moments before it is shown, for a use
that the ticket has; with venue, terminal and a scan_id of the gate's own.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from bench.seed import FUNCTIONS, OPERATORS, VENUES, Scene
from bench.site import Unclean
from server.config import Config
from server.domain import qr
from server.domain.qr import QrKeys
from server.web.auth import Audience, Tokens

PASSED: Final = b'"result":"success"'
TERMINALS_PER_OPERATOR: Final = 2
# The last ones of a scan_id are the request's number: so an answer is matched to it
SCAN_ID_DIGITS: Final = 8
SCAN_ID_CHARS: Final = 32  # as long as a UUID in hex
_TOKEN_S: Final = 12 * 3600


class Use(NamedTuple):
    """One use of one function of one ticket."""

    code: str
    function_code: str


class Gate(NamedTuple):
    """Where a function is served, by whom."""

    venue_code: str
    operator: str
    terminal_id: str


class Scan(NamedTuple):
    """A scan ready to be sent: its JSON body, and what it is about."""

    body: bytes
    use: Use
    place: int  # of the gate in GATES
    gate: Gate
    scan_id: str
    token: str


GATES: Final = tuple(
    Gate(operator.rpartition("-")[0], operator, f"{operator}-t{number}")
    for operator in OPERATORS
    for number in range(TERMINALS_PER_OPERATOR)
)
# Function -> the gates that serve it, with their places in GATES.
SERVING: Final = {
    function: [(at, gate) for at, gate in enumerate(GATES) if function in VENUES[gate.venue_code]]
    for function in FUNCTIONS
}


class Supply:
    """The uses that the seeded tickets have, handed out once each: one of every ticket before a second of any.

    Neighbours in the line are for different functions, as at the gates of a real day.
    """

    def __init__(self, scene: Scene) -> None:
        functions = tuple(FUNCTIONS)
        self._left = deque(
            Use(code, functions[(number + turn) % len(functions)])
            for turn in range(scene.uses * len(functions))
            for number, code in enumerate(scene.codes)
        )

    def __len__(self) -> int:
        return len(self._left)

    def take(self, number: int) -> list[Use]:
        """So many uses, or as many as are left. Raises Unclean when there is none: a phase would measure nothing."""
        if not self._left:
            raise Unclean("every use of every ticket is used up: more --tickets, or less --seconds")
        return [self._left.popleft() for _ in range(min(number, len(self._left)))]

    def give_back(self, unused: Sequence[Use]) -> None:
        """Uses that were not asked for after all."""
        self._left.extendleft(reversed(unused))


class Scans:
    """Makes scans."""

    def __init__(self, config: Config) -> None:
        self._keys = QrKeys(dict(config.qr_keys), current=config.qr_keys[0][0])
        self._ttl_ms = config.qr_ttl_s * 1000
        tokens = Tokens(config.jwt_keys)
        self.tokens = {
            operator: tokens.issue(Audience.GATE, operator, seconds=_TOKEN_S, generation=1)
            for operator in OPERATORS
        }

    def make(self, uses: Sequence[Use]) -> list[Scan]:
        """A scan for each use, its token sealed now; every gate gets as many as the next, as far as it serves them."""
        now_ms = int(time.time() * 1000)
        prefix = secrets.token_hex((SCAN_ID_CHARS - SCAN_ID_DIGITS) // 2)
        made, load = [], [0] * len(GATES)
        for number, use in enumerate(uses):
            place, gate = min(SERVING[use.function_code], key=lambda each: load[each[0]])
            load[place] += 1
            issued = qr.issue(self._keys, use.code, now_ms=now_ms, ttl_ms=self._ttl_ms)
            made.append(scan(issued.token, use, place, gate, f"{prefix}{number:0{SCAN_ID_DIGITS}d}"))
        return made


def scan(token: str, use: Use, place: int, gate: Gate, scan_id: str) -> Scan:
    """One scan of this token at this gate."""
    body = (
        f'{{"qr_token":"{token}","function_code":"{use.function_code}","scan_id":"{scan_id}",'
        f'"venue_code":"{gate.venue_code}","terminal_device_id":"{gate.terminal_id}"}}'
    )
    return Scan(body.encode(), use, place, gate, scan_id, token)


def post(path: str, host: str, bearer: str | None, body: bytes, headers: str = "") -> bytes:
    """A POST of JSON over a kept-alive connection; `headers`: further lines, each with its CRLF."""
    authorization = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: gateline-bench\r\nAccept: application/json\r\n"
        f"{authorization}{headers}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
