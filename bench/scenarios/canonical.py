"""canonical: every lane against no-op, naive and plain Postgres; peaks, latencies, lag, CPU. What README shows."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final

from bench.bed import Bed
from bench.report import Report
from bench.suite import LANES, measure

TICKETS: Final = 70_000  # with three functions of four uses each
ROUNDS: Final = 5
PEAK_S: Final = 1.5
LATENCY_S: Final = 3.0


def arguments(parser: ArgumentParser) -> None:
    """Nothing: this run is the same for everyone."""


async def run(bed: Bed, options: Namespace) -> Report:
    """Measure, audit, report."""
    report = bed.report("canonical")
    await measure(bed, report, LANES, tickets=TICKETS, rounds=ROUNDS, seconds=PEAK_S, latency_s=LATENCY_S)
    return report
