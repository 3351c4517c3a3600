"""workers: one process and `--workers 2` on the same cores, nothing pinned: what a second process brings.

Both serve the same installation; the verdicts of both are audited together.
"""

from __future__ import annotations

import dataclasses
import os
from argparse import ArgumentParser, Namespace
from contextlib import AsyncExitStack
from typing import Final

from bench.bed import Bed
from bench.durations import phase_seconds
from bench.lanes_scan import HttpScan, SocketScan
from bench.machine import choose_pinning, pin, say
from bench.measure import Measurement
from bench.processes import GATELINE, running
from bench.report import Report, lag_report, lane_report, notes, ratio
from bench.requests import Scans, Supply

LANES: Final = ("http_scan", "socket_scan")  # uploads come over too few connections to be spread evenly


def arguments(parser: ArgumentParser) -> None:
    """What the scenario takes."""
    parser.add_argument("--workers", type=int, default=2, help="held against one (2)")
    parser.add_argument("--tickets", type=int, default=60_000, help="loaded before (60,000)")
    parser.add_argument("--seconds", type=phase_seconds, default=2.0, help="of each phase (2)")
    parser.add_argument("--rounds", type=int, default=4, help="of the closed loops (4)")


async def run(bed: Bed, options: Namespace) -> Report:
    """Start both, measure in turn, audit, report."""
    cores = sorted(bed.pinning.cores)
    pin(os.getpid(), cores)
    bed = dataclasses.replace(bed, pinning=choose_pinning(pin=False))
    report = bed.report("workers")
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(bed.site(tickets=options.tickets))
        words = (*GATELINE, "serve", "--workers", str(options.workers))
        several, said = await stack.enter_async_context(
            running(words, site.environment, cores, event="serving")
        )
        site.processes.append(several)
        measurement = await stack.enter_async_context(Measurement(site))
        scans, supply = Scans(site.config), Supply(site.scene)
        for number, address, groups in (
            (1, site.address, site.groups),
            (options.workers, said["address"], site.groups | {"serve": [several.pid]}),
        ):
            for lane in _lanes(address, scans, supply):
                lane.name = f"{lane.name} {number}w"
                await measurement.add(lane, groups)
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            await measurement.peak_round(options.seconds)
        _fill(report, bed, measurement, options.workers)
        say("gateline check")
        report.audit = await site.audit()
    return report


def _lanes(address: str, scans: Scans, supply: Supply) -> list[HttpScan | SocketScan]:
    return [HttpScan("http_scan", address, scans, supply), SocketScan(address, scans, supply)]


def _fill(report: Report, bed: Bed, measurement: Measurement, workers: int) -> None:
    report.lanes = {name: lane_report(each, bed.pinning) for name, each in measurement.lanes.items()}
    for name in LANES:
        several, one = report.lanes[f"{name} {workers}w"], report.lanes[f"{name} 1w"]
        report.ratios[f"{name}_{workers}w/1w"] = ratio(several, one)
        cpu = round(one.cpu_us["serve"] / several.cpu_us["serve"], 3)
        report.ratios_cpu[f"{name}_{workers}w/1w"] = cpu
    report.lag = lag_report(measurement.lag)
    report.notes += notes(report.lanes)
