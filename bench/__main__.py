"""The command line of the harness: `scripts/bench [SCENARIO]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from time import perf_counter
from typing import Final, Protocol

import msgspec
import uvloop

from bench.bed import APPENDFSYNC, Bed
from bench.machine import choose_pinning, pin, say
from bench.processes import ROOT, ProcessError
from bench.report import Report
from bench.scenarios import canonical, steady
from bench.site import Unclean
from bench.table import render
from server.dev.embedded import EmbeddedServerError, embedded
from server.telemetry import configure_logging

RESULTS: Final = ROOT / "bench" / "results"


class Scenario(Protocol):
    """A module of `bench.scenarios`; its docstring begins with its name, a colon, and what it shows."""

    __doc__: str | None

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add what the scenario takes."""

    async def run(self, bed: Bed, options: argparse.Namespace) -> Report:
        """Measure, audit, report. Raises Unclean when an answer is not what it must be."""


_SCENARIOS: Final[dict[str, Scenario]] = {"canonical": canonical, "steady": steady}


def main() -> int:
    """Run one scenario; 0 when everything that was asked for was answered as it must be, and the audit is clean."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure Gateline, honestly.")
    words = parser.add_subparsers(dest="scenario", metavar="SCENARIO")
    for name, scenario in _SCENARIOS.items():
        one = words.add_parser(name, help=(scenario.__doc__ or "").partition(": ")[2].partition(".")[0])
        one.add_argument("--no-pin", action="store_true", help="leave the processes to the scheduler")
        scenario.arguments(one)
    options = parser.parse_args()
    configure_logging("error")
    try:
        report = _run(options)
    except (Unclean, ProcessError, EmbeddedServerError, ValueError) as fault:
        say(f"bench: {fault}")
        return 1
    sys.stdout.write(f"{render(report)}\n{_write(report)}\n")
    return 0 if report.audit.get("ok") else 1


def _run(options: argparse.Namespace) -> Report:
    began = perf_counter()
    folder = ROOT / ".gateline" / "bench"
    pinning = choose_pinning(pin=not options.no_pin)
    with embedded(
        folder, need_valkey=True, need_postgres=True, appendfsync=APPENDFSYNC, erase=True
    ) as servers:
        pin(os.getpid(), pinning.others)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(_SCENARIOS[options.scenario].run(Bed(servers, folder, pinning), options))
    report.seconds = round(perf_counter() - began, 1)
    return report


def _write(report: Report) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{report.scenario}-{report.at.replace(':', '')}.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return file


if __name__ == "__main__":
    sys.exit(main())
