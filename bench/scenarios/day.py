"""day: a venue's day in half a minute, open loop: arrivals by a curve, refusals, answers that are lost and asked again.

Twelve hours, each as long as the next. Between two hours the clock of the day stands still while the next hour's codes
are made (they live for a minute), and the flusher catches up. Of every hundred scans five are refused, as on a real
day: a code shown again, a gate of another venue, a forged code. Two more lose their answer and are sent again, the same
to the byte; both answers must be equal to the byte too.
"""

from __future__ import annotations

import random
from argparse import ArgumentParser, Namespace
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple

import msgspec

from bench.bed import Bed
from bench.durations import day_seconds
from bench.figures import arrivals
from bench.lanes import body_of, checked
from bench.lanes_scan import HttpScan, check_success
from bench.machine import say
from bench.measure import Measurement
from bench.report import Report
from bench.requests import GATES, PASSED, SERVING, Scan, Scans, Supply, scan
from bench.run import Run, Work
from bench.seed import VENUES
from bench.site import Unclean
from bench.suite import Suite, fill

# Shares of a day's scans from nine in the morning to nine at night, hour by hour.
CURVE: Final = (0.04, 0.09, 0.14, 0.13, 0.08, 0.08, 0.11, 0.12, 0.09, 0.06, 0.04, 0.02)
AGAIN, ASTRAY, FORGED, LOST = 0.02, 0.02, 0.01, 0.02  # of all scans
_LATER: Final = 0.2  # of an hour, after which a code is shown again or a lost answer asked for again
_REASONS: Final = {"astray": "WRONG_VENUE_FUNCTION", "forged": "QR_TAMPERED"}


class Shown(NamedTuple):
    """One scan of the day. `first`: the number of the scan that it repeats; `at`: its place in the hour."""

    scan: Scan
    kind: str  # pass, again, astray, forged, lost
    first: int | None
    at: float


class Day(HttpScan):
    """POST /venue/scan as on a real day; `prepare` makes an hour."""

    def __init__(self, address: str, scans: Scans, supply: Supply) -> None:
        super().__init__("day", address, scans, supply)
        self._dice = random.Random(7)  # noqa: S311  (the same day again)
        self._hour: list[Shown] = []
        self._order: list[int] = []
        self.told: Counter[str] = Counter()

    def prepare(self, requests: int) -> Work:
        extra = int(requests * (AGAIN + LOST))
        hour = [
            self._fresh(each, number)
            for number, each in enumerate(self._scans.make(self._supply.take(requests - extra)))
        ]
        for first in self._dice.sample(range(len(hour)), min(extra, len(hour))):
            hour.append(self._once_more(hour[first], first, len(hour), first + _LATER * requests))
        self._hour = hour
        self._order = sorted(range(len(hour)), key=lambda number: hour[number].at)
        return Work([self._request(hour[number].scan) for number in self._order], PASSED, keep_every=1)

    def settle(self, run: Run) -> None:
        """Every scan of the hour was told what its kind must be told. Raises Unclean."""
        checked(self.name, run, wanted=sum(map(self._passes, self._hour)))
        said = {self._order[place]: answer for place, answer in run.kept.items()}
        shown_again = {shown.first for shown in self._hour if shown.kind == "again"}
        for number, shown in enumerate(self._hour):
            if shown.kind == "lost" and shown.first is not None:
                self._same(said[shown.first], said[number])
            elif shown.kind == "again" and shown.first is not None:
                self._one_of_two(
                    self._hour[shown.first].scan, body_of(said[shown.first]), body_of(said[number])
                )
            elif shown.kind in _REASONS:
                self._refused(shown, body_of(said[number]))
            elif number not in shown_again:
                check_success(self.name, body_of(said[number]), shown.scan)
            self.told[shown.kind] += 1
        self._supply.give_back([shown.scan.use for shown in self._hour if shown.kind in _REASONS])

    def _fresh(self, each: Scan, number: int) -> Shown:
        dice = self._dice.random()
        if dice < ASTRAY:
            function = each.use.function_code
            elsewhere = [
                (at, gate) for at, gate in enumerate(GATES) if function not in VENUES[gate.venue_code]
            ]
            astray = scan(each.token, each.use, *self._dice.choice(elsewhere), each.scan_id)
            return Shown(astray, "astray", None, number)
        if dice < ASTRAY + FORGED:
            forged = each.token[:40] + ("A" if each.token[40] != "A" else "B") + each.token[41:]
            return Shown(scan(forged, each.use, each.place, each.gate, each.scan_id), "forged", None, number)
        return Shown(each, "pass", None, number)

    def _passes(self, shown: Shown) -> bool:
        """Whether it is let in; what is asked again, whether it was."""
        kind = (
            self._hour[shown.first].kind if shown.kind == "lost" and shown.first is not None else shown.kind
        )
        return kind == "pass"

    def _once_more(self, shown: Shown, first: int, number: int, at: float) -> Shown:
        each = shown.scan
        if shown.kind != "pass" or self._dice.random() < LOST / (AGAIN + LOST):
            return Shown(each, "lost", first, at)
        place, gate = self._dice.choice(SERVING[each.use.function_code])
        return Shown(
            scan(each.token, each.use, place, gate, f"{each.scan_id[:-8]}{number:08d}"), "again", first, at
        )

    def _same(self, first: bytes, again: bytes) -> None:
        bodies = [answer.partition(b"\r\n\r\n")[2] for answer in (first, again)]
        if bodies[0] != bodies[1]:
            raise Unclean(f"{self.name}: a scan was told {bodies[0]!r}, and asked again {bodies[1]!r}")

    def _one_of_two(self, shown: Scan, first: dict[str, Any], again: dict[str, Any]) -> None:
        """One passed, most often the first, and the other was told so: the network may turn their order round."""
        passed, refused = (first, again) if first["result"] == "success" else (again, first)
        by = refused.get("first_redemption") or {}
        if passed["result"] != "success" or by.get("event_id") != passed["event_id"]:
            raise Unclean(f"{self.name}: the code of {shown.use} was told {first}, and again {again}")

    def _refused(self, shown: Shown, answer: dict[str, Any]) -> None:
        if answer["result"] != "reject" or answer["reason"] != _REASONS[shown.kind]:
            raise Unclean(f"{self.name}: a scan that is {shown.kind} was told {answer}")


def arguments(parser: ArgumentParser) -> None:
    """What the scenario takes."""
    parser.add_argument("--seconds", type=day_seconds, default=30.0, help="that the day takes (30)")
    parser.add_argument("--scans", type=int, default=30_000, help="of the day (30,000)")


async def run(bed: Bed, options: Namespace) -> Report:
    """Live the day, audit, report."""
    report = bed.report("day")
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(bed.site(tickets=max(1_000, options.scans // 8)))
        measurement = await stack.enter_async_context(Measurement(site))
        suite = Suite(bed, site, stack, measurement)
        await suite.add(["noop"])
        await measurement.peak_round(1.0)
        day = Day(site.address, suite.scans, suite.supply)
        measured = await measurement.open(day)
        hours = []
        for hour, share in enumerate(CURVE):
            number = max(50, int(options.scans * share))
            due = arrivals(number, number / (options.seconds / len(CURVE)), seed=hour)
            run_ = await measurement.load(measured, number, due[-1], "peak", due=due)
            seen = run_.latency()
            hours.append({"hour": 9 + hour, "scans": number, **msgspec.structs.asdict(seen)})
            say(f"  {9 + hour:02}:00 {number:>7,} scans, p99 {seen.p99:,.1f} ms")
        report.figures = {"scans": sum(day.told.values()), **day.told, "hours": hours}
        fill(report, measurement, bed.pinning)
        report.audit = await site.audit()
    return report
