"""`python -m tests.chaos`: see `scripts/chaos`."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import uvloop

from server.telemetry import configure_logging
from tests.chaos import acks, run
from tests.chaos.faults import run as faults


def main(argv: Sequence[str] | None = None) -> int:
    """One run; the exit status is 1 when anything was lost, doubled or breached."""
    arguments = _parser().parse_args(argv)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1_000_000)
    configure_logging("error")  # of what the harness itself does with the server's parts
    with tempfile.TemporaryDirectory(prefix="gateline-chaos-") as folder:
        Path(folder).chmod(0o711)  # an unprivileged account passes through it to its Postgres
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_run(arguments, seed, Path(folder)))
        finally:
            if arguments.keep is not None:
                for diaries in Path(folder).rglob("diaries"):
                    shutil.copytree(diaries, arguments.keep / diaries.parent.name, dirs_exist_ok=True)


async def _run(arguments: argparse.Namespace, seed: int, folder: Path) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, task.cancel
    )  # everything is ended and erased
    if arguments.faults is not None:
        return await faults.run(arguments.faults, folder, seed, arguments.markdown)
    seconds = arguments.minutes * 60 if arguments.minutes else arguments.seconds
    if arguments.ack is not None:
        outcome, kept = await acks.run(folder / "acks", ack=arguments.ack, seconds=seconds, seed=seed)
        run.tell(outcome)
        return 0 if kept else 1
    outcome = await run.storm(
        folder / "storm", seconds=seconds, seed=seed, workers=arguments.workers, shards=arguments.shards
    )
    run.tell(outcome)
    return 0 if outcome.clean else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description="Break everything, then audit.")
    parser.add_argument("--seed", type=int, help="what goes wrong, and what clients do; by default a new one")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to keep the clients' diaries")
    parser.add_argument("--faults", nargs="*", metavar="NAME", help="each fault by itself, or only these")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="with --faults: the table once more, there"
    )
    parser.add_argument(
        "--ack", choices=("memory", "fsync", "replica"), help="what this level loses when Valkey dies"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes of each server (1)")
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="of the tickets in Redis (1)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=60.0, help="of the storm (60)")
    length.add_argument("--minutes", type=float, help="of the storm")
    return parser


if __name__ == "__main__":
    sys.exit(main())
