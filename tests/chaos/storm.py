"""The storm: from a seed, what goes wrong, for whom, when and for how long; and the hand that does it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.chaos import disk
from tests.chaos.installation import SERVERS, WORKERS, Installation
from tests.chaos.parts import ClockedValkey, Gateline

CALM_S = 2.0  # before the first blow, and after the last one
KILL_EVERY_S = 2.2
TROUBLE_EVERY_S = 1.7
KILLED = (*SERVERS, *WORKERS, "valkey", "valkey", "postgres", "postgres")  # databases come back faster
CLOCKED = (*SERVERS, *WORKERS, "valkey", "postgres")
JUMPS_S = (
    -120,
    -45,
    -7,
    7,
    45,
    120,
)  # within what a signed notification may be off, and far past a QR's life
QUOTA_BYTES = 20_000
START_TRIES = 5


@dataclass(frozen=True, order=True)
class Blow:
    """One thing that goes wrong. `amount`: seconds of delay or of a clock's jump, or bytes."""

    at_s: float
    kind: str  # kill, terminate, stop, cut, refuse, swallow, delay, amid, quota, clock
    target: str  # a part, a link, or a clock
    seconds: float
    amount: float = 0.0

    def __str__(self) -> str:
        amount = f" {self.amount:g}" if self.amount else ""
        return f"{self.at_s:6.1f} s  {self.kind} {self.target}{amount} for {self.seconds:.1f} s"


def schedule(
    seed: int, seconds: float, links: list[str], *, clocks: bool, crowded: Sequence[str] = ()
) -> list[Blow]:
    """The blows of a run, in order: the same for the same seed, length, links and possibilities.

    `crowded`: servers of several workers, which can lose a single one.
    """
    killed = (*KILLED, *(f"a worker of {name}" for name in crowded))
    dice = random.Random(f"storm {seed}")  # noqa: S311
    blows = []
    at_s = CALM_S
    while at_s < seconds - CALM_S:
        blows.append(Blow(at_s, "kill", dice.choice(killed), dice.uniform(0.05, 1.2)))
        at_s += KILL_EVERY_S * dice.uniform(0.8, 1.15)
    at_s = CALM_S
    while at_s < seconds - CALM_S:
        at_s += TROUBLE_EVERY_S * dice.uniform(0.5, 1.5)
        blows.append(_trouble(dice, at_s, links, clocks=clocks))
    return sorted(blow for blow in blows if blow.at_s < seconds - CALM_S)


def _trouble(dice: random.Random, at_s: float, links: list[str], *, clocks: bool) -> Blow:
    kinds = {
        "cut": 14,
        "amid": 14,
        "delay": 14,
        "swallow": 10,
        "refuse": 10,
        "stop": 20,
        "terminate": 5,
        "quota": 6,
    }
    if clocks:
        kinds["clock"] = 12
    kind = dice.choices(list(kinds), list(kinds.values()))[0]
    seconds = dice.uniform(0.2, 3.0)
    if kind == "stop":
        return Blow(at_s, kind, dice.choice([*SERVERS, *WORKERS, "valkey", "postgres"]), seconds)
    if kind == "terminate":
        return Blow(at_s, kind, dice.choice([*SERVERS, *WORKERS]), 0.0)
    if kind == "quota":
        return Blow(at_s, kind, "valkey", dice.uniform(0.5, 2.0), QUOTA_BYTES)
    if kind == "clock":
        return Blow(at_s, kind, dice.choice(CLOCKED), dice.uniform(3.0, 8.0), dice.choice(JUMPS_S))
    amount = {"delay": dice.uniform(0.01, 0.5), "amid": float(dice.randint(1, 20_000))}.get(kind, 0.0)
    return Blow(at_s, kind, dice.choice(links), seconds, amount)


@dataclass
class Storm:
    """Carries the blows out. A part that is being struck is left to its first blow; a kill finds another one."""

    installed: Installation
    say: Callable[[str], None]
    done: Counter[str] = field(default_factory=Counter)  # "kill valkey" -> how often
    failed: list[str] = field(default_factory=list)  # what could not be started again at once
    ended_by_itself: Counter[str] = field(default_factory=Counter)
    _struck: set[str] = field(default_factory=set)

    @property
    def kills(self) -> int:
        """SIGKILLs."""
        return sum(times for what, times in self.done.items() if what.startswith("kill "))

    async def blow(self, blows: list[Blow]) -> None:
        """All of them, each at its time, and what each of them leaves behind repaired."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as striking:
            watching = asyncio.create_task(self._revive())
            for blow in blows:
                await asyncio.sleep(max(0.0, began + blow.at_s - time.monotonic()))
                striking.create_task(self._strike(blow))
        watching.cancel()

    async def _strike(self, blow: Blow) -> None:
        while (target := self._target(blow)) is None:
            if blow.kind != "kill":
                return
            await asyncio.sleep(0.1)  # all are struck: a slow machine has a longer storm, not fewer kills
        self._struck.add(target)
        self.done[f"{blow.kind} {target}"] += 1
        self.say(str(blow))
        try:
            await getattr(self, f"_{blow.kind}")(target, blow)
        finally:
            self._struck.discard(target)

    def _target(self, blow: Blow) -> str | None:
        if blow.target not in self._struck:
            return blow.target
        if blow.kind != "kill":
            return None
        others = [name for name in dict.fromkeys(KILLED) if name not in self._struck]
        return others[0] if others else None

    # --- parts ---------------------------------------------------------------------------------------------------

    async def _kill(self, name: str, blow: Blow) -> None:
        part = self.installed.parts[name]
        await part.kill()
        await asyncio.sleep(blow.seconds)
        await self._start(name)

    async def _terminate(self, name: str, blow: Blow) -> None:
        part = self.installed.gatelines[name]
        if part.alive:
            status = await part.stop()
            if status != 0:
                self.failed.append(f"{name} ended with status {status} when told to end")
        await self._start(name)

    async def _stop(self, name: str, blow: Blow) -> None:
        part = self.installed.parts[name]
        part.halt()
        await asyncio.sleep(blow.seconds)
        part.go_on()

    async def _start(self, name: str) -> None:
        part = self.installed.parts[name]
        for _ in range(START_TRIES):
            try:
                await part.start()
                return
            except Exception as fault:  # whatever it is: it is told at the end, and tried again
                self.failed.append(f"{name} did not start: {fault}"[:300])
                await part.kill()
                await asyncio.sleep(0.5)

    async def _revive(self) -> None:
        """Start what ended by itself: a Valkey that cannot write its log ends, as it must at `always`."""
        while True:
            await asyncio.sleep(0.2)
            for name in ("valkey", "postgres"):
                part = self.installed.valkey if name == "valkey" else self.installed.postgres
                if name not in self._struck and part.alive and not part.server.running:
                    self._struck.add(name)
                    self.ended_by_itself[name] += 1
                    await self._start(name)
                    self._struck.discard(name)
            for name, gateline in self.installed.gatelines.items():
                if name not in self._struck and _has_ended(gateline):
                    self._struck.add(name)
                    self.ended_by_itself[name] += 1
                    await gateline.kill()
                    await self._start(name)
                    self._struck.discard(name)

    # --- what lies between --------------------------------------------------------------------------------------

    async def _cut(self, name: str, blow: Blow) -> None:
        self.installed.links[name].cut()

    async def _amid(self, name: str, blow: Blow) -> None:
        self.installed.links[name].cut_after(int(blow.amount))
        await asyncio.sleep(blow.seconds)
        await self.installed.links[name].heal()

    async def _refuse(self, name: str, blow: Blow) -> None:
        await self.installed.links[name].refuse()
        await asyncio.sleep(blow.seconds)
        await self.installed.links[name].heal()

    async def _swallow(self, name: str, blow: Blow) -> None:
        self.installed.links[name].swallow()
        await asyncio.sleep(blow.seconds)
        await self.installed.links[name].heal()

    async def _delay(self, name: str, blow: Blow) -> None:
        self.installed.links[name].delay_s = blow.amount
        await asyncio.sleep(blow.seconds)
        await self.installed.links[name].heal()

    # --- disks and clocks ---------------------------------------------------------------------------------------

    async def _quota(self, name: str, blow: Blow) -> None:
        """The disk is full: its log cannot grow any more."""
        valkey = self.installed.valkey.server
        assert isinstance(valkey, ClockedValkey)
        if not valkey.running:
            return
        pid = valkey.pid
        disk.limit_growth(pid, valkey.folder, int(blow.amount))
        await asyncio.sleep(blow.seconds)
        if valkey.running and valkey.pid == pid:
            disk.lift(pid)
        else:
            self.ended_by_itself[name] += 1
            await self._start(name)

    async def _clock(self, name: str, blow: Blow) -> None:
        """Ahead or back, and right again: each process for itself, so that no two agree."""
        self.installed.clocks[name].set(int(blow.amount))
        await asyncio.sleep(blow.seconds)
        self.installed.clocks[name].set(0)


def _has_ended(gateline: Gateline) -> bool:
    return gateline.process is not None and gateline.process.over
