"""A security rule that is waived says why, in place."""

from __future__ import annotations

import re

import pytest

from tests.structure.sources import ROOT, parsed

# Asserts (S101) have one reason for all, in pyproject.toml.
WAIVER = re.compile(
    r"# noqa: (?P<ruff>[A-Z0-9, ]*\bS(?!101\b)\d{3}\b)(?P<why>.*)|# nosec (?P<bandit>B\d+)?(?P<because>.*)"
)


def unexplained(line: str) -> bool:
    """A waiver of a security rule without a reason behind it, or of every rule at once."""
    found = WAIVER.search(line)
    if found is None:
        return bool(re.search(r"# nosec\b", line))
    if found["ruff"] is None and found["bandit"] is None:
        return True
    return len(re.findall(r"\w+", found["why"] if found["ruff"] else found["because"])) == 0


@pytest.mark.parametrize("folder", ["server", "bench"])
def test_every_waiver_of_a_security_rule_has_its_reason(folder: str) -> None:
    lines = [
        (path, number, line)
        for path in parsed(folder)
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1)
    ]

    assert [f"{path}:{number}" for path, number, line in lines if unexplained(line)] == []
    assert any(WAIVER.search(line) for *_, line in lines)


def test_what_a_reason_is() -> None:
    bare = [
        "x  # noqa: S603",
        "x  # noqa: E501, S311",
        "x  # nosec",
        "x  # nosec B608",
        "x  # nosec: all of it",
    ]

    assert [line for line in bare if not unexplained(line)] == []
    assert not unexplained("x  # noqa: S603  (our own program)")
    assert not unexplained("x  # nosec B608  # a constant of ours")
    assert not unexplained("assert x  # noqa: S101")
