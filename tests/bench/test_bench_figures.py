"""The arithmetic of the harness: percentiles by nearest rank, and schedules that offer what was asked for."""

from __future__ import annotations

import itertools
import math
from statistics import mean

import pytest

from bench.figures import arrivals, middle, percentile


@pytest.mark.parametrize(
    ("share", "value"),
    [
        (0.0, 1),
        (0.01, 1),
        (0.07, 7),
        (0.011, 2),
        (0.5, 50),
        (0.505, 51),
        (0.99, 99),
        (0.991, 100),
        (0.999, 100),
        (1.0, 100),
    ],
)
def test_a_percentile_is_the_smallest_value_that_covers_its_share(share: float, value: int) -> None:
    assert percentile(range(1, 101), share) == value


def test_a_percentile_of_one_value_is_that_value_and_of_none_is_not_a_number() -> None:
    assert [percentile([7.5], share) for share in (0.0, 0.5, 0.999, 1.0)] == [7.5] * 4
    assert math.isnan(percentile([], 0.5))


def test_the_slowest_of_a_thousand_is_beyond_p999_and_of_ten_thousand_ten_are() -> None:
    assert percentile([1.0] * 999 + [90.0], 0.999) == 1.0
    assert percentile([1.0] * 998 + [90.0] * 2, 0.999) == 90.0
    assert percentile([1.0] * 9_989 + [90.0] * 11, 0.999) == 90.0


def test_arrivals_come_in_order_and_offer_exactly_the_rate() -> None:
    times = arrivals(3_000, 1_500.0, seed=1)

    assert len(times) == 3_000
    assert list(times) == sorted(times)
    assert times[0] > 0.0
    assert times[-1] == pytest.approx(2.0)


def test_arrivals_are_independent_of_each_other_and_the_same_again_for_one_seed() -> None:
    times = arrivals(20_000, 1_000.0, seed=3)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    average = mean(gaps)

    # Exponential gaps: their deviation is their mean, and 1 - 1/e of them are shorter than it.
    assert mean((gap - average) ** 2 for gap in gaps) ** 0.5 == pytest.approx(average, rel=0.05)
    assert sum(gap < average for gap in gaps) / len(gaps) == pytest.approx(1 - math.exp(-1), abs=0.02)
    assert arrivals(100, 10.0, seed=3) == arrivals(100, 10.0, seed=3)
    assert arrivals(100, 10.0, seed=3) != arrivals(100, 10.0, seed=4)


def test_the_middle_of_rounds_is_not_moved_by_one_that_was_disturbed() -> None:
    assert middle([0.71, 0.7, 9.9]) == 0.71
    assert math.isnan(middle([]))
