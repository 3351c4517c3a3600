"""What each acknowledgement level loses, measured: Valkey is killed again and again under load, and the books say.

- `fsync`: SIGKILL at any moment, started again with its log.
- `replica`: SIGKILL to the primary, its replica is promoted behind the same address, and gets a replica of its own.
- `memory`: first SIGKILL alone, which loses nothing, since the kernel has what was written; then as if the host had
  lost its power: the log is cut back to what was certainly on disk, while the record is behind because its workers
  hang.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

from tests.chaos import disk, view
from tests.chaos.audit.books import read_diaries
from tests.chaos.audit.findings import Kind
from tests.chaos.crowd import gather
from tests.chaos.faults.fault import Scene
from tests.chaos.faults.of_valkey import replaced
from tests.chaos.installation import WORKERS, install
from tests.chaos.run import Outcome, judge

BOUND_S = (
    2.0  # Redis syncs every second, and lets a sync that is late take one second more before it waits for it
)
HEARD_S = 0.5
BEHIND_S = 3.0  # so long the workers hang before the power goes: the record has nothing of that


async def _killed(scene: Scene, dice: random.Random) -> float:
    await asyncio.sleep(dice.uniform(0.1, 2.0))
    await scene.installed.valkey.kill()
    killed_at = time.time()
    await asyncio.sleep(dice.uniform(0.0, 0.3))
    await scene.installed.valkey.start()
    return killed_at


async def _replaced(scene: Scene, dice: random.Random) -> float:
    await asyncio.sleep(dice.uniform(0.5, 3.0))
    killed_at = time.time()
    await replaced(scene)
    return killed_at


async def _without_power(scene: Scene, dice: random.Random) -> float:
    """The workers hang for a while, so that the record is behind; then everything that was not on disk is gone."""
    workers = [scene.installed.gatelines[name] for name in WORKERS]
    for worker in workers:
        worker.halt()
    await asyncio.sleep(BEHIND_S + dice.uniform(0.0, 1.0))
    await scene.installed.valkey.kill()
    killed_at = time.time()
    log = max((scene.valkey.folder / "appendonlydir").glob("*.incr.aof"))
    scene.notes.append(f"{disk.lose_unwritten(log)} bytes of its log were not on disk")
    await scene.installed.valkey.start()
    for worker in workers:
        worker.go_on()
    await asyncio.sleep(BEHIND_S)
    return killed_at


async def run(folder: Path, *, ack: str, seconds: float, seed: int) -> tuple[Outcome, bool]:
    """Kill for so long; the outcome, and whether the level keeps its promise."""
    async with install(folder, ack=ack) as installed, gather(installed, seed) as crowd:
        outcome = Outcome(seed, seconds, ack, crowd.day.tally)
        scene = Scene(installed, crowd, lambda: None)
        viewing = asyncio.create_task(view.follow(crowd.day.tally, lambda: outcome.kills, lambda: 0.0))
        killed_at = await _kill(scene, outcome, random.Random(f"acks {seed}"))  # noqa: S311
        crowd.check()
        await installed.heal()
        await crowd.finish()
        viewing.cancel()
        await judge(installed, outcome)
        outcome.notes += scene.notes
        outcome.more["oldest_lost_s"] = oldest = _oldest(outcome, folder / "diaries", killed_at)
        outcome.more["bound_s"] = BOUND_S if ack == "memory" else 0.0
    if ack == "memory":
        return outcome, oldest <= BOUND_S and not outcome.check
    return outcome, outcome.clean


async def _kill(scene: Scene, outcome: Outcome, dice: random.Random) -> list[float]:
    """Kill Valkey until the time is over; when, by the wall clock."""
    scene.crowd.begin()
    await asyncio.sleep(2.0)
    until = time.monotonic() + outcome.seconds
    killed_at = []
    while (left := until - time.monotonic()) > 0:
        if outcome.ack == "replica":
            what, blow = "kill primary", _replaced(scene, dice)
        elif outcome.ack == "memory" and left < outcome.seconds / 2:
            what, blow = "kill host", _without_power(scene, dice)
        else:
            what, blow = "kill valkey", _killed(scene, dice)
        killed_at.append(await blow)
        outcome.kills += 1
        outcome.done[what] += 1
    return killed_at


def _oldest(outcome: Outcome, diaries: Path, killed_at: list[float]) -> float:
    """How long before the next kill the oldest of the lost was told, in seconds; 0.0 when nothing is lost."""
    commands = read_diaries(diaries)
    ages = [0.0]
    for finding in outcome.findings:
        if finding.kind is Kind.LOST and finding.command in commands:
            told = min(answer["at"] for answer in commands[finding.command].answers if answer["status"] < 400)
            # An answer that was on its way is heard a moment later.
            ages.append(
                min((max(0.0, kill - told) for kill in killed_at if kill >= told - HEARD_S), default=0.0)
            )
    return round(max(ages), 2)
