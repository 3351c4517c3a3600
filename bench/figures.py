"""The arithmetic of the harness: percentiles, medians, and the schedule of arrivals."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from statistics import median


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values do not pass (nearest rank); nan of none.

    `ordered` is sorted; `share` is from 0 to 1.
    """
    if not ordered:
        return math.nan
    rank = math.ceil(share * len(ordered) - 1e-9)  # 0.99 * 100 is a little more than 99 in binary
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def arrivals(number: int, rate: float, *, seed: int) -> array[float]:
    """When `number` independent arrivals come at `rate` a second: seconds from the start, in order.

    Gaps are exponential, as those of visitors who know nothing of each other, and scaled so that the last comes at
    exactly `number / rate`: the offered rate is what was asked for, however few they are.
    """
    dice = random.Random(seed)  # noqa: S311  (a schedule that repeats, no secret)
    at, times = 0.0, array("d")
    for _ in range(number):
        at += dice.expovariate(1.0)
        times.append(at)
    scale = number / rate / at if at else 0.0
    return array("d", (each * scale for each in times))


def middle(values: Sequence[float]) -> float:
    """The median; nan of none."""
    return median(values) if values else math.nan
