"""The flusher killed between read, commit and trim, and the publisher between telling and forgetting: all once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from server.hot import keys
from tests.conftest import Audit, Serve
from tests.outage.conftest import Spawn
from tests.outage.dying_worker import POINTS
from tests.road import Road

DYING = ("-m", "tests.outage.dying_worker")
SIGKILLED = -9
REDEMPTIONS = keys.redemptions(0)


@pytest.fixture
async def road(serve: Serve) -> AsyncIterator[Road]:
    """A server without jobs: what is decided stays in Redis until a test flushes it."""
    road = await serve(jobs=False)
    await road.parts.flusher.follow(road.parts.stream_names)
    yield road


async def drain(road: Road) -> None:
    """Flush and publish everything, as the next worker does."""
    await road.parts.flusher.drain(road.parts.stream_names)
    while await road.parts.publisher.publish():
        pass


@pytest.mark.parametrize("point", POINTS)
async def test_a_flusher_killed_at_any_point_writes_every_event_once(
    road: Road, spawn: Spawn, pg: asyncpg.Connection[Any], audit: Audit, point: str
) -> None:
    product = await road.jobs_by_hand(road.product({"bus": 9}, price_fen=0, sellable=50))
    first = asyncio.ensure_future(road.order({product: 1}))
    while not first.done():
        await drain(road)
        await asyncio.sleep(0.01)
    (ticket,) = (await road.call("GET", "/my/tickets", headers=road.buyer())).json["tickets"]
    code = ticket["ticket_code"]
    making = [asyncio.ensure_future(road.order({product: 2}, buyer=f"buyer-{n}")) for n in range(5)]
    told = []
    for _ in range(5):
        qr = await road.qr(code)
        told += [await road.scan(qr, "bus"), await road.scan(qr, "bus")]
    assert [answer.json["result"] for answer in told] == ["success", "reject"] * 5
    while await road.parts.streams.length(keys.ORDERS_STREAM) < len(making):
        await asyncio.sleep(0.01)

    dying = [await spawn(point, name, program=DYING) for name in (keys.ORDERS_STREAM, REDEMPTIONS)]
    assert [await worker.ended() for worker in dying] == [SIGKILLED] * 2
    told.append(await road.scan(await road.qr(code), "bus"))
    await drain(road)
    orders = [await made for made in making]
    assert [made.status for made in orders] == [201] * 5
    states = [row["status"] for row in await pg.fetch("SELECT status FROM orders")]
    assert states == ["PAID"] * 6
    issued = await pg.fetch("SELECT order_id, count(*) FROM tickets WHERE buyer_id <> 'demo:ann' GROUP BY 1")
    assert dict(issued) == {made.json["order_id"]: 2 for made in orders}
    recorded = [row["event_id"] for row in await pg.fetch("SELECT event_id FROM redemption_events")]
    assert sorted(recorded) == sorted(answer.json["event_id"] for answer in told)
    left = await pg.fetchval("SELECT remaining_uses FROM entitlements WHERE ticket_code = $1", code)
    assert left == told[-1].json["remaining_uses"] == 9 - 6
    await audit(road)
    assert await pg.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_a_publisher_killed_after_it_told_redis_tells_nothing_twice(
    road: Road, spawn: Spawn, audit: Audit
) -> None:
    product = await road.jobs_by_hand(road.product({"bus": 3}, price_fen=500, sellable=10))
    kept, dropped = [(await road.order({product: 2})).json["order_id"] for _ in range(2)]
    await road.parts.flusher.drain(road.parts.stream_names)
    assert (await road.notify(kept, 1_000)).json["result"] == "PAID"
    assert (await road.call("POST", f"/orders/{dropped}/cancel", headers=road.buyer())).status == 200

    assert await (await spawn("told", "outbox", program=DYING)).ended() == SIGKILLED
    # Told, but not forgotten: a gate may be faster than the next publisher.
    (code, _) = [
        ticket["ticket_code"]
        for ticket in (await road.call("GET", "/my/tickets", headers=road.buyer())).json["tickets"]
    ]
    assert (await road.scan(await road.qr(code), "bus")).json["remaining_uses"] == 2
    await drain(road)
    assert (await road.scan(await road.qr(code), "bus")).json["remaining_uses"] == 1
    level = (await road.parts.stock.levels([product]))[product]
    assert (level.reserved, level.sold) == (0, 2)
    await drain(road)
    await audit(road)


async def test_many_flushers_at_once_write_every_event_once(
    serve: Serve, road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    others = [await serve(jobs=False) for _ in range(2)]
    product = await road.jobs_by_hand(road.product({"bus": 1_000}, price_fen=0))
    making = asyncio.ensure_future(road.order({product: 1}))
    while not making.done():
        await drain(road)
    (ticket,) = (await road.call("GET", "/my/tickets", headers=road.buyer())).json["tickets"]
    qr = await road.qr(ticket["ticket_code"])
    await road.gate()
    told: list[str] = []

    async def scan() -> None:
        for _ in range(60):
            token = qr if len(told) % 3 else road.sealed(ticket["ticket_code"])
            told.append((await road.scan(token, "bus")).json["event_id"])

    async def flush(worker: Road) -> None:
        while not scanning.done() or await worker.parts.streams.length(REDEMPTIONS):
            await worker.parts.flusher.flush(REDEMPTIONS)
            await asyncio.sleep(0)

    scanning = asyncio.gather(*(scan() for _ in range(5)))
    await asyncio.gather(scanning, *(flush(worker) for worker in (road, *others)))

    recorded = [row["event_id"] for row in await pg.fetch("SELECT event_id FROM redemption_events")]
    assert sorted(recorded) == sorted(told)
    await audit(road)
