"""The lanes of the gate: POST /venue/scan, GET /venue/stream, POST /venue/scans; and the no-op beside them."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from bench.answers import client_frame
from bench.lanes import Lane, Load, body_of, checked, known
from bench.load_http import HttpLoad
from bench.load_socket import SocketLoad
from bench.requests import GATES, PASSED, Scan, Scans, Supply, Use, post
from bench.run import Run, Work
from bench.site import Unclean
from server.domain.ids import is_ticket_code

HTTP_CONNECTIONS: Final = 256  # gates of a large venue; enough to fill whatever goes to Redis in one call
WINDOW: Final = 16  # scans under way on a socket, in the closed loop
BATCH_SCANS: Final = 200  # of one upload
BATCH_CONNECTIONS: Final = 4
_NOOP_SCANS: Final = 1_000


class HttpScan(Lane):
    """POST /venue/scan, at the product or at a server that is compared with it."""

    connections = HTTP_CONNECTIONS
    headers = ""  # further lines of each request, with their CRLF

    def __init__(self, name: str, address: str, scans: Scans, supply: Supply) -> None:
        super().__init__(name)
        self._address = address
        self._scans = scans
        self._supply = supply
        self._made: list[Scan] = []

    @property
    def over(self) -> str:
        return f"{self.connections} connections"

    def connect(self) -> AbstractAsyncContextManager[Load]:
        return HttpLoad(self._address, self.connections)

    def prepare(self, requests: int) -> Work:
        self._made = self._scans.make(self._supply.take(requests))
        return Work([self._request(scan) for scan in self._made], PASSED)

    def settle(self, run: Run) -> None:
        self._supply.give_back(
            [scan.use for scan, sent in zip(self._made, run.sent, strict=True) if not sent]
        )
        checked(self.name, run, wanted=run.asked)
        for index, answer in run.kept.items():
            check_success(self.name, body_of(answer), self._made[index])

    def _request(self, scan: Scan) -> bytes:
        host = urlsplit(self._address).netloc
        return post("/venue/scan", host, self._scans.tokens[scan.gate.operator], scan.body, self.headers)


class Noop(HttpScan):
    """The same requests at the no-op, which redeems nothing: a few are shown again and again."""

    guess_rate = 10_000.0

    def prepare(self, requests: int) -> Work:
        if not self._made:
            self._made = self._scans.make(self._supply.take(_NOOP_SCANS))
            self._supply.give_back([scan.use for scan in self._made])
        requests_made = [self._request(scan) for scan in self._made]
        return Work([requests_made[at % len(requests_made)] for at in range(requests)], PASSED)

    def settle(self, run: Run) -> None:
        checked(self.name, run, wanted=run.asked)


class SocketScan(Lane):
    """GET /venue/stream: a socket per gate, frames with the body of POST /venue/scan."""

    guess_rate = 4_000.0

    def __init__(self, address: str, scans: Scans, supply: Supply) -> None:
        super().__init__("socket_scan")
        self._address = address
        self._scans = scans
        self._supply = supply
        self._made: list[Scan] = []

    async def is_served(self) -> bool:
        return await known(self._address, "GET", "/venue/stream")

    @property
    def over(self) -> str:
        return f"{len(GATES)} sockets, {WINDOW} scans under way on each"

    def connect(self) -> AbstractAsyncContextManager[Load]:
        bearers = [self._scans.tokens[gate.operator] for gate in GATES]
        return SocketLoad(self._address, "/venue/stream", bearers, WINDOW)

    def prepare(self, requests: int) -> Work:
        self._made = self._scans.make(self._supply.take(requests))
        frames = [client_frame(scan.body) for scan in self._made]
        return Work(frames, PASSED, over=[scan.place for scan in self._made])

    def settle(self, run: Run) -> None:
        self._supply.give_back(unsent(self._made, run))
        checked(self.name, run, wanted=run.asked)
        for index, frame in run.kept.items():
            check_success(self.name, json.loads(frame), self._made[index])


class BatchScan(Lane):
    """POST /venue/scans: what gates that were offline upload."""

    units = BATCH_SCANS
    guess_rate = 4_000.0

    def __init__(self, address: str, scans: Scans, supply: Supply) -> None:
        super().__init__("batch_scan")
        self._address = address
        self._scans = scans
        self._supply = supply
        self._made: list[Scan] = []

    async def is_served(self) -> bool:
        return await known(self._address, "POST", "/venue/scans")

    @property
    def over(self) -> str:
        return f"{BATCH_CONNECTIONS} connections, {BATCH_SCANS} scans in each request"

    def connect(self) -> AbstractAsyncContextManager[Load]:
        return HttpLoad(self._address, BATCH_CONNECTIONS)

    def prepare(self, requests: int) -> Work:
        uses = self._supply.take(requests * BATCH_SCANS)
        whole = len(uses) - len(uses) % BATCH_SCANS  # every upload is a full one
        self._supply.give_back(uses[whole:])
        self._made = self._scans.make(uses[:whole])
        at = f',"scanned_at":"{datetime.now(UTC).isoformat(timespec="milliseconds")}"}}'.encode()
        host = urlsplit(self._address).netloc
        uploads = []
        for first in range(0, len(self._made), BATCH_SCANS):
            scans = self._made[first : first + BATCH_SCANS]
            body = b'{"scans":[' + b",".join(scan.body[:-1] + at for scan in scans) + b"]}"
            uploads.append(post("/venue/scans", host, self._scans.tokens[scans[0].gate.operator], body))
        return Work(uploads, PASSED, units=BATCH_SCANS, keep_every=4)

    def settle(self, run: Run) -> None:
        unsent_scans = [
            scan.use for index, scan in enumerate(self._made) if not run.sent[index // BATCH_SCANS]
        ]
        self._supply.give_back(unsent_scans)
        checked(self.name, run, wanted=run.asked * BATCH_SCANS)
        for index, answer in run.kept.items():
            scans = self._made[index * BATCH_SCANS : (index + 1) * BATCH_SCANS]
            for said, scan in zip(body_of(answer)["answers"], scans, strict=True):
                check_success(self.name, said, scan)


def unsent(made: list[Scan], run: Run) -> list[Use]:
    """The uses of scans that were prepared and not sent."""
    return [scan.use for scan, sent in zip(made, run.sent, strict=True) if not sent]


def check_success(name: str, answer: dict[str, Any], scan: Scan) -> None:
    """A pass, of this very scan, with its use taken. Raises Unclean."""
    parts = {part["function_code"]: part for part in answer["entitlements"]}
    fits = (
        answer["result"] == "success"
        and answer["scan_id"] == scan.scan_id
        and answer["ticket_code"] == scan.use.code
        and is_ticket_code(answer["ticket_code"])
        and answer["remaining_uses"] == parts[scan.use.function_code]["remaining_uses"]
        and answer["remaining_uses"] < parts[scan.use.function_code]["total_uses"]
        and answer["event_id"]
    )
    if not fits:
        raise Unclean(f"{name}: the answer does not fit the scan {scan.scan_id} of {scan.use}: {answer}")
