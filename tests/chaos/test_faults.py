"""How the course of a fault is judged: from answers with their times to seconds, hangs and losses that are known."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.audit.findings import breach, doubled, lost
from tests.chaos.client import Heard, Tally
from tests.chaos.faults import run
from tests.chaos.faults.fault import FAULTS
from tests.chaos.faults.run import Course
from tests.chaos.run import Outcome


def course(*heard: Heard, name: str = "valkey killed") -> Course:
    """A fault from second 10 to 12 with these answers."""
    tally = Tally(heard=list(heard))
    outcome = Outcome(1, 0.0, "fsync", tally)
    return Course(FAULTS[name], began=10.0, repaired=12.0, calm=True, outcome=outcome, readiness=Counter())


def bad(at: float, *, ms: float = 5.0) -> Heard:
    """An answer that says nothing about its command."""
    return Heard(at, "scan", "503 GATE_CLOSED", ms, definite=False)


def test_it_works_again_when_the_last_bad_answer_is_over() -> None:
    good = Heard(14.0, "scan", "200", 3.0, definite=True)

    assert course(bad(9.0), good).bad() == []
    assert course(bad(9.0), good).back_s == 0.0  # before it began: not its doing
    assert course(bad(11.0), good).back_s == 0.0  # while it lasted
    assert course(bad(11.0), bad(13.5), good).back_s == 1.5
    assert course(bad(13.5), good).row()[1] == "503 GATE_CLOSED × 1"


def test_a_hang_and_a_fault_that_does_not_end_are_not_clean() -> None:
    assert course(bad(11.0)).clean
    assert not course(bad(11.0, ms=13_000)).clean
    stuck = course(bad(11.0))
    stuck.calm = False
    assert not stuck.clean
    assert stuck.row()[4] == "NOT WITHIN A MINUTE"
    found = course(bad(11.0))
    assert found.outcome is not None
    found.outcome.check = ["reserved 2, held 1"]
    assert not found.clean


def test_the_slowest_answers_since_it_began_are_told_with_their_kind() -> None:
    quick, before = Heard(11.0, "show", "200", 3.0, definite=True), bad(9.0, ms=900.0)
    told = course(before, quick, bad(11.0, ms=80.0), bad(11.5, ms=20.0))

    assert told.slowest_ms == 80.0
    assert told.slowest() == "slowest: scan 503 GATE_CLOSED 80 ms, show 200 3 ms"


def test_only_a_loss_that_is_known_may_happen_and_what_follows_from_it() -> None:
    gone = lost("4 told is recorded", "scan 1", ("scan", "1"))
    follows = doubled("5 one scan_id, one verdict", "scan 1")
    judged = {}
    for name in ("valkey killed", "valkey emptied"):
        for findings in ([gone], [gone, follows], [gone, breach("dead letters", "a wrong green")]):
            each = course(name=name)
            assert each.outcome is not None
            each.outcome.findings = findings
            judged[name, len(findings), findings[-1].rule] = each.clean

    assert [key for key, clean in judged.items() if clean] == [
        ("valkey emptied", 1, "4 told is recorded"),
        ("valkey emptied", 2, "5 one scan_id, one verdict"),
    ]
    assert each.counted == {"lost": 1, "doubled": 0, "breaches": 1, "check": 0}
    assert each.row()[-3:] == ("1", "0", "1")


async def test_a_fault_that_there_is_not_is_answered_with_those_that_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run.run(["volcano"], tmp_path, 1, None) == 2
    assert "valkey emptied" in capsys.readouterr().err
    assert len(FAULTS) >= 18
