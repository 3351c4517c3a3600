"""The lanes: how each is asked, what its answers must be, and how many requests it takes a second (to be found out)."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from bench.load_http import HttpLoad
from bench.requests import PASSED, Scan, Scans, Supply, post
from bench.run import Run, Work
from bench.site import Unclean
from server.domain.ids import is_ticket_code

HTTP_CONNECTIONS: Final = 64
_NOOP_SCANS: Final = 1_000


class Load(Protocol):
    """A load generator on open connections."""

    async def closed(self, work: Work, seconds: float) -> Run:
        """As fast as the answers come."""

    async def paced(self, work: Work, due: Sequence[float]) -> Run:
        """By schedule."""


class Lane(ABC):
    """One way of asking a server for one kind of thing."""

    units = 1  # things in one request
    guess_rate = 2_000.0  # things a second, before anything was measured

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def connect(self) -> AbstractAsyncContextManager[Load]:
        """Open the connections."""

    @abstractmethod
    def prepare(self, requests: int) -> Work:
        """So many requests, ready to be sent within the next seconds."""

    @abstractmethod
    def settle(self, run: Run) -> None:
        """Take back what was not asked for, and hold the answers against what they must be. Raises Unclean."""


def checked(name: str, run: Run, *, wanted: int, status: int = 200) -> None:
    """Every request was answered, with this status, and `wanted` things went as wished. Raises Unclean."""
    statuses = run.statuses()
    if run.lost or statuses.keys() - {str(status)}:
        raise Unclean(f"{name}: {run.lost} connections lost, answers by status: {statuses}; {_sample(run)}")
    if run.successes != wanted:
        raise Unclean(f"{name}: {run.successes} of {wanted} went as wished; {_sample(run)}")


def body_of(answer: bytes) -> Any:
    """The JSON of a kept HTTP answer."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def _sample(run: Run) -> str:
    odd = [answer for index, answer in run.kept.items() if not run.passed[index]]
    return f"one of them: {odd[0]!r}" if odd else "none of them was kept"


class HttpScan(Lane):
    """POST /venue/scan, at the product or at a server that is compared with it."""

    def __init__(self, name: str, address: str, scans: Scans, supply: Supply) -> None:
        super().__init__(name)
        self._address = address
        self._scans = scans
        self._supply = supply
        self._made: list[Scan] = []

    def connect(self) -> AbstractAsyncContextManager[Load]:
        return HttpLoad(self._address, HTTP_CONNECTIONS)

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
        return post("/venue/scan", host, self._scans.tokens[scan.gate.operator], scan.body)


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
