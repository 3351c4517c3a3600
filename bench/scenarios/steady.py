"""`steady`: lanes at their peak, in turn, and how they compare. Short, for whoever works on a lane."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import AsyncExitStack
from typing import Final

from bench.bed import Bed
from bench.lanes import HttpScan, Noop
from bench.machine import say
from bench.measure import SHARES, Measurement
from bench.report import Report, lag_report, lane_report, notes, ratios, ratios_cpu
from bench.requests import Scans, Supply

SCAN_LANES: Final = ("noop", "http_scan")


def arguments(parser: ArgumentParser) -> None:
    """What the scenario takes."""
    parser.add_argument("--seconds", type=float, default=2.0, help="of each phase of each lane (2)")
    parser.add_argument("--rounds", type=int, default=3, help="of the closed loops (3)")
    parser.add_argument("--tickets", type=int, default=20_000, help="loaded before (20,000)")
    parser.add_argument("--latency", action="store_true", help="also open loops at full and half of the peak")


async def run(bed: Bed, options: Namespace) -> Report:
    """Measure, audit, report."""
    report = bed.report("steady")
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(bed.site(tickets=options.tickets))
        measurement = await stack.enter_async_context(Measurement(site))
        scans, supply = Scans(site.config), Supply(site.scene)
        http = await measurement.add(HttpScan("http_scan", site.address, scans, supply))
        answer = bed.folder / "answer"
        answer.write_bytes(http.answer)
        address, groups = await bed.compared(stack, "noop", str(answer))
        await measurement.add(Noop("noop", address, scans, supply), groups)
        serving = {"http_scan": "serve", "noop": "noop"}
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            await measurement.peak_round(options.seconds)
        for share in SHARES if options.latency else ():
            await measurement.latency_round(options.seconds, share)
        cores = len(bed.pinning.cores)
        report.lanes = {name: lane_report(each, cores) for name, each in measurement.lanes.items()}
        report.ratios, report.ratios_cpu = ratios(report.lanes), ratios_cpu(report.lanes, serving)
        report.lag = lag_report(measurement.lag)
        report.audit = await site.audit()
    report.notes += notes(report.lanes)
    return report
