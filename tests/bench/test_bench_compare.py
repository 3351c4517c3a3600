"""Two results against each other: what fell by more than a tenth is told, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.compare import Change, ResultError, changes, read, render


def result(folder: Path, name: str, **ratios: float) -> Path:
    """A result file with these ratios."""
    file = folder / name
    body = {"scenario": "canonical", "at": "2026-05-01T00:00:00Z", "ratios": ratios, "other": {"kept": [1]}}
    file.write_text(json.dumps(body), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("name", "before", "after", "fell"),
    [
        ("http_scan/noop", 0.80, 0.71, True),
        ("http_scan/noop", 0.80, 0.72, False),  # exactly a tenth
        ("http_scan/noop", 0.80, 0.80, False),
        ("http_scan/noop", 0.80, 1.60, False),
        ("redis_bytes_per_ticket", 300.0, 331.0, True),  # of memory less is better
        ("redis_bytes_per_ticket", 300.0, 330.0, False),
        ("redis_bytes_per_ticket", 300.0, 100.0, False),
        ("orders/noop", 0.0, 0.0, False),
    ],
)
def test_a_ratio_fell_when_it_is_worse_by_more_than_a_tenth(
    name: str, before: float, after: float, fell: bool
) -> None:
    assert Change(name, before, after).fell is fell


def test_what_was_measured_on_one_side_only_is_shown_and_did_not_fall(tmp_path: Path) -> None:
    before, after = (
        result(tmp_path, "a.json", gone=1.0, both=1.0),
        result(tmp_path, "b.json", new=2.0, both=1.0),
    )

    found = changes(read(before), read(after))

    assert [change.name for change in found] == ["gone", "both", "new"]
    assert not any(change.fell for change in found)
    gone, both, new = render(found, colour=False).split("\n")[2:]
    assert gone.split() == ["gone", "1.000", "-"]
    assert both.split() == ["both", "1.000", "1.000", "+0%"]
    assert new.split() == ["new", "-", "2.000"]


def test_only_the_line_of_what_fell_is_red(tmp_path: Path) -> None:
    found = changes(
        read(result(tmp_path, "a.json", falls=1.0, stays=1.0)),
        read(result(tmp_path, "b.json", falls=0.5, stays=0.95)),
    )

    falls, stays = render(found, colour=True).split("\n")[2:]

    assert falls.startswith("\x1b[31mfalls")
    assert falls.endswith("FELL\x1b[0m")
    assert "\x1b" not in stays
    assert "\x1b" not in render(found, colour=False)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"scenario": "x", "at": "y"}', '{"ratios": {"a": "b"}}'])
def test_a_file_that_is_no_result_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "odd.json"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ResultError, match=r"odd\.json"):
        read(file)
    with pytest.raises(ResultError, match=r"absent\.json"):
        read(tmp_path / "absent.json")


def test_the_command_compares_two_files_and_says_what_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = result(tmp_path, "a.json", lane=1.0), result(tmp_path, "b.json", lane=0.5)

    assert main(["compare", str(before), str(after)]) == 0
    assert "-50%" in capsys.readouterr().out
    assert main(["compare", str(before), str(after), str(after)]) == 2
    assert main(["compare", str(before), str(tmp_path / "absent.json")]) == 1
    assert "absent.json" in capsys.readouterr().err
