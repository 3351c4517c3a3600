"""Our own processes die at the worst moments, are there twice, and see clocks that go back."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress

from tests.chaos.faults.fault import Scene, fault
from tests.chaos.gates import Gate
from tests.chaos.installation import SERVERS, WORKERS
from tests.chaos.parts import Gateline
from tests.outage.dying_worker import POINTS
from tests.processes import ROOT

STREAMS = ("{stock}:orders", "{s00}:redemptions")
SIGKILLED = -9
DEATHS = 5
BACK_S = -120


@fault(
    "flusher killed at each step",
    "before, within and after its transaction, on both streams; and the publisher",
)
async def flusher_killed(scene: Scene) -> None:
    """The only worker kills itself between two effects of its work, as a machine does that loses its power."""
    installed = scene.installed
    for name in WORKERS:
        await installed.gatelines[name].kill()
    deaths = [(point, stream) for point in POINTS for stream in STREAMS] + [("told", "outbox")]
    for point, work in deaths:
        async with asyncio.timeout(40):
            while await _dying(scene, point, work) != SIGKILLED:
                pass  # it found nothing to do
    scene.notes.append(f"killed {len(deaths)} times")
    await asyncio.gather(*(installed.gatelines[name].start() for name in WORKERS))
    scene.repaired()


async def _dying(scene: Scene, point: str, work: str) -> int:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.outage.dying_worker", point, work),
        cwd=ROOT,
        env={**os.environ, **scene.installed.direct, "GATELINE_LOG_LEVEL": "error"},
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait()


@fault("four workers at once, two of them killed", "two more `gateline work` for 6 s, then SIGKILL to two")
async def many_flushers(scene: Scene) -> None:
    """They agree who flushes by the cursor's row lock alone."""
    installed = scene.installed
    first = installed.gatelines[WORKERS[0]]
    more = [Gateline(f"work-{n}", ("work",), first.settings, first.clock) for n in (3, 4)]
    await asyncio.gather(*(each.start() for each in more))
    await scene.last(6.0)
    await asyncio.gather(first.kill(), more[0].kill())
    await first.start()
    await scene.last(1.0)
    await more[1].kill()
    scene.repaired()


@fault("server killed with full batches in flight", f"SIGKILL amid a burst of scans, {DEATHS} times")
async def server_killed(scene: Scene) -> None:
    """What it had sent to Valkey may have been decided: each gate asks the other server, with the same ids."""
    victim = scene.installed.gatelines[SERVERS[0]]
    for death in range(DEATHS):
        bursting = [asyncio.create_task(_burst(gate)) for gate in scene.crowd.gates]
        await asyncio.sleep(0.05 + 0.04 * death)
        await victim.kill()
        await victim.start()
        await asyncio.gather(*bursting)
    scene.repaired()


async def _burst(gate: Gate) -> None:
    """Scans of many tickets at once, as fast as they can be shown."""
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*(gate.present("http") for _ in range(40)))


@fault(
    "one worker of two killed", f"SIGKILL to one of the two processes of a server, {DEATHS} times", workers=2
)
async def worker_killed(scene: Scene) -> None:
    """The port stays; its connections end; the parent starts another one by itself, after a pause that grows."""
    victim = scene.installed.parts[f"a worker of {SERVERS[0]}"]
    for _ in range(DEATHS):
        bursting = [asyncio.create_task(_burst(gate)) for gate in scene.crowd.gates]
        await asyncio.sleep(0.1)
        await victim.kill()
        await victim.start()
        await asyncio.gather(*bursting)
    scene.repaired()


@fault("one shard of two shut", "the epoch of one of two shards is deleted, 3 times", workers=2, shards=2)
async def shard_shut(scene: Scene) -> None:
    """One shard's gate is shut until the record has been held against it; the other one's gates go on."""
    for _ in range(3):
        await scene.tell_redis("DEL", "{s01}:epoch")
        await scene.last(1.5)
    scene.repaired()


@fault(
    "clocks go back", f"servers, workers and Valkey {BACK_S} s for 6 s, Valkey killed meanwhile", clocks=True
)
async def clocks_back(scene: Scene) -> None:
    """What was decided in the future of the new clock stays where it is; ids of streams never go back."""
    installed = scene.installed
    for clock in installed.clocks.values():
        clock.set(BACK_S)
    await scene.last(3.0)
    await installed.valkey.kill()
    await installed.valkey.start()
    await scene.last(3.0)
    for clock in installed.clocks.values():
        clock.set(0)
    await scene.last(2.5)
    scene.repaired()
