"""What a run looks like while it runs, on standard error, and the table at its end."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.chaos.client import Tally

EVERY_S = 5.0


def say(text: str) -> None:
    """A line for whoever watches."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def tell(text: str) -> None:
    """A line of the result."""
    print(text, flush=True)  # noqa: T201


async def follow(tally: Tally, kills: Callable[[], int], lag_s: Callable[[], float]) -> None:
    """A line every five seconds (every second on a terminal), until cancelled."""
    every_s = 1.0 if sys.stderr.isatty() else EVERY_S
    began = before = time.monotonic()
    sent = acknowledged = 0
    while True:
        await asyncio.sleep(every_s)
        now = time.monotonic()
        took, before = now - before, now
        say(
            f"{now - began:6.0f} s  {kills():3d} kills  {(tally.sent - sent) / took:5.0f}/s sent  "
            f"{(tally.acknowledged - acknowledged) / took:5.0f}/s acknowledged  lag {lag_s():5.2f} s"
        )
        sent, acknowledged = tally.sent, tally.acknowledged


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of one width."""
    lines = [tuple(map(str, head)), *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    spelled = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([spelled[0], "  ".join("-" * width for width in widths), *spelled[1:]])


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The same for a README."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def by_kind(done: Counter[str]) -> list[tuple[str, int, str]]:
    """What was done to whom: kind, how often, and to which."""
    kinds: dict[str, Counter[str]] = {}
    for what, times in done.items():
        kind, _, target = what.partition(" ")
        kinds.setdefault(kind, Counter())[target] += times
    return [
        (kind, sum(targets.values()), ", ".join(f"{name} {n}" for name, n in sorted(targets.items())))
        for kind, targets in sorted(kinds.items(), key=lambda each: (each[0] != "kill", each[0]))
    ]
