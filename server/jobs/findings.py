"""What a check finds: one finding per rule, with how much was looked at and what did not hold."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

import msgspec

from server.limits import CHECK_EXAMPLES_MAX

_TEXT_CHARS: Final = 78  # of a rule in the table; with the numbers a line fits 120 columns


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, held against everything there is.

    `invariant`: the rule's stable code; a number in front is that of the invariant (README, "Invariants"). `looked_at`:
    how many things were held against it. `undecided`: how many could not be judged, because flusher, outbox or gate did
    not catch up in time: neither breach nor clean. `needs_person`: no breach of an invariant, but someone's work.
    """

    invariant: str
    text: str
    looked_at: int = 0
    breaches: int = 0
    undecided: int = 0
    needs_person: int = 0
    examples: list[str] = []


class Tally:
    """A finding in the making."""

    def __init__(self, invariant: str, text: str) -> None:
        self.invariant = invariant
        self._text = text
        self._looked_at = self._breaches = self._undecided = self._needs_person = 0
        self._examples: list[str] = []

    def looked(self, number: int) -> None:
        """So many more things were held against the rule."""
        self._looked_at += number

    def breach(self, *examples: str, number: int | None = None) -> None:
        """The rule does not hold in these cases; `number`: when there are more than are told."""
        self._breaches += len(examples) if number is None else number
        self._tell(examples)

    def undecided(self, *examples: str) -> None:
        """These cases could not be judged."""
        self._undecided += len(examples)
        self._tell([f"not judged: {example}" for example in examples])

    def needs_person(self, *examples: str, number: int | None = None) -> None:
        """No breach, but someone has to look."""
        self._needs_person += len(examples) if number is None else number
        self._tell(examples)

    def _tell(self, examples: Sequence[str]) -> None:
        self._examples += examples[: CHECK_EXAMPLES_MAX - len(self._examples)]

    def finding(self) -> Finding:
        """The result."""
        return Finding(
            invariant=self.invariant,
            text=self._text,
            looked_at=self._looked_at,
            breaches=self._breaches,
            undecided=self._undecided,
            needs_person=self._needs_person,
            examples=self._examples,
        )


def exit_code(findings: Sequence[Finding]) -> int:
    """0: every rule holds; 1: one does not; 2: none is known not to hold, but not all could be judged."""
    if any(finding.breaches for finding in findings):
        return 1
    return 2 if any(finding.undecided for finding in findings) else 0


def render(findings: Sequence[Finding]) -> str:
    """The findings as a table for people, the worst at the bottom where the eye is when the command ends."""
    lines = [f"{'':8}{'rule':<22} {'what must hold':<{_TEXT_CHARS}} {'looked at':>10}"]
    for finding in sorted(findings, key=_weight):
        first, *more = textwrap.wrap(finding.text, _TEXT_CHARS)
        lines.append(
            f"{_mark(finding):<8}{finding.invariant:<22} {first:<{_TEXT_CHARS}} {finding.looked_at:>10,}"
        )
        lines += [f"{'':31}{line}" for line in more]
        lines += [f"{'':10}· {example}" for example in finding.examples]
    lines.append(_summary(findings))
    return "\n".join(lines)


def report(findings: Sequence[Finding]) -> str:
    """The findings as one JSON object for programs."""
    return msgspec.json.encode(
        {
            "ok": exit_code(findings) == 0,
            "breaches": sum(finding.breaches for finding in findings),
            "undecided": sum(finding.undecided for finding in findings),
            "needs_person": sum(finding.needs_person for finding in findings),
            "findings": findings,
        }
    ).decode()


def _weight(finding: Finding) -> int:
    return 3 * bool(finding.breaches) or 2 * bool(finding.undecided) or int(bool(finding.needs_person))


def _mark(finding: Finding) -> str:
    return ("ok", "PERSON", "UNKNOWN", "BREACH")[_weight(finding)]


def _summary(findings: Sequence[Finding]) -> str:
    things = sum(finding.looked_at for finding in findings)
    parts = [f"{len(findings)} rules held against {things:,} things: "]
    breaches = sum(finding.breaches for finding in findings)
    broken = sum(1 for finding in findings if finding.breaches)
    parts.append(f"{breaches:,} breaches of {broken} rules" if breaches else "no breach")
    undecided = sum(finding.undecided for finding in findings)
    if undecided:
        parts.append(f"; {undecided:,} could not be judged")
    waiting = sum(finding.needs_person for finding in findings)
    if waiting:
        parts.append(f"; {waiting:,} things need a person")
    return "".join(parts) + "."
