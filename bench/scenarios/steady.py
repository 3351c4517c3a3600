"""steady: some lanes at their peak, in turn, and how they compare. Short, for whoever works on a lane."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from bench.bed import Bed
from bench.durations import phase_seconds
from bench.lanes_scan import HTTP_CONNECTIONS
from bench.report import Report
from bench.suite import LANES, measure


def arguments(parser: ArgumentParser) -> None:
    """What the scenario takes."""
    parser.add_argument("--seconds", type=phase_seconds, default=2.0, help="of each phase of each lane (2)")
    parser.add_argument("--rounds", type=int, default=3, help="of the closed loops (3)")
    parser.add_argument("--tickets", type=int, default=30_000, help="loaded before (30,000)")
    parser.add_argument(
        "--connections",
        type=int,
        default=HTTP_CONNECTIONS,
        help=f"of POST /venue/scan, and at the no-op ({HTTP_CONNECTIONS})",
    )
    parser.add_argument(
        "--latency", action="store_true", help="also open loops, at full and half of the peak"
    )
    parser.add_argument(
        "--lanes",
        type=_lanes,
        default=("noop", "http_scan"),
        metavar="NAME,…",
        help=f"of {', '.join(LANES)}, or all (noop,http_scan)",
    )


def _lanes(text: str) -> tuple[str, ...]:
    names = LANES if text == "all" else tuple(text.split(","))
    if unknown := set(names) - set(LANES):
        raise ArgumentTypeError(f"there is no lane {', '.join(sorted(unknown))}")
    if "settlement" in names and "orders" not in names:
        raise ArgumentTypeError("settlement needs orders beside it")
    return names


async def run(bed: Bed, options: Namespace) -> Report:
    """Measure, audit, report."""
    report = bed.report("steady")
    await measure(
        bed,
        report,
        options.lanes,
        tickets=options.tickets,
        rounds=options.rounds,
        seconds=options.seconds,
        latency_s=options.seconds if options.latency else 0.0,
        connections=options.connections,
    )
    return report
