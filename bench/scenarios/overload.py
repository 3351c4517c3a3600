"""overload: three times as many scans as the gate decides at its peak, from thousands of gates at once.

Half of the peak, then the wave, then half of it again. Each request says by `X-Deadline-Ms` how long its gate waits.
Afterwards all that got no verdict is asked again under the same scan_ids, and each must pass: what was refused was not
done without a record.
"""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from array import array
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final

from bench.bed import Bed
from bench.durations import phase_seconds
from bench.figures import arrivals, percentile
from bench.lanes import Load
from bench.lanes_scan import HTTP_CONNECTIONS, HttpScan
from bench.load_http import HttpLoad
from bench.machine import say
from bench.measure import Measurement
from bench.report import Report
from bench.requests import PASSED, Scan, Scans, Supply
from bench.run import Run, Work
from bench.site import Unclean
from bench.suite import fill

BESIDE: Final = 0.5  # of the peak, before the wave and after it
BESIDE_S: Final = 4.0
RECOVERS_S: Final = 1.0  # after the wave: from then on the server must be as it was before
_REFUSALS: Final = (b'"OVERLOADED"', b'"DEADLINE_PASSED"')


class Wave(HttpScan):
    """POST /venue/scan of gates that wait so long and no longer."""

    def __init__(
        self, address: str, scans: Scans, supply: Supply, connections: int, patience_ms: int
    ) -> None:
        super().__init__("wave", address, scans, supply)
        self.connections = connections
        self.headers = f"X-Deadline-Ms: {patience_ms}\r\n"
        self._patience_s = patience_ms / 1000
        self.undecided: list[Scan] = []

    def connect(self) -> AbstractAsyncContextManager[Load]:
        return HttpLoad(self._address, self.connections, self._patience_s)

    def settle(self, run: Run) -> None:
        """Every answer is a pass or one of the two refusals; what was refused, or not even sent, is kept."""
        if run.lost or run.answered < run.asked:
            lacking = run.asked - run.answered
            raise Unclean(f"wave: {run.lost} connections lost, {lacking} of {run.asked} not answered")
        for index, scan in enumerate(self._made):
            if run.passed[index]:
                continue
            if run.sent[index] and not any(refusal in run.kept[index] for refusal in _REFUSALS):
                raise Unclean(f"wave: {run.kept[index]!r}")
            self.undecided.append(scan)


class Again(HttpScan):
    """The same scans once more, by gates that wait."""

    connections = HTTP_CONNECTIONS

    def again(self, scans: list[Scan]) -> None:
        """Ask these."""
        self._made = scans

    def prepare(self, requests: int) -> Work:
        return Work([self._request(scan) for scan in self._made], PASSED)


def arguments(parser: ArgumentParser) -> None:
    """What the scenario takes."""
    parser.add_argument("--times", type=float, default=3.0, help="of the peak (3)")
    parser.add_argument("--seconds", type=phase_seconds, default=5.0, help="of the wave (5)")
    parser.add_argument("--connections", type=int, default=6_000, help="gates (6,000)")
    parser.add_argument("--patience-ms", type=int, default=1_000, help="of each gate (1,000)")
    parser.add_argument("--tickets", type=int, default=100_000, help="loaded before (100,000)")


async def run(bed: Bed, options: Namespace) -> Report:
    """The peak, the wave with a calm time on each side, everything undecided once more, audit."""
    report = bed.report("overload")
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(bed.site(tickets=options.tickets))
        measurement = await stack.enter_async_context(Measurement(site))
        scans, supply = Scans(site.config), Supply(site.scene)
        calm = await measurement.add(HttpScan("http_scan", site.address, scans, supply))
        for _ in range(3):
            await measurement.peak_round(1.5)
        wave = Wave(site.address, scans, supply, options.connections, options.patience_ms)
        flooded = await measurement.open(wave)
        due = _schedule(calm.rate, options.times, options.seconds)
        say(f"{len(due):,} scans, {options.times:g} times the peak for {options.seconds:g} s")
        seen = await measurement.load(flooded, len(due), due[-1], "wave", due=due)
        measurement.forget("wave")  # its figures are of another kind
        report.figures = _figures(seen, calm.rate, options.seconds)
        again = Again("again", site.address, scans, supply)
        again.again(wave.undecided)
        asked = await measurement.load(await measurement.open(again), 0, 120.0, "again")
        measurement.forget("again")
        report.figures["undecided ones that passed when asked again"] = asked.successes
        fill(report, measurement, bed.pinning)
        report.ratios["overload_verdicts/peak"] = report.figures["verdicts a second in the wave, of the peak"]
        report.audit = await site.audit()
    return report


def _schedule(peak: float, times: float, seconds: float) -> array[float]:
    """When scans are due: half of the peak, the wave, half of the peak."""
    due = array("d")
    for seed, (rate, lasting) in enumerate(
        ((peak * BESIDE, BESIDE_S), (peak * times, seconds), (peak * BESIDE, BESIDE_S))
    ):
        start = due[-1] if due else 0.0
        due.extend(start + at for at in arrivals(int(rate * lasting), rate, seed=seed))
    return due


def _figures(seen: Run, peak: float, seconds: float) -> dict[str, Any]:
    """What the gates saw before the wave, in it, and from a second after it."""
    begun, ended = seen.began + BESIDE_S, seen.began + BESIDE_S + seconds
    verdicts = sum(
        1 for passed, done in zip(seen.passed, seen.done, strict=True) if passed and begun <= done < ended
    )
    inside = [index for index, due in enumerate(seen.due) if begun <= due < ended]
    refused = [index for index in inside if seen.sent[index] and not seen.passed[index]]
    return {
        "verdicts a second in the wave, of the peak": round(verdicts / seconds / peak, 3),
        "asked in the wave": len(inside),
        "told OVERLOADED": sum(_REFUSALS[0] in seen.kept[index] for index in refused),
        "told DEADLINE_PASSED": sum(_REFUSALS[1] in seen.kept[index] for index in refused),
        "gave up waiting for a connection": sum(1 for index in inside if not seen.sent[index]),
        "p99 before the wave, ms from the intended time": _p99_ms(seen, seen.due, 0.0, begun),
        "p99 of a verdict in the wave, ms from sending": _p99_ms(seen, seen.sent, begun, ended),
        "p99 of a refusal in the wave, ms from sending": _percentile_ms(
            [seen.done[index] - seen.sent[index] for index in refused]
        ),
        "p99 from a second after it, ms from the intended time": _p99_ms(
            seen, seen.due, ended + RECOVERS_S, math.inf
        ),
    }


def _p99_ms(seen: Run, start: Sequence[float], since: float, until: float) -> float | None:
    """From `start` to the verdict, of what was due in this time."""
    took = [
        done - began
        for due, began, done, passed in zip(seen.due, start, seen.done, seen.passed, strict=True)
        if passed and since <= due < until
    ]
    return _percentile_ms(took)


def _percentile_ms(seconds: list[float]) -> float | None:
    return round(percentile(sorted(seconds), 0.99) * 1000, 1) if seconds else None
