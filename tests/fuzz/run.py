"""A run: many clients at once send case after case, honest people walk in between, and the process is looked at."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
from yarl import URL

from bench.processes import output
from tests.fuzz.case import Breach, Case, Outcome
from tests.fuzz.driver import Driver
from tests.fuzz.scene import Scene
from tests.fuzz.watch import Held, Watch, failures_counted

CLIENTS = 24
WALK_EVERY_S = 1.0
REFRESH_EVERY_S = 15.0
WARM_SHARE = 0.25  # of all cases: by then pools are full and most that is remembered is there
# How much more a process may hold at the end than after the warm-up, with the requests between.
TASKS_MORE_MAX = 12  # jobs and pools have a few that come and go
FILES_MORE_MAX = 24  # connections to Postgres and Redis, opened when first needed: at most 10 and 16
# The allocator reaches its level in the first 10,000 requests, 25 MiB higher; then it is flat: 3 MiB in 75,000.
RSS_MORE_BYTES_MAX = 32 * 2**20
# What is given out, without the allocator's play: 0.2 MiB of malloc more, after 1,000 requests as after 75,000, and
# 15,000 objects of Python's own: senders, tokens and places that are remembered, each bounded.
MALLOC_MORE_BYTES_MAX = 2**19
BLOCKS_MORE_MAX = 40_000

Say = Callable[[str], None]


def to_stderr(text: str) -> None:
    """A line for who watches."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


async def fuzz(
    scene: Scene, environment: dict[str, str], outcome: Outcome, *, requests: int, say: Say = to_stderr
) -> None:
    """Send so many cases; what is found stands in `outcome`."""
    watch = Watch(scene.process)
    warm = int(requests * WARM_SHARE)
    await _attack(scene, outcome, iter(range(warm)), say)
    before = await watch.held(_ours(scene))
    await _attack(scene, outcome, iter(range(warm, requests)), say)
    after = await watch.held(_ours(scene))
    outcome.figures = _growth(before, after) | {
        "connections_left": max(0, watch.connections() - _ours(scene))
    }
    for what in _grown(before, after, requests - warm):
        outcome.complain(what)
    if outcome.figures["connections_left"]:
        outcome.complain(
            f"{outcome.figures['connections_left']} connections are held though no client is left"
        )
    for line in watch.complaints()[:5]:
        outcome.complain(f"the log: {line}")
    counted = failures_counted((await scene.stage.road.call("GET", "/metrics")).raw.decode())
    if counted > outcome.failures:
        outcome.complain(f"the server counted {counted} failures, of which {outcome.failures} were seen")
    await _audit(scene, environment, outcome)


async def _attack(scene: Scene, outcome: Outcome, numbers: Iterator[int], say: Say) -> None:
    """All clients until the numbers are used up; honest people beside them."""
    url = URL(scene.process.address)
    drivers = [Driver(url.host or "", url.port or 0) for _ in range(CLIENTS)]
    beside = asyncio.create_task(_honest(scene, outcome, say))
    try:
        await asyncio.gather(*(_client(scene, outcome, driver, numbers) for driver in drivers))
    finally:
        beside.cancel()
        await asyncio.gather(beside, return_exceptions=True)
        await asyncio.gather(*(driver.close() for driver in drivers))


async def _client(scene: Scene, outcome: Outcome, driver: Driver, numbers: Iterator[int]) -> None:
    for number in numbers:
        case = scene.case(number)
        await attempt(scene, outcome, driver, number, case)


async def attempt(scene: Scene, outcome: Outcome, driver: Driver, number: int, case: Case) -> None:
    """One case, and what came of it."""
    outcome.requests += 1
    outcome.names[case.name] += 1
    try:
        outcome.answers.update(await driver.send(case))
    except Breach as fault:
        outcome.find(number, case, fault, scene.facts)
        await driver.close()


async def _honest(scene: Scene, outcome: Outcome, say: Say) -> None:
    """For ever: the honest road, and from time to time new tokens for the attacks."""
    refreshed = began = time.monotonic()
    before = outcome.requests
    while True:
        try:
            await scene.walk()
            outcome.honest += 1
            if time.monotonic() - refreshed > REFRESH_EVERY_S:
                refreshed = time.monotonic()
                await scene.refresh()
                rate = (outcome.requests - before) / (time.monotonic() - began)
                memory_mb = Watch(scene.process).rss_bytes() / 2**20
                what = f"{rate:,.0f}/s  {memory_mb:.0f} MiB  {outcome.breaches} breaches"
                say(f"  {outcome.requests:>8,} requests  {what}")
        except (Breach, AssertionError, OSError) as fault:
            outcome.complain(f"an honest road: {fault}")
        await asyncio.sleep(WALK_EVERY_S)


def _ours(scene: Scene) -> int:
    """Connections of the honest, which stay."""
    connector = scene.stage.road.session.connector
    return sum(len(kept) for kept in connector._conns.values()) if connector is not None else 0


def _growth(before: Held, after: Held) -> dict[str, int]:
    return {
        "rss_growth_bytes": after.rss_bytes - before.rss_bytes,
        "malloc_growth_bytes": after.malloc_bytes - before.malloc_bytes,
        "blocks_growth": after.blocks - before.blocks,
        "files_growth": after.files - before.files,
        "tasks_growth": after.tasks - before.tasks,
    }


def _grown(before: Held, after: Held, requests: int) -> Iterator[str]:
    grown = _growth(before, after)
    for name, most in (
        ("rss_growth_bytes", RSS_MORE_BYTES_MAX),
        ("malloc_growth_bytes", MALLOC_MORE_BYTES_MAX),
        ("blocks_growth", BLOCKS_MORE_MAX),
        ("files_growth", FILES_MORE_MAX),
        ("tasks_growth", TASKS_MORE_MAX),
    ):
        if grown[name] > most:
            yield f"{name} is {grown[name]:,} after {requests:,} requests; {most:,} is the bound"


async def _audit(scene: Scene, environment: dict[str, str], outcome: Outcome) -> None:
    """`gateline check`, once all that was decided is recorded."""
    await scene.stage.road.flushed()
    status, printed, complained = await output(("check", "--json"), environment)
    if status != 0:
        outcome.complain(f"`gateline check` ended with {status}: {(printed or complained)[:2_000]}")
        return
    outcome.figures["looked_at"] = sum(each["looked_at"] for each in msgspec.json.decode(printed)["findings"])
