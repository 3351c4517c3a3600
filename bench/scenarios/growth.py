"""growth: the scan rate with five million tickets loaded against ten thousand, memory per ticket, and the loading.

Two installations at once, each with a Valkey and a database of its own, measured in turn; as many different tickets are
scanned in both, those of the large one spread over all of it.
"""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import asyncpg

from bench.bed import APPENDFSYNC, Bed
from bench.durations import phase_seconds
from bench.machine import say
from bench.measure import Measurement
from bench.report import Report, lag_report, lane_report, notes, ratio
from bench.site import Site, fresh_environment, open_site
from bench.suite import Suite
from server.dev.embedded import EmbeddedServers, EmbeddedValkey

SMALL: Final = 10_000
# Of each function: what the rounds scan comes from ten thousand tickets, in both installations
USES: Final = 12
LANES: Final = ("http_scan", "socket_scan")
_DATABASE: Final = "bench_small"


def arguments(parser: ArgumentParser) -> None:
    """What the scenario takes."""
    parser.add_argument(
        "--tickets", type=int, default=5_000_000, help="in the large installation (5,000,000)"
    )
    parser.add_argument("--seconds", type=phase_seconds, default=2.0, help="of each phase (2)")
    parser.add_argument("--rounds", type=int, default=4, help="of the closed loops (4)")


async def run(bed: Bed, options: Namespace) -> Report:
    """Load both, measure in turn, audit both, report."""
    report = bed.report("growth")
    named = short(options.tickets)
    async with AsyncExitStack() as stack:
        large = await stack.enter_async_context(bed.site(tickets=options.tickets, uses=USES, keep=SMALL))
        small = await stack.enter_async_context(_small_site(bed))
        measurements = {}
        for label, site in ((short(SMALL), small), (named, large)):
            measurement = measurements[label] = await stack.enter_async_context(Measurement(site))
            suite = Suite(bed, site, stack, measurement)
            await suite.add(LANES)
            report.not_served = suite.not_served
        for number in range(options.rounds):
            for label, measurement in measurements.items():
                say(f"round {number + 1} of {options.rounds}, {label} tickets")
                await measurement.peak_round(options.seconds)
        _fill(report, bed, measurements)
        _fill_loaded(report, named, large)
        for label, site in ((short(SMALL), small), (named, large)):
            say(f"gateline check, {label} tickets")
            found = await site.audit()
            report.figures[f"check of {label}, seconds"] = found["seconds"]
            report.audit = found if not report.audit or report.audit["ok"] else report.audit
    return report


def short(number: int) -> str:
    """10,000 -> 10k; 5,000,000 -> 5m."""
    for size, letter in ((1_000_000, "m"), (1_000, "k")):
        if number >= size and number % size == 0:
            return f"{number // size}{letter}"
    return str(number)


@asynccontextmanager
async def _small_site(bed: Bed) -> AsyncIterator[Site]:
    """The small installation: a second Valkey, and a second database of the same Postgres."""
    valkey = EmbeddedValkey(bed.folder / "small", appendfsync=APPENDFSYNC)
    await asyncio.to_thread(valkey.start)
    try:
        servers = EmbeddedServers(valkey, bed.servers.postgres)
        environment = fresh_environment(servers, bed.folder / "small")
        admin = await asyncpg.connect(environment["GATELINE_OWNER_DATABASE_URL"])
        await admin.execute(f"CREATE DATABASE {_DATABASE}")
        await admin.close()
        for name in ("DATABASE_URL", "GATELINE_OWNER_DATABASE_URL"):
            environment[name] = environment[name].rpartition("/")[0] + f"/{_DATABASE}"
        async with open_site(servers, environment, bed.pinning, tickets=SMALL, uses=USES) as site:
            yield site
    finally:
        await asyncio.to_thread(valkey.erase)


def _fill(report: Report, bed: Bed, measurements: dict[str, Measurement]) -> None:
    small, large = measurements
    for name in LANES:
        for label, measurement in measurements.items():
            if name in measurement.lanes:
                report.lanes[f"{name} {label}"] = lane_report(measurement.lanes[name], bed.pinning)
    for name, told in (
        ("http_scan", f"growth_{large}/{small}"),
        ("socket_scan", f"growth_socket_{large}/{small}"),
    ):
        if f"{name} {small}" in report.lanes:
            many, few = (report.lanes[f"{name} {label}"] for label in (large, small))
            report.ratios[told] = ratio(many, few)
            report.ratios_cpu[told] = round(few.cpu_us["serve"] / many.cpu_us["serve"], 3)
            report.ratios_cpu[f"{told} valkey"] = round(few.cpu_us["valkey"] / many.cpu_us["valkey"], 3)
    report.lag = lag_report(measurements[large].lag)
    report.notes += notes(report.lanes)


def _fill_loaded(report: Report, named: str, large: Site) -> None:
    loaded = large.loaded
    report.ratios["redis_bytes_per_ticket"] = round(loaded.redis_bytes / loaded.tickets, 1)
    report.figures |= {
        "tickets": loaded.tickets,
        "redis bytes per ticket, used_memory": report.ratios["redis_bytes_per_ticket"],
        "redis bytes per ticket, MEMORY USAGE": round(loaded.sampled_bytes, 1),
        "copied into Postgres a second": round(loaded.tickets / loaded.copied_s),
        "rehydrated a second": round(loaded.tickets / loaded.rehydrated_s),
        f"rehydrating {named}, seconds": round(loaded.rehydrated_s, 1),
    }
