"""Stopping: what was begun is finished, what was decided is flushed, and nothing keeps the process from ending."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import asyncpg
import pytest
from aiohttp import ClientConnectionError

from server.app import build_jobs
from server.config import Config
from server.hot import keys
from server.jobs import flusher, loops
from tests.conftest import Audit, Serve
from tests.outage.conftest import Spawn
from tests.processes import road_to, until_followed
from tests.road import PATIENCE_S, Answer


async def test_sigterm_finishes_what_was_begun_and_flushes(
    spawn: Spawn, config: Config, pg: asyncpg.Connection[Any]
) -> None:
    server = await spawn("serve", "--with-jobs")
    address = (await server.until("serving"))["address"]
    async with road_to(address, config) as road:
        product = await road.product({"bus": 9}, price_fen=0, sellable=1_000)
        await until_followed(road, product=product)
        (ticket,) = await road.buy({product: 1})
        qrs = [await road.qr(ticket["ticket_code"]) for _ in range(3)]
        told: list[Answer] = []

        async def gate(number: int) -> None:
            """Scans and orders until the server is gone."""
            try:
                while True:
                    told.append(await road.scan(qrs[number % 3], "bus"))
                    told.append(await road.order({product: 1}, buyer=f"buyer-{number}"))
            except (ClientConnectionError, OSError):
                return

        gates = asyncio.gather(*(gate(number) for number in range(20)))
        while len(told) < 200:
            await asyncio.sleep(0.01)
        assert await server.stop() == 0
        await gates

        assert {answer.status for answer in told} <= {200, 201, 503}
        scanned = [answer.json for answer in told if answer.status == 200]
        bought = [answer.json for answer in told if answer.status == 201]
        lengths = [await road.parts.streams.length(name) for name in road.parts.stream_names]
        assert lengths == [0, 0], "it flushed before it ended"
        recorded = await pg.fetch("SELECT event_id, result FROM redemption_events")
        events = {row["event_id"]: row["result"] for row in recorded}
        assert {each["event_id"]: each["result"] for each in scanned}.items() <= events.items()
        assert Counter(each["result"] for each in scanned)["success"] == 3
        statuses = dict(await pg.fetch("SELECT id, status FROM orders"))
        assert {each["order_id"] for each in bought} <= statuses.keys()
        assert set(statuses.values()) == {"PAID"}
        assert await pg.fetchval("SELECT count(*) FROM outbox") == 0
        assert await pg.fetchval("SELECT count(*) FROM tickets") == len(statuses)
    assert server.errors() == []


async def test_a_worker_that_is_stopped_has_flushed_and_another_goes_on(
    spawn: Spawn, serve: Serve, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    road = await serve(jobs=False)
    product = await road.jobs_by_hand(road.product(price_fen=100))
    made = [(await road.order({product: 1})).json["order_id"] for _ in range(20)]
    worker = await spawn("work")
    await worker.until("working")
    assert await worker.stop() == 0
    assert worker.errors() == []

    assert {row[0] for row in await pg.fetch("SELECT id FROM orders")} == set(made)
    await (await spawn("work")).until("working")
    assert (await road.notify(made[0], 100)).json["result"] == "PAID"
    await audit(road)


async def test_orders_of_a_killed_server_expire_once_and_their_units_are_free_again(
    spawn: Spawn, serve: Serve, config: Config, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    """The units are held in Redis and the order is on its way: neither needs the process that made them."""
    server = await spawn("serve", GATELINE_HOLD_S="1")
    jobs = await serve()
    address = (await server.until("serving"))["address"]
    async with road_to(address, config) as road:
        product = await road.product(price_fen=100, sellable=5)
        await until_followed(road, product=product)
        held = await asyncio.gather(*(road.order({product: 1}, buyer=f"buyer-{n}") for n in range(5)))
        assert [answer.status for answer in held] == [201] * 5
        await server.kill()

    async def free() -> bool:
        level = (await jobs.parts.stock.levels([product]))[product]
        return (level.reserved, level.sold) == (0, 0)

    async with asyncio.timeout(PATIENCE_S):
        while not await free():
            await asyncio.sleep(0.02)
    states = [row[0] for row in await pg.fetch("SELECT status FROM orders")]
    assert states == ["EXPIRED"] * 5
    assert (await jobs.order({product: 5})).status == 201
    await audit(jobs)


async def test_what_is_left_when_the_jobs_stop_is_flushed_and_published(
    serve: Serve, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch, audit: Audit
) -> None:
    monkeypatch.setattr(flusher, "FLUSH_ORDERS_MAX", 3)
    road = await serve(jobs=False)
    product = await road.jobs_by_hand(road.product(price_fen=100, sellable=20))
    made = [(await road.order({product: 1})).json["order_id"] for _ in range(10)]
    await road.parts.flusher.follow(road.parts.stream_names)
    await road.parts.flusher.flush(keys.ORDERS_STREAM)
    path = f"/orders/{made[0]}/cancel"
    assert (await road.call("POST", path, headers=road.buyer())).json["status"] == "CANCELLED"
    jobs = build_jobs(road.parts)
    jobs.stop()  # before any of its loops took a step
    await jobs.run()

    assert await pg.fetchval("SELECT count(*) FROM orders") == 10
    level = (await road.parts.stock.levels([product]))[product]
    assert (level.reserved, level.sold) == (9, 0)
    await audit(road)


# --- what must not keep a process from ending ------------------------------------------------------------------------


async def test_a_gateway_that_does_not_answer_does_not_keep_the_jobs_from_stopping_and_flushing(
    serve: Serve, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    road = await serve(jobs=False)
    product = await road.jobs_by_hand(road.product())
    await road.order({product: 1})
    await road.parts.flusher.drain(road.parts.stream_names)
    await pg.execute("UPDATE orders SET created_at = now() - interval '2 min'")
    asked = asyncio.Event()

    async def hang(order_id: str) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(road.parts.jobs_paying.provider, "query", hang)
    monkeypatch.setattr(loops, "SHUTDOWN_DRAIN_S_MAX", 2.0)
    jobs = build_jobs(road.parts)
    running = asyncio.create_task(jobs.run())
    await asked.wait()
    jobs.stop()
    late = await road.order({product: 1})
    async with asyncio.timeout(PATIENCE_S):
        await running
    assert await pg.fetchval("SELECT count(*) FROM orders WHERE id = $1", late.json["order_id"]) == 1


async def test_a_fault_that_no_one_expected_does_not_keep_the_server_from_ending_in_order(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    road = await serve()
    before = await road.alerts("STOPPED_WITH_FAULT")
    other = await serve(jobs=False)

    async def fail(streams: list[str], *, loading: bool = False) -> None:
        raise ArithmeticError("unexpected")

    monkeypatch.setattr(road.parts.flusher, "drain", fail)
    await road.stop()
    assert await other.alerts("STOPPED_WITH_FAULT") == before + 1
    names = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
    assert not any(name.startswith("Jobs.") for name in names)
    assert len([name for name in names if name == "DirectoryFollower.follow"]) <= 1, "only the other server's"
