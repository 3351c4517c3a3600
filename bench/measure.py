"""Measuring lanes: warm up, then rounds of closed loops in turn (the peak), then open loops (the latency)."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from bench.cpu import CpuMeter
from bench.figures import arrivals, middle
from bench.lanes import Lane, Load
from bench.machine import say
from bench.run import Latency, Run
from bench.site import Site, Unclean

STALL_S: Final = 5.0  # a machine that others use may stand still for so long
WARM_UP_S: Final = 0.5
SPARE: Final = 1.5  # requests prepared over those expected: a lane may be faster than it was
SHARES: Final = {"full": 0.95, "half": 0.5}  # of the peak, for the open loops
LAG_EVERY_S: Final = 0.1


@dataclass
class Measured:
    """What was seen of one lane. Rates are things a second, one per round.

    `cpu_s`: CPU seconds by process over all rounds; `busy_s`: what anyone used, by core.
    """

    lane: Lane
    load: Load
    groups: dict[str, list[int]]
    expected: float = 0.0
    rates: list[float] = field(default_factory=list)
    cpu_s: dict[str, float] = field(default_factory=dict)
    busy_s: dict[int, float] = field(default_factory=dict)
    things: int = 0
    seconds: float = 0.0
    latency: dict[str, Latency] = field(default_factory=dict)
    offered: dict[str, float] = field(default_factory=dict)
    reached: dict[str, float] = field(default_factory=dict)
    answer: bytes = b""

    @property
    def rate(self) -> float:
        """The median over the rounds."""
        return middle(self.rates)

    def cpu_us(self) -> dict[str, float]:
        """Microseconds of CPU per thing, by process."""
        return {name: spent / max(self.things, 1) * 1e6 for name, spent in self.cpu_s.items()}


@dataclass(frozen=True)
class LagSample:
    """How far the record was behind, at a moment of the run (seconds since its start)."""

    at_s: float
    lag_s: float
    lane: str
    phase: str


class Measurement:
    """Several lanes of one site, measured in turn so that the machine's drift meets all of them alike."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stack = AsyncExitStack()
        self._began = perf_counter()
        self.lanes: dict[str, Measured] = {}
        self.lag: list[LagSample] = []

    async def __aenter__(self) -> Measurement:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def open(self, lane: Lane, groups: dict[str, list[int]] | None = None) -> Measured:
        """Open a lane's connections, without asking anything."""
        load = await self._stack.enter_async_context(lane.connect())
        measured = self.lanes[lane.name] = Measured(lane, load, groups or self._site.groups)
        return measured

    async def add(self, lane: Lane, groups: dict[str, list[int]] | None = None) -> Measured:
        """Open a lane, and find out roughly how fast it is.

        `groups`: name -> pids, where other processes than the site's own serve it.
        """
        measured = await self.open(lane, groups)
        run = await self.load(
            measured, int(lane.guess_rate * WARM_UP_S / lane.units) + few(lane), WARM_UP_S, "warm-up"
        )
        measured.expected = run.rate
        measured.answer = run.kept[0]
        return measured

    def forget(self, name: str) -> None:
        """Take a lane out of the rounds; what was measured of it is lost."""
        del self.lanes[name]

    async def peak_round(self, seconds: float) -> None:
        """One closed loop of every lane."""
        for measured in self.lanes.values():
            requests = int(measured.expected * seconds * SPARE / measured.lane.units) + few(measured.lane)
            run = await self.load(measured, requests, seconds, "peak")
            if not run.rate:  # a machine that stalled for longer than a short round
                run = await self.load(measured, requests, STALL_S, "peak")
            if not run.rate:
                raise Unclean(f"{measured.lane.name}: no answer in {STALL_S} s")
            measured.rates.append(run.rate)
            measured.expected = max(measured.expected, run.rate)
            say(f"  {measured.lane.name:<16} {run.rate:>9,.0f}/s")

    async def latency_round(self, seconds: float, share: str) -> None:
        """One open loop of every lane at a share of its peak."""
        for measured in self.lanes.values():
            rate = measured.rate * SHARES[share] / measured.lane.units
            due = arrivals(max(int(rate * seconds), 32), rate, seed=len(measured.latency))
            run = await self.load(measured, len(due), due[-1], share, due=due)
            measured.latency[share] = run.latency()
            measured.offered[share] = rate * measured.lane.units
            measured.reached[share] = run.rate
            say(f"  {measured.lane.name:<16} at {share} load p99 {measured.latency[share].p99:,.1f} ms")

    async def load(
        self,
        measured: Measured,
        requests: int,
        seconds: float,
        phase: str,
        *,
        due: Sequence[float] | None = None,
    ) -> Run:
        """One phase on one lane: closed, or open when `due` says when each request is due.

        Before it the record catches up, so that no phase pays for the one before. Raises Unclean, see `Lane.settle`.
        """
        lane = measured.lane
        await self._site.drained()
        work = lane.prepare(requests)
        if not len(work):
            raise Unclean(f"{lane.name}: there is nothing to ask for in this phase")
        async with self._watched(lane.name, phase):
            meter = CpuMeter(measured.groups, self._site.pinning.cores)
            if due is None:
                run = await measured.load.closed(work, seconds)
            else:
                run = await measured.load.paced(work, due[: len(work)])
            used = meter.used()
        if phase == "peak":
            for name, spent in used.seconds.items():
                measured.cpu_s[name] = measured.cpu_s.get(name, 0.0) + spent
            for core, spent in used.busy.items():
                measured.busy_s[core] = measured.busy_s.get(core, 0.0) + spent
            measured.things += run.answered * lane.units
            measured.seconds += used.took
        lane.settle(run)
        return run

    @asynccontextmanager
    async def _watched(self, lane: str, phase: str) -> AsyncIterator[None]:
        """The flusher's lag is sampled meanwhile, and no garbage collection of ours disturbs the clock."""
        gc.collect()
        gc.freeze()
        gc.disable()
        watching = asyncio.create_task(self._watch_lag(lane, phase))
        try:
            yield
        finally:
            watching.cancel()
            gc.enable()
            gc.unfreeze()

    async def _watch_lag(self, lane: str, phase: str) -> None:
        while True:
            lag_s = max([await self._site.lag_s(name) for name in self._site.stream_names])
            self.lag.append(LagSample(perf_counter() - self._began, lag_s, lane, phase))
            await asyncio.sleep(LAG_EVERY_S)


def few(lane: Lane) -> int:
    """So many requests more than those expected: a short run of a slow lane has some all the same."""
    return max(4, 64 // lane.units)
