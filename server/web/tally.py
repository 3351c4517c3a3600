"""Counting on the express lane: in plain numbers, brought to the metrics four times a second.

A counter of the metrics library takes a lock and writes to a file that all processes share: for each scan that would
cost as much as the rest of its answer.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from typing import Final

from server.domain.redemption import Verdict
from server.telemetry import REQUEST_SECONDS, REQUESTS, SCANS

BRING_S: Final = 0.25


class Tally:
    """The requests of one route, or the frames of its sockets, and the verdicts told, until brought to the metrics."""

    def __init__(self, method: str, route: str) -> None:
        self._method = method
        self._route = route
        self._seconds = REQUEST_SECONDS.labels(route)
        self._bounds: list[float] = self._seconds._upper_bounds
        self._buckets = [0] * len(self._bounds)
        self._sum_s = 0.0
        self._statuses: Counter[int] = Counter()
        self._verdicts: Counter[Verdict] = Counter()
        self._due: asyncio.TimerHandle | None = None

    def verdict(self, verdict: Verdict) -> None:
        """One verdict told; its request is counted beside it."""
        self._verdicts[verdict] += 1

    def request(self, status: int, seconds: float) -> None:
        """One request answered so, after so long."""
        self._buckets[bisect_left(self._bounds, seconds)] += 1
        self._sum_s += seconds
        self._statuses[status] += 1
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(BRING_S, self.bring)

    def bring(self) -> None:
        """Bring what was counted to the metrics."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        for status, number in self._statuses.items():
            REQUESTS.labels(self._method, self._route, str(status)).inc(number)
        for verdict, number in self._verdicts.items():
            SCANS.labels(verdict.name).inc(number)
        # What `observe` does, for many at once; the library has no name for it.
        for bucket, number in zip(self._seconds._buckets, self._buckets, strict=True):
            if number:
                bucket.inc(number)
        self._seconds._sum.inc(self._sum_s)
        self._statuses.clear()
        self._verdicts.clear()
        self._buckets = [0] * len(self._bounds)
        self._sum_s = 0.0
