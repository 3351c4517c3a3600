"""soak: every lane at half of its peak for as long as you like; memory, latency and lag must not creep."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import AsyncExitStack
from time import perf_counter
from typing import Any, Final

from bench.bed import Bed
from bench.cpu import memory_mib
from bench.machine import say
from bench.measure import Measurement
from bench.report import Report
from bench.suite import OURS, Suite, fill

PHASE_S: Final = 5.0  # of a lane, before the next has its turn
_USES_A_SECOND: Final = 12_000.0  # more than the lanes take on average, so that the tickets last
_USES_OF_A_TICKET: Final = 12


def arguments(parser: ArgumentParser) -> None:
    """What the scenario takes."""
    parser.add_argument("--seconds", type=float, default=60.0, help="altogether (60)")
    parser.add_argument("--tickets", type=int, help="loaded before (as many as the time needs)")


async def run(bed: Bed, options: Namespace) -> Report:
    """Load in turn until the time is over, audit, report."""
    report = bed.report("soak")
    needed = int(options.seconds * _USES_A_SECOND / _USES_OF_A_TICKET)
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(bed.site(tickets=options.tickets or max(20_000, needed)))
        measurement = await stack.enter_async_context(Measurement(site))
        suite = Suite(bed, site, stack, measurement)
        await suite.add([*OURS, "noop"])
        await measurement.peak_round(1.0)
        turns: list[dict[str, Any]] = []
        until = perf_counter() + options.seconds
        while not turns or perf_counter() < until:
            await measurement.latency_round(PHASE_S, "half")
            memory = {name: round(sum(map(memory_mib, pids)), 1) for name, pids in site.groups.items()}
            p99 = {f"{name} p99, ms": each.latency["half"].p99 for name, each in measurement.lanes.items()}
            at_s = round(options.seconds + perf_counter() - until, 1)
            turns.append({"at, s": at_s, **{f"{name}, MiB": mib for name, mib in memory.items()}, **p99})
            say(f"  memory: {', '.join(f'{name} {mib:,.0f} MiB' for name, mib in memory.items())}")
        first, last = turns[0], turns[-1]
        report.figures = {
            "turns": len(turns),
            **{
                f"{name} grew by, MiB": round(last[f"{name}, MiB"] - first[f"{name}, MiB"], 1)
                for name in ("serve", "work")
            },
            "by turn": turns,
        }
        fill(report, measurement, bed.pinning)
        report.not_served = suite.not_served
        report.audit = await site.audit()
    return report
