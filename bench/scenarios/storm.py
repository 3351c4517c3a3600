"""storm: every ticket's QR is scanned at five gates at once; one of them lets it in, whoever is first."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from bench.answers import client_frame
from bench.bed import Bed
from bench.durations import phase_seconds
from bench.lanes import body_of, checked
from bench.lanes_scan import HttpScan, SocketScan, check_success
from bench.machine import say
from bench.measure import Measurement
from bench.report import Report
from bench.requests import PASSED, SERVING, Scan, Scans, Supply, scan
from bench.run import Run, Work
from bench.site import Unclean
from bench.suite import Suite, fill

SCANS: Final = 5  # of one QR, each at another gate


class StormHttp(HttpScan):
    """POST /venue/scan, each QR five times at once."""

    def prepare(self, requests: int) -> Work:
        self._made = _everywhere(self._scans, self._supply, requests)
        return Work([self._request(each) for each in self._made], PASSED, keep_every=1)

    def settle(self, run: Run) -> None:
        _settle(
            self.name, self._supply, self._made, run, {at: body_of(said) for at, said in run.kept.items()}
        )


class StormSocket(SocketScan):
    """GET /venue/stream, each QR at five sockets at once."""

    def prepare(self, requests: int) -> Work:
        self._made = _everywhere(self._scans, self._supply, requests)
        frames = [client_frame(each.body) for each in self._made]
        return Work(frames, PASSED, keep_every=1, over=[each.place for each in self._made])

    def settle(self, run: Run) -> None:
        _settle(
            self.name, self._supply, self._made, run, {at: json.loads(said) for at, said in run.kept.items()}
        )


def _everywhere(scans: Scans, supply: Supply, requests: int) -> list[Scan]:
    """Each QR at five gates that serve its function, with a scan_id of its own at each; neighbours in the list."""
    made: list[Scan] = []
    for once in scans.make(supply.take(-(-requests // SCANS))):
        gates = SERVING[once.use.function_code]
        for _ in range(SCANS):
            number = len(made)
            scan_id = f"{once.scan_id[:-8]}{number:08d}"
            made.append(scan(once.token, once.use, *gates[number % len(gates)], scan_id))
    return made


def _settle(name: str, supply: Supply, made: list[Scan], run: Run, said: dict[int, dict[str, Any]]) -> None:
    """One of every five passed, the others were told by which. Raises Unclean."""
    places = range(0, len(made), SCANS)
    asked = [at for at in places if any(run.sent[at : at + SCANS])]
    supply.give_back([made[at].use for at in places if not any(run.sent[at : at + SCANS])])
    checked(name, run, wanted=len(asked))
    for first in asked:
        _one_passed(name, [(said[at], made[at]) for at in range(first, first + SCANS) if at in said])


def _one_passed(name: str, told: Sequence[tuple[dict[str, Any], Scan]]) -> None:
    passed = [each for each in told if each[0]["result"] == "success"]
    if len(passed) != 1:
        raise Unclean(f"{name}: {len(passed)} of {len(told)} scans of one QR passed: {told}")
    winner, of_winner = passed[0]
    check_success(name, winner, of_winner)
    for answer, _ in told:
        first = answer.get("first_redemption") or {}
        if answer is not winner and (
            answer.get("reason") != "ALREADY_REDEEMED" or first.get("event_id") != winner["event_id"]
        ):
            raise Unclean(f"{name}: a QR that was spent by {winner['event_id']} was told {answer}")


def arguments(parser: ArgumentParser) -> None:
    """What the scenario takes."""
    parser.add_argument("--seconds", type=phase_seconds, default=2.0, help="of each phase (2)")
    parser.add_argument("--rounds", type=int, default=3, help="of the closed loops (3)")
    parser.add_argument("--tickets", type=int, default=10_000, help="loaded before (10,000)")


async def run(bed: Bed, options: Namespace) -> Report:
    """Measure beside the no-op, audit, report."""
    report = bed.report("storm")
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(bed.site(tickets=options.tickets))
        measurement = await stack.enter_async_context(Measurement(site))
        suite = Suite(bed, site, stack, measurement)
        await suite.add(["noop"])
        await measurement.add(StormHttp("storm_http", site.address, suite.scans, suite.supply))
        socket = StormSocket(site.address, suite.scans, suite.supply)
        socket.name = "storm_socket"
        if await socket.is_served():
            await measurement.add(socket)
        else:
            report.not_served.append(socket.name)
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            await measurement.peak_round(options.seconds)
        fill(report, measurement, bed.pinning)
        report.audit = await site.audit()
    return report
