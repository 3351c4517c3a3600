"""Before and after: two results held against each other by their ratios, which drift and machine touch least."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bench.table import grid

BASELINE: Final = Path(__file__).parent / "baseline.json"
FALL: Final = 0.1  # a ratio that falls by more than this part of what it was is shown in red
_RED, _PLAIN = "\x1b[31m", "\x1b[0m"
# Figures of which less is better; of all others more is.
_LESS_IS_BETTER: Final = frozenset({"redis_bytes_per_ticket"})


class ResultError(ValueError):
    """A file is no result of ours; the message says why."""


class Result(msgspec.Struct, frozen=True):
    """What comparing needs of a result."""

    scenario: str
    at: str
    ratios: dict[str, float]
    ratios_cpu: dict[str, float] = {}


class Change(NamedTuple):
    """One ratio, before and after; nan where it was not measured."""

    name: str
    before: float
    after: float

    @property
    def fell(self) -> bool:
        """Worse by more than a tenth. What was not measured on both sides neither fell nor rose."""
        if math.isnan(self.before) or math.isnan(self.after) or not self.before:
            return False
        worse = self.after - self.before if self.name in _LESS_IS_BETTER else self.before - self.after
        return worse > FALL * self.before + 1e-12


def read(file: Path) -> Result:
    """A result. Raises ResultError when it is none."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Result)
    except (OSError, msgspec.DecodeError) as fault:
        raise ResultError(f"{file} is no result of the bench: {fault}") from fault


def changes(before: Result, after: Result) -> list[Change]:
    """Every ratio of either, by rate and then by CPU."""
    found = []
    for mark, old, new in (
        ("", before.ratios, after.ratios),
        (" by CPU", before.ratios_cpu, after.ratios_cpu),
    ):
        found += [
            Change(name + mark, old.get(name, math.nan), new.get(name, math.nan)) for name in {**old, **new}
        ]
    return found


def render(found: list[Change], *, colour: bool) -> str:
    """A table; what fell is marked, and red where there is colour."""
    rows = [
        [change.name, _told(change.before), _told(change.after), _rise(change), "FELL" if change.fell else ""]
        for change in found
    ]
    lines = grid(["ratio", "before", "after", "change", ""], rows).split("\n")
    for at, change in enumerate(found, 2):
        if change.fell and colour:
            lines[at] = f"{_RED}{lines[at]}{_PLAIN}"
    return "\n".join(lines)


def _told(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.3f}"


def _rise(change: Change) -> str:
    if math.isnan(change.before) or math.isnan(change.after) or not change.before:
        return ""
    return f"{change.after / change.before - 1:+.0%}"
