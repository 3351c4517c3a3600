"""Misbehaviour is spelled, bounded and drawn as it says."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from server.dev.wechat_faults import CallFault, Dice, Faults, everything, parse


def test_a_text_sets_the_faults_that_it_names() -> None:
    assert parse("") == Faults()
    assert parse(" notify_lost=0.25, call_hangs=1,seed=7,hang_s=2.5 ") == Faults(
        notify_lost=0.25, call_hangs=1.0, seed=7, hang_s=2.5
    )
    assert parse("everything") == everything()
    assert parse("everything,seed=3,notify_lost=0") == msgspec.structs.replace(everything(3), notify_lost=0.0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("explode=1", "'explode=1' is no fault. Legal: everything"),
        ("notify_lost", "'notify_lost' is no fault"),
        ("seed=1,everything", "'everything' is no fault. Legal: everything .first."),
        ("notify_lost=often", "notify_lost=often is not a number"),
        ("notify_lost=1.1", "notify_lost=1.1 is not a rate: 0 to 1"),
        ("notify_lost=-0.1", "is not a rate"),
        ("notify_lost=nan", "is not a rate"),
        ("seed=1.5", "seed=1.5 is not a number"),
        ("hang_s=0", "hang_s=0 is not in 0 to 15 seconds"),
        ("hang_s=16", "hang_s=16 is not in 0 to 15 seconds"),
        ("call_hangs=0.6,call_limited=0.6", "add up to more than 1"),
    ],
)
def test_a_text_that_is_no_faults_is_told_what_is_legal(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text)


def test_everything_is_everything_and_lets_most_calls_through() -> None:
    rates = {
        name: rate
        for name, rate in msgspec.structs.asdict(everything()).items()
        if name not in ("seed", "hang_s")
    }

    assert all(0 < rate < 0.5 for rate in rates.values())
    assert sum(everything().calls().values()) < 0.35


def test_dice_are_true_to_their_rates_and_repeat_by_seed() -> None:
    faults = everything(seed=11)
    drawn = [Dice(faults).call("jsapi") for _ in range(2)]
    dice, again = Dice(faults), Dice(faults)
    many = [dice.call("jsapi") for _ in range(10_000)]
    counts = Counter(many)

    assert drawn[0] == drawn[1]
    assert [again.call("jsapi") for _ in range(10_000)] == many
    assert [Dice(everything(12)).call("jsapi") for _ in range(1)] + [
        dice.call("close") for _ in range(99)
    ] != many[:100]
    for fault, rate in faults.calls().items():
        assert counts[fault] == pytest.approx(rate * 10_000, rel=0.25)
    assert set(counts) == {None, *faults.calls()}
    assert CallFault.DROPPED not in counts


def test_each_kind_of_thing_has_dice_of_its_own() -> None:
    alone, beside = Dice(everything()), Dice(everything())
    for _ in range(10):
        beside.call("query")

    assert [alone.call("jsapi") for _ in range(100)] == [beside.call("jsapi") for _ in range(100)]
    assert alone.stream("native").random() != alone.stream("h5").random()


def test_without_faults_nothing_befalls_anything() -> None:
    dice = Dice(Faults())

    assert {dice.call("jsapi") for _ in range(1_000)} == {None}
    assert not any(dice.happens("notify_lost") for _ in range(1_000))
