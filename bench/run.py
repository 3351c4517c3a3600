"""One phase of load: what was sent and when, and what came back. Figures are made of it after the clock has stopped."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from bench.figures import percentile


@dataclass(frozen=True)
class Work:
    """Requests, encoded before the clock starts.

    `passed`: bytes that stand in an answer once for each thing that went as wished (a scan that passed, an order that
    was made). `units`: how many things one request asks for. `keep_every`: every so many-th answer is kept to be looked
    at as a whole afterwards; 1 keeps all. `over`: which connection each request goes over, where that matters.
    """

    requests: Sequence[bytes]
    passed: bytes
    units: int = 1
    keep_every: int = 64
    over: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.requests)


@dataclass
class Run:
    """What a phase saw. One entry per request; times are of `time.perf_counter`, 0.0: not yet, or never.

    `due`: when the request was meant to go out: in a closed loop that is when it did. `noticed`: when it was
    it up; from then to `sent` it waited for a connection: that is the server's doing. `lost`: connections that the
    server ended.
    """

    work: Work
    due: array[float]
    done: array[float] = field(init=False)
    noticed: array[float] = field(init=False)
    sent: array[float] = field(init=False)
    status: array[int] = field(init=False)
    passed: array[int] = field(init=False)
    kept: dict[int, bytes] = field(default_factory=dict)
    began: float = 0.0
    until: float = 0.0
    lost: int = 0

    def __post_init__(self) -> None:
        number = len(self.work)
        self.done, self.noticed, self.sent = (array("d", bytes(8 * number)) for _ in range(3))
        self.status, self.passed = array("H", bytes(2 * number)), array("H", bytes(2 * number))

    @property
    def asked(self) -> int:
        """How many requests went out."""
        return sum(1 for at in self.sent if at)

    @property
    def answered(self) -> int:
        """How many requests were answered, in whatever way."""
        return sum(1 for at in self.done if at)

    @property
    def successes(self) -> int:
        """How many things went as wished."""
        return sum(self.passed)

    @property
    def rate(self) -> float:
        """Things answered a second, while requests went out."""
        seconds = self.until - self.began
        inside = sum(1 for at in self.done if 0.0 < at <= self.until)
        return inside * self.work.units / seconds if seconds > 0 else 0.0

    def latencies_ms(self) -> list[float]:
        """Milliseconds from when each request was meant to go out to its answer, sorted."""
        return sorted((done - due) * 1000 for due, done in zip(self.due, self.done, strict=True) if done)

    def lateness_ms(self) -> list[float]:
        """Milliseconds by which the generator itself was late with each request, sorted."""
        return sorted((seen - due) * 1000 for due, seen in zip(self.due, self.noticed, strict=True) if seen)

    def statuses(self) -> dict[str, int]:
        """How often each status came; "none": asked and not answered."""
        counted: dict[str, int] = {}
        for sent, status in zip(self.sent, self.status, strict=True):
            if sent:
                name = str(status) if status else "none"
                counted[name] = counted.get(name, 0) + 1
        return counted

    def latency(self) -> Latency:
        """The percentiles of this phase."""
        sorted_ms, late_ms = self.latencies_ms(), self.lateness_ms()
        return Latency(
            p50=round(percentile(sorted_ms, 0.50), 3),
            p99=round(percentile(sorted_ms, 0.99), 3),
            p999=round(percentile(sorted_ms, 0.999), 3),
            generator_late_p99=round(percentile(late_ms, 0.99), 3),
        )


class Latency(msgspec.Struct, frozen=True):
    """Percentiles in milliseconds. `generator_late_p99`: how late the generator itself sent, which they include."""

    p50: float
    p99: float
    p999: float
    generator_late_p99: float
