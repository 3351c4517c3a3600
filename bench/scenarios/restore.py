"""restore: a backup of the record while scans go on, and a whole installation rebuilt from it; how long each takes.

Everything is lost in between: the record is read back into a new database, and Redis is emptied before.
"""

from __future__ import annotations

import asyncio
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter
from typing import Final

import asyncpg
from redis.asyncio import Redis

from bench.bed import Bed
from bench.machine import say
from bench.measure import Measurement
from bench.processes import output
from bench.report import Report
from bench.site import Unclean
from bench.suite import Suite

_DATABASE: Final = "bench_restored"


def arguments(parser: ArgumentParser) -> None:
    """What the scenario takes."""
    parser.add_argument("--tickets", type=int, default=100_000, help="in the record (100,000)")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of scans before, and while, it is backed up (20)"
    )


async def run(bed: Bed, options: Namespace) -> Report:
    """Scan, back up meanwhile, lose everything, restore, audit, report."""
    report = bed.report("restore")
    file = bed.folder / "record.dump"
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(bed.site(tickets=options.tickets))
        measurement = await stack.enter_async_context(Measurement(site))
        suite = Suite(bed, site, stack, measurement)
        await suite.add(("batch_scan",))
        report.not_served = suite.not_served
        await measurement.peak_round(options.seconds / 2)
        backing_up = asyncio.create_task(_timed(("backup", str(file)), site.environment))
        await measurement.peak_round(options.seconds / 2)
        backup_s, _ = await backing_up
        environment = dict(site.environment)
    await _lose_everything(environment)
    say("everything is lost; restoring")
    restore_s, printed = await _timed(("restore", str(file)), environment)
    report.figures = {
        "tickets": options.tickets,
        "the record is back": printed.partition("is back: ")[2].partition("\n")[0],
        "backup: bytes": _size(file),
        "backup, while scans go on: seconds": round(backup_s, 1),
        "restore, rehydrate, check: seconds": round(restore_s, 1),
    }
    _, printed, _ = await output(("check", "--json"), environment)
    report.audit = json.loads(printed)
    report.audit["looked_at"] = sum(finding["looked_at"] for finding in report.audit["findings"])
    return report


async def _timed(words: tuple[str, ...], environment: Mapping[str, str]) -> tuple[float, str]:
    """How long a `gateline` command took, and what it printed. Raises Unclean when it failed."""
    began = perf_counter()
    status, printed, complained = await output(words, environment)
    if status:
        raise Unclean(f"`gateline {words[0]}` failed with status {status}: {complained or printed}")
    return perf_counter() - began, printed


async def _lose_everything(environment: dict[str, str]) -> None:
    """A new, empty database; an emptied Redis."""
    admin = await asyncpg.connect(environment["GATELINE_OWNER_DATABASE_URL"])
    await admin.execute(f"CREATE DATABASE {_DATABASE}")
    await admin.close()
    for name in ("DATABASE_URL", "GATELINE_OWNER_DATABASE_URL"):
        environment[name] = environment[name].rpartition("/")[0] + f"/{_DATABASE}"
    async with Redis.from_url(environment["REDIS_URL"]) as redis:
        await redis.flushall()


def _size(file: Path) -> int:
    return file.stat().st_size
