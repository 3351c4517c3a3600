"""What is sent, what must come of it, and what a run found."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

RECEIVED_KEPT = 2_000  # bytes of an answer that a finding shows
ALIKE_MAX, FINDINGS_MAX = 3, 50  # enough to see a pattern, and each kind


class Way(enum.Enum):
    """How a case is sent and read."""

    REQUEST = "request"  # a well framed request: one whole answer, and the connection goes on
    RAW = "raw"  # bytes on a connection of their own, which answers or ends
    HALF = "half"  # bytes after which a server may well wait for more: the client goes, and must be let go
    SOCKET = "socket"  # an upgrade, and then frames


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One attack: `packets` go out one after the other."""

    way: Way
    name: str
    packets: tuple[bytes, ...]
    wanted: int = 0  # the status that must come, and alone; 0: any that is no failure of the server

    @property
    def method(self) -> bytes:
        """Of its first line."""
        return self.packets[0].split(b" ", 1)[0]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that must not be. Bytes are hexadecimal; `facts`: what the bytes name, of the run that made them."""

    what: str
    seed: int
    index: int
    way: Way
    name: str
    packets: list[str]
    wanted: int
    received: str
    facts: dict[str, str]

    def case(self, facts: dict[str, str]) -> Case:
        """The case again, naming what there is now: tokens, tickets and orders of one kind are equally long."""
        packets = [bytes.fromhex(packet) for packet in self.packets]
        for name, old in self.facts.items():
            if len(facts.get(name, "")) == len(old):
                packets = [packet.replace(old.encode(), facts[name].encode()) for packet in packets]
        return Case(way=self.way, name=self.name, packets=tuple(packets), wanted=self.wanted)


class Breach(Exception):
    """What a driver saw and must not have seen."""

    def __init__(self, what: str, received: bytes = b"", statuses: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.received = received
        self.statuses = statuses


class Hang(Breach):
    """Neither an answer nor an end within the bound."""


class Outcome:
    """What a run has seen so far."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.requests = 0
        self.honest = 0
        self.answers: Counter[str] = Counter()  # status, or "closed": an end without an answer
        self.names: Counter[str] = Counter()
        self.hangs = 0
        self.breaches = 0
        self.findings: list[Finding] = []
        self.figures: dict[str, Any] = {}

    @property
    def failures(self) -> int:
        """Answers of 5xx that do not say overload."""
        return sum(n for status, n in self.answers.items() if status.startswith("5") and status != "503")

    def find(self, index: int, case: Case, fault: Breach, facts: dict[str, str]) -> None:
        """Keep what breached."""
        self.breaches += 1
        self.answers.update(fault.statuses)
        self.hangs += isinstance(fault, Hang)
        alike = sum(finding.what == str(fault) for finding in self.findings)
        if alike < ALIKE_MAX and len(self.findings) < FINDINGS_MAX:
            self.findings.append(
                Finding(
                    what=str(fault),
                    seed=self.seed,
                    index=index,
                    way=case.way,
                    name=case.name,
                    packets=[packet.hex() for packet in case.packets],
                    wanted=case.wanted,
                    received=fault.received[:RECEIVED_KEPT].hex(),
                    facts=facts,
                )
            )

    def complain(self, what: str) -> None:
        """A breach that belongs to no single case."""
        self.find(-1, Case(way=Way.HALF, name="the whole run", packets=(b"",)), Breach(what), {})

    def line(self) -> dict[str, Any]:
        """The last line of a run."""
        return {
            "requests": self.requests,
            "seed": self.seed,
            "honest": self.honest,
            "answers": dict(sorted(self.answers.items())),
            "5xx": self.failures,
            "503": self.answers["503"],
            "hangs": self.hangs,
            **self.figures,
            "breaches": self.breaches,
        }
