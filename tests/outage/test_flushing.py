"""How the flusher writes: large batches where much is waiting, the halves of what is refused, and its own cost told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from server.hot import keys
from server.jobs import flusher
from server.store import event_rows, outbox, redemptions
from server.store.event_rows import EventRows
from tests.conftest import Audit, Serve
from tests.road import Road

REDEMPTIONS = keys.redemptions(0)
ODD = "back\\slash\\N\nline\rend"  # what COPY takes for its own


@pytest.fixture
async def sold(serve: Serve) -> tuple[Road, str]:
    """A server without jobs, and the code of a ticket."""
    busy = await serve()
    (ticket,) = await busy.buy({await busy.product({"bus": 5}): 1})
    await busy.flushed()
    await busy.stop()
    return await serve(jobs=False), ticket["ticket_code"]


def refusal(code: str, scan_id: str, operator: str = "gina") -> str:
    """A refused scan of the ticket, as the script records it."""
    now_ms = str(int(time.time() * 1000))
    parts = ("7", code, "boat", "ACTIVE", ",bus=5,", "", now_ms, "ab", scan_id, now_ms, operator, "\x1f")
    return "\t".join(parts)


async def add(redis: Redis, lines: Sequence[str]) -> None:
    async with redis.pipeline() as pipe:
        for line in lines:
            pipe.xadd(REDEMPTIONS, {"d": line})
        await pipe.execute()


async def recorded(pg: asyncpg.Connection[Any]) -> int:
    number: int = await pg.fetchval("SELECT count(*) FROM redemption_events")
    return number


async def test_text_that_copy_takes_for_its_own_is_written_as_it_was(
    sold: tuple[Road, str], redis: Redis, pg: asyncpg.Connection[Any]
) -> None:
    road, code = sold
    await add(redis, [refusal(code, "plain"), refusal(code, "odd", ODD), refusal(code, "last")])
    await road.parts.flusher.drain([REDEMPTIONS])

    rows = await pg.fetch("SELECT scan_id, operator FROM redemption_events ORDER BY event_id")
    assert [tuple(row) for row in rows] == [("plain", "gina"), ("odd", ODD), ("last", "gina")]


async def test_a_refused_entry_is_found_by_halves_and_the_order_stays(
    sold: tuple[Road, str], redis: Redis, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    road, code = sold
    lines = [refusal(code, f"scan {n:02d}") for n in range(64)]
    lines[37] = refusal("0000000000000000", "of no ticket")
    await add(redis, lines)
    sizes = []
    insert = redemptions.insert

    async def listen(connection: Any, events: EventRows) -> None:
        sizes.append(events.rows.count("\n"))
        await insert(connection, events)

    monkeypatch.setattr(redemptions, "insert", listen)
    await road.parts.flusher.drain([REDEMPTIONS])

    assert sizes == [64, 32, 32, 16, 8, 4, 4, 2, 1, 1, 2, 8, 16]
    rows = await pg.fetch("SELECT scan_id FROM redemption_events ORDER BY decided_at, event_id")
    assert len(rows) == 63
    letter = await pg.fetchrow("SELECT reason, body FROM dead_letters")
    assert letter is not None and letter["body"] == lines[37] and letter["reason"].startswith("NotInRecord")


async def test_a_flusher_that_is_behind_makes_no_pause(
    sold: tuple[Road, str], redis: Redis, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    road, code = sold
    await add(redis, [refusal(code, str(n)) for n in range(11)])
    monkeypatch.setattr(flusher, "FLUSH_BATCH_MAX", 3)
    monkeypatch.setattr(flusher, "FLUSH_LINGER_S", 0.0)
    await road.parts.flusher.step(REDEMPTIONS)
    monkeypatch.setattr(flusher, "FLUSH_LINGER_S", 60.0)
    async with asyncio.timeout(30):
        for _ in range(3):
            await road.parts.flusher.step(REDEMPTIONS)

    assert await recorded(pg) == 11


async def test_a_busy_stream_is_given_longer_to_gather_than_an_idle_one(
    sold: tuple[Road, str], redis: Redis, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    road, code = sold
    step = road.parts.flusher.step
    monkeypatch.setattr(flusher, "FLUSH_BUSY_ENTRIES_MIN", 2)
    monkeypatch.setattr(flusher, "FLUSH_BUSY_LINGER_S", 1.0)
    await add(redis, [refusal(code, "a"), refusal(code, "b")])
    await step(REDEMPTIONS)
    await add(redis, [refusal(code, "c")])
    flushing = asyncio.ensure_future(step(REDEMPTIONS))
    await asyncio.sleep(0.1)
    await add(redis, [refusal(code, "d")])
    await flushing
    assert await recorded(pg) == 4

    await step(REDEMPTIONS)  # nothing came: it is idle again
    await add(redis, [refusal(code, "e")])
    monkeypatch.setattr(flusher, "FLUSH_BUSY_LINGER_S", 60.0)
    async with asyncio.timeout(30):
        await step(REDEMPTIONS)
    assert await recorded(pg) == 5


async def test_the_metrics_tell_what_each_stage_of_a_flush_takes(
    sold: tuple[Road, str], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    road, code = sold
    read, now, behind_s = event_rows.read, time.perf_counter, 0.0

    def slow(*arguments: Any) -> EventRows:
        nonlocal behind_s
        behind_s += 1_000
        return read(*arguments)

    monkeypatch.setattr(flusher.time, "perf_counter", lambda: now() + behind_s)

    monkeypatch.setattr(event_rows, "read", slow)

    def told(what: str, stage: str) -> float:
        labels = {"stream": REDEMPTIONS, "stage": stage}
        return REGISTRY.get_sample_value(f"gateline_flush_seconds_{what}", labels) or 0.0

    stages = ("read", "parse", "write", "commit", "trim")
    before = {stage: (told("count", stage), told("sum", stage)) for stage in stages}
    await add(redis, [refusal(code, "a")])
    await road.parts.flusher.flush(REDEMPTIONS)

    assert {stage: told("count", stage) - before[stage][0] for stage in stages} == dict.fromkeys(stages, 1)
    took = {stage: told("sum", stage) - before[stage][1] for stage in stages}
    assert took["parse"] >= 1_000
    assert all(0 < seconds < 500 for stage, seconds in took.items() if stage != "parse"), took


async def test_free_orders_of_one_flush_are_settled_together_and_a_refused_one_does_not_hinder_them(
    serve: Serve, redis: Redis, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch, audit: Audit
) -> None:
    road = await serve(jobs=False)
    await road.parts.flusher.follow(road.parts.stream_names)
    free = await road.jobs_by_hand(road.product({"bus": 2, "ferry": 1}, price_fen=0, sellable=100))
    asked = [asyncio.ensure_future(road.order({free: 2}, buyer=f"buyer-{n}")) for n in range(20)]
    while await road.parts.streams.length(keys.ORDERS_STREAM) < len(asked):
        await asyncio.sleep(0.01)
    await redis.xadd(keys.ORDERS_STREAM, {"d": "garbage"})
    sends = []
    send = outbox.send

    async def listen(connection: Any, messages: Sequence[Any]) -> None:
        sends.append(len(messages))
        await send(connection, messages)

    monkeypatch.setattr(outbox, "send", listen)
    await road.parts.flusher.drain([keys.ORDERS_STREAM])
    made = [await each for each in asked]

    assert [each.status for each in made] == [201] * 20
    assert sum(sends) == 20 * (1 + 2) and len(sends) <= 5  # the halves of what had garbage in it
    assert await pg.fetchval("SELECT count(*) FROM orders WHERE status = 'PAID'") == 20
    assert await pg.fetchval("SELECT count(*) FROM tickets") == 40
    assert await pg.fetchval("SELECT count(*) FROM dead_letters") == 1
    while await road.parts.publisher.publish():
        pass
    await pg.execute("DELETE FROM dead_letters")
    await audit(road)
