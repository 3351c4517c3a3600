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
from server.config import Config
from server.domain import qr
from server.domain.qr import QrKeys
from server.web.auth import Audience, Tokens

PASSED: Final = b'"result":"success"'
TERMINALS_PER_GATE: Final = 2
SCAN_ID_DIGITS: Final = (
    8  # the last ones of a scan_id are the request's number: so an answer is matched to it
)
_PREFIX_BYTES: Final = 12  # with the digits, an id is as long as a UUID in hex
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
    gate: Gate
    scan_id: str
    jti: str


def _gates() -> dict[str, list[Gate]]:
    """Function -> the gates that serve it."""
    found: dict[str, list[Gate]] = {code: [] for code in FUNCTIONS}
    for operator in OPERATORS:
        venue = operator.rpartition("-")[0]
        for number in range(TERMINALS_PER_GATE):
            for function in VENUES[venue]:
                found[function].append(Gate(venue, operator, f"{operator}-t{number}"))
    return found


class Supply:
    """The uses that the seeded tickets have, handed out once each: one of every ticket before a second of any."""

    def __init__(self, scene: Scene) -> None:
        self._left = deque(
            Use(code, function) for _ in range(scene.uses) for function in FUNCTIONS for code in scene.codes
        )

    def __len__(self) -> int:
        return len(self._left)

    def take(self, number: int) -> list[Use]:
        """So many uses. Raises ValueError when there are not so many left: seed more tickets."""
        if number > len(self._left):
            raise ValueError(f"{number} uses are asked for and {len(self._left)} are left: seed more tickets")
        return [self._left.popleft() for _ in range(number)]

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
        self._gates = _gates()

    def make(self, uses: Sequence[Use], *, gates_of: dict[str, list[Gate]] | None = None) -> list[Scan]:
        """A scan for each use, its token sealed now."""
        now_ms = int(time.time() * 1000)
        prefix = secrets.token_hex(_PREFIX_BYTES)
        gates = gates_of or self._gates
        made = []
        for number, use in enumerate(uses):
            at = gates[use.function_code]
            gate = at[number % len(at)]
            issued = qr.issue(self._keys, use.code, now_ms=now_ms, ttl_ms=self._ttl_ms)
            made.append(scan(issued.token, issued.jti, use, gate, f"{prefix}{number:0{SCAN_ID_DIGITS}d}"))
        return made


def scan(token: str, jti: str, use: Use, gate: Gate, scan_id: str) -> Scan:
    """One scan of this token."""
    body = (
        f'{{"qr_token":"{token}","function_code":"{use.function_code}","scan_id":"{scan_id}",'
        f'"venue_code":"{gate.venue_code}","terminal_device_id":"{gate.terminal_id}"}}'
    )
    return Scan(body.encode(), use, gate, scan_id, jti)


def post(path: str, host: str, bearer: str | None, body: bytes, headers: str = "") -> bytes:
    """A POST of JSON over a kept-alive connection; `headers`: further lines, each with its CRLF."""
    authorization = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: gateline-bench\r\nAccept: application/json\r\n"
        f"{authorization}{headers}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
