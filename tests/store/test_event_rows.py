"""Recorded verdicts become rows of COPY, and what the script never wrote is refused."""

from __future__ import annotations

from collections import Counter

import pytest

from server.domain.redemption import Verdict
from server.store import event_rows

LINE = {
    "verdict": "0", "code": "CODE", "function": "bus", "status": "ACTIVE", "remaining": ",bus=1,", "first": "",
    "decided_ms": "1700000000123", "jti": "ab", "scan_id": "scan", "at_ms": "1700000000007", "operator": "gina",
    "place": "pier\x1ft-1",
}  # fmt: skip


def line(**changes: str) -> str:
    return "\t".join((LINE | changes).values())


def test_a_line_becomes_a_row_with_its_times_and_place() -> None:
    read = event_rows.read(3, [("1-0", line()), ("1-1", line(verdict="10", first="00-1", place="\x1f"))])

    first, second = [
        dict(zip(event_rows.COLUMNS, row.split("\t"), strict=True)) for row in read.rows.splitlines()
    ]
    assert first == {
        "event_id": "03-1-0", "result": "success", "reason": r"\N", "ticket_code": "CODE", "function_code": "bus",
        "ticket_status": "ACTIVE", "remaining": ",bus=1,", "first_event": "", "jti": "ab", "scan_id": "scan",
        "decided_at": "2023-11-14 22:13:20.123+00", "scanned_at": "2023-11-14 22:13:20.007+00", "operator": "gina",
        "venue_code": "pier", "terminal_device_id": "t-1", "uploaded": "f",
    }  # fmt: skip
    changed = {"event_id": "03-1-1", "result": "reject", "reason": "ALREADY_REDEEMED", "first_event": "00-1"}
    assert second == first | changed | {"venue_code": r"\N", "terminal_device_id": r"\N"}


def test_a_scan_that_was_uploaded_later_says_so_and_lines_of_before_there_were_any_do_not() -> None:
    read = event_rows.read(0, [("1-0", line(upload="1")), ("1-1", line())])

    assert [row[-2:] for row in read.rows.splitlines()] == ["\tt", "\tf"]


def test_uses_are_counted_per_function_and_refusals_name_their_tickets() -> None:
    read = event_rows.read(
        0,
        [
            *((f"1-{n}", line()) for n in range(3)),
            ("2-0", line(function="ferry")),
            ("3-0", line(code="OTHER", verdict=str(int(Verdict.NO_REMAINING)))),
        ],
    )

    assert read.spent == Counter({("CODE", "bus"): 3, ("CODE", "ferry"): 1})
    assert read.refused == {"OTHER"}


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        "",
        "garbage",
        line(upload="more"),
        line(upload=""),
        line(upload="1", more="1"),
        line(verdict="12"),
        line(verdict="00"),
        line(verdict=""),
        line(place="nowhere"),
        line(place="a\x1fb\x1fc"),
        line(decided_ms="1700000000"),
        line(decided_ms="+700000000123"),
        line(at_ms="170000000012x"),
        line(at_ms="170000000012²"),
        line(at_ms="9" * 30),
    ],
)
def test_what_the_script_never_wrote_is_refused(garbage: str | None) -> None:
    with pytest.raises(ValueError):
        event_rows.read(0, [("1-0", line()), ("1-1", garbage)])
