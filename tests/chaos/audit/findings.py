"""What an audit finds, and how it is counted."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple


class Kind(enum.Enum):
    """How bad it is; all of them are."""

    LOST = "lost"  # a client was told of it, and the record does not have it
    DOUBLED = "doubled"  # it is there twice, or passed twice
    BREACH = "breaches"  # anything else that must not be


class Finding(NamedTuple):
    """One thing that must not be."""

    kind: Kind
    rule: str  # the invariant's number and a word
    what: str
    command: tuple[str, str] | None = None  # kind and id of the command that was told, where there is one


Findings = Iterator[Finding]


def lost(rule: str, what: str, command: tuple[str, str]) -> Finding:
    """Acknowledged, and gone."""
    return Finding(Kind.LOST, rule, what, command)


def doubled(rule: str, what: str) -> Finding:
    """Once too often."""
    return Finding(Kind.DOUBLED, rule, what)


def breach(rule: str, what: str) -> Finding:
    """Otherwise wrong."""
    return Finding(Kind.BREACH, rule, what)
