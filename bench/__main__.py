"""The command line of the harness: `scripts/bench [SCENARIO]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
from pathlib import Path
from time import perf_counter
from typing import Final, Protocol

import msgspec
import uvloop

from bench import compare
from bench.answers import AnswerError
from bench.bed import APPENDFSYNC, Bed
from bench.machine import choose_pinning, pin, say
from bench.plot import plots
from bench.processes import ROOT, ProcessError
from bench.report import Report
from bench.scenarios import (
    canonical,
    day,
    flash_sale,
    growth,
    overload,
    pay_storm,
    restore,
    soak,
    steady,
    storm,
    workers,
)
from bench.site import Unclean
from bench.table import render
from server.dev.embedded import EmbeddedServerError, embedded
from server.domain.errors import Refusal
from server.telemetry import configure_logging

RESULTS: Final = ROOT / "bench" / "results"


class Scenario(Protocol):
    """A module of `bench.scenarios`; its docstring begins with its name, a colon, and what it shows."""

    __doc__: str | None

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add what the scenario takes."""

    async def run(self, bed: Bed, options: argparse.Namespace) -> Report:
        """Measure, audit, report. Raises Unclean when an answer is not what it must be."""


_SCENARIOS: Final[dict[str, Scenario]] = {
    "canonical": canonical,
    "steady": steady,
    "storm": storm,
    "flash-sale": flash_sale,
    "pay-storm": pay_storm,
    "day": day,
    "growth": growth,
    "workers": workers,
    "overload": overload,
    "restore": restore,
    "soak": soak,
}


def main(arguments: list[str]) -> int:
    """Run one scenario, or compare two results.

    0 when every answer was what it must be and the audit is clean; 1 when not; 2 for a wrong call.
    """
    options = _parser().parse_args(arguments or ["canonical"])
    try:
        if options.scenario == "compare":
            return _compare(options.files)
        report = _run(options)
    except (
        Unclean,
        AnswerError,
        ProcessError,
        EmbeddedServerError,
        Refusal,
        compare.ResultError,
        OSError,
    ) as fault:
        say(f"bench: {fault}")
        return 1
    except KeyboardInterrupt:
        return 130
    file = _write(report, options.out)
    sys.stdout.write(render(report) + "\n\n")
    if compare.BASELINE.exists() and report.scenario == "canonical":
        _compare([file])
    sys.stdout.write(f"{file}\n")
    return 0 if report.audit.get("ok") else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure Gateline. Without arguments: the canonical run."
    )
    words = parser.add_subparsers(dest="scenario", metavar="SCENARIO", required=True)
    for name, scenario in _SCENARIOS.items():
        told = (scenario.__doc__ or "").partition(": ")[2].splitlines()[0]
        one = words.add_parser(name, help=told, description=scenario.__doc__)
        one.add_argument("--no-pin", action="store_true", help="leave the processes to the scheduler")
        one.add_argument("--out", type=Path, default=RESULTS, help="where results go (bench/results)")
        scenario.arguments(one)
    two = words.add_parser(
        "compare", help="two results, before and after; one: against the committed baseline"
    )
    two.add_argument("files", nargs="+", type=Path, metavar="FILE")
    return parser


def _run(options: argparse.Namespace) -> Report:
    began = perf_counter()
    folder = _folder()
    pinning = choose_pinning(pin=not options.no_pin)
    try:
        with embedded(
            folder, need_valkey=True, need_postgres=True, appendfsync=APPENDFSYNC, erase=True
        ) as servers:
            pin(os.getpid(), pinning.others)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                report = runner.run(_SCENARIOS[options.scenario].run(Bed(servers, folder, pinning), options))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.seconds = round(perf_counter() - began, 1)
    return report


def _folder() -> Path:
    """A folder for this run's databases, on the disk of the checkout; those of runs that were killed are removed."""
    home = ROOT / ".gateline"
    home.mkdir(exist_ok=True)
    for left in home.glob("bench-*"):
        if not Path("/proc", left.name.removeprefix("bench-")).exists():
            shutil.rmtree(left, ignore_errors=True)
    return home / f"bench-{os.getpid()}"


def _compare(files: list[Path]) -> int:
    if len(files) > 2:
        say("bench: compare takes two results, or one to hold against the baseline")
        return 2
    before, after = files if len(files) == 2 else (compare.BASELINE, files[0])
    found = compare.changes(compare.read(before), compare.read(after))
    sys.stdout.write(compare.render(found, colour=sys.stdout.isatty()) + "\n")
    return 0


def _write(report: Report, folder: Path) -> Path:
    """The result as JSON, and its plots beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{report.scenario}-{report.at.replace(':', '').replace('-', '')}"
    for name, drawing in plots(report).items():
        (folder / f"{stem}-{name}").write_text(drawing, encoding="utf-8")
    file = folder / f"{stem}.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return file


if __name__ == "__main__":
    configure_logging("error")  # not in `main`: who calls it has logs of their own
    sys.exit(main(sys.argv[1:]))
