"""What a run found, as one object: it becomes the JSON file, the table and the plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from bench.figures import middle, percentile
from bench.machine import Machine, Pinning
from bench.measure import LagSample, Measured
from bench.run import Latency

VERSION: Final = 1
BUSY_SHARE: Final = 0.9  # of a core: past it the load generator may be what limits a lane
FOREIGN_SHARE: Final = 0.1  # of all cores: past it others disturb the figures, and we say so
NOOP: Final = "noop"
BESIDE: Final = (
    "work",
    "valkey",
    "postgres",
    "load",
)  # all but the serving process, which is named otherwise
COMPARED: Final = ("naive", "plain_postgres")  # http_scan is held against these too


class LaneReport(msgspec.Struct, kw_only=True):
    """One lane. Rates are things a second; `cpu_us`: microseconds of CPU per thing, by process.

    Shares of a core's time: `server_share` the serving process, `load_share` the load generator; `server_core` and
    `other_core` whoever it was, over the cores that the server has and does not have; `foreign_share` processes that
    are not ours, over all cores. `answer_bytes`: of one answer on the wire. `over`: what connections it was asked on.
    """

    rate: float
    rates: list[float]
    cpu_us: dict[str, float]
    server_share: float
    load_share: float
    server_core: float
    other_core: float
    foreign_share: float
    answer_bytes: int
    over: str
    latency: dict[str, Latency] = {}
    offered: dict[str, float] = {}
    reached: dict[str, float] = {}


class Lag(msgspec.Struct, frozen=True):
    """How far the record was behind: `p99_s` by phase, and [seconds since the start, lag in seconds, lane, phase]."""

    p99_s: dict[str, float]
    samples: list[tuple[float, float, str, str]]


class Report(msgspec.Struct, kw_only=True):
    """A whole run. `ratios` are what may be compared between machines and days; nothing else is."""

    scenario: str
    at: str
    machine: Machine
    ack: str
    appendfsync: str
    version: int = VERSION
    seconds: float = 0.0
    lanes: dict[str, LaneReport] = {}
    not_served: list[str] = []
    ratios: dict[str, float] = {}
    ratios_cpu: dict[str, float] = {}
    figures: dict[str, Any] = {}
    lag: Lag | None = None
    audit: dict[str, Any] = {}
    notes: list[str] = []


def lane_report(measured: Measured, pinning: Pinning) -> LaneReport:
    """The figures of one lane."""
    seconds = max(measured.seconds, 1e-9)
    ours = sum(measured.cpu_s.values())
    server = ours - sum(spent for name, spent in measured.cpu_s.items() if name in BESIDE)

    def busy(cores: list[int]) -> float:
        return round(sum(measured.busy_s.get(core, 0.0) for core in cores) / seconds / len(cores), 3)

    foreign = max(0.0, sum(measured.busy_s.values()) - ours)
    return LaneReport(
        rate=round(measured.rate, 1) if measured.rates else 0.0,
        rates=[round(rate, 1) for rate in measured.rates],
        cpu_us={name: round(spent, 2) for name, spent in measured.cpu_us().items()},
        server_share=round(server / seconds / len(pinning.server), 3),
        load_share=round(measured.cpu_s.get("load", 0.0) / seconds, 3),
        server_core=busy(pinning.server),
        other_core=busy(pinning.others),
        foreign_share=round(foreign / seconds / len(pinning.cores), 3),
        answer_bytes=len(measured.answer),
        over=measured.lane.over,
        latency=dict(measured.latency),
        offered={share: round(rate, 1) for share, rate in measured.offered.items()},
        reached={share: round(rate, 1) for share, rate in measured.reached.items()},
    )


def ratios(lanes: Mapping[str, LaneReport]) -> dict[str, float]:
    """`lane/noop` for every lane, and http_scan against the other ways, see `ratio`."""
    return {
        f"{name}/{below}": ratio(lanes[name], lanes[below])
        for name, below in _pairs(lanes)
        if lanes[name].rates and lanes[below].rates
    }


def ratio(lane: LaneReport, below: LaneReport) -> float:
    """The rate of a lane over that of another: the median over the rounds.

    Each round's figures are set against those of the same round, which the same drift met.
    """
    return round(middle([a / b for a, b in zip(lane.rates, below.rates, strict=False) if b]), 3)


def ratios_cpu(lanes: Mapping[str, LaneReport], serving: Mapping[str, str]) -> dict[str, float]:
    """The same by CPU time of the serving process per thing: others on the machine disturb this far less.

    `serving`: lane -> the name of the process that serves it. 0.5 means: it takes twice the CPU of the other.
    """
    found = {}
    for name, below in _pairs(lanes):
        mine = lanes[name].cpu_us.get(serving[name], 0.0)
        theirs = lanes[below].cpu_us.get(serving[below], 0.0)
        if mine and theirs:
            found[f"{name}/{below}"] = round(theirs / mine, 3)
    return found


def _pairs(lanes: Mapping[str, LaneReport]) -> list[tuple[str, str]]:
    pairs = [(name, NOOP) for name in lanes if name != NOOP and NOOP in lanes]
    return pairs + [("http_scan", name) for name in COMPARED if name in lanes and "http_scan" in lanes]


def lag_report(samples: Iterable[LagSample]) -> Lag:
    """Percentiles of the lag by phase, over all lanes of the site."""
    by_phase: dict[str, list[float]] = {}
    rows = []
    for sample in samples:
        by_phase.setdefault(sample.phase, []).append(sample.lag_s)
        rows.append((round(sample.at_s, 2), round(sample.lag_s, 3), sample.lane, sample.phase))
    return Lag({phase: round(percentile(sorted(lags), 0.99), 3) for phase, lags in by_phase.items()}, rows)


def notes(lanes: Mapping[str, LaneReport]) -> list[str]:
    """What a reader has to know before believing a figure."""
    said = []
    for name, lane in lanes.items():
        if lane.load_share > BUSY_SHARE:
            said.append(
                f"{name}: the load generator used {lane.load_share:.0%} of its core: the lane may be faster than this."
            )
        elif lane.other_core > BUSY_SHARE:
            said.append(
                f"{name}: the cores beside the server's were busy for {lane.other_core:.0%}, the server's process "
                f"for {lane.server_share:.0%}: the lane may be faster than this."
            )
    disturbed = [name for name, lane in lanes.items() if lane.foreign_share > FOREIGN_SHARE]
    if disturbed:
        worst = max(lane.foreign_share for lane in lanes.values())
        said.append(
            f"Other processes used up to {worst:.0%} of the cores ({', '.join(disturbed)}): "
            "believe the ratios by CPU more than those by rate."
        )
    return said
