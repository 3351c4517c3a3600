"""Redis emptied, killed, hung, or back with less than it had: it is rebuilt, and everything goes on where it stood."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from server.config import Ack
from server.dev.embedded import EmbeddedValkey
from server.domain.errors import Refusal
from server.hot import keys
from tests.conftest import Audit, Serve, eventually, redis_given_up_after
from tests.road import PATIENCE_S, Answer, Road

REDEMPTIONS = keys.redemptions(0)


async def stock_of(redis: Redis) -> dict[str, Any]:
    """Every product's units, and the holds."""
    products = {name: await redis.hgetall(name) for name in await redis.keys("{stock}:p:*")}
    return products | {"holds": sorted(await redis.keys("{stock}:o:*"))}


async def left_on(redis: Redis) -> dict[str, str]:
    """What is left on every ticket."""
    return {name: await redis.hget(name, "r") for name in await redis.keys("{s00}:t:*")}


async def insist(road: Road, token: str, scan_id: str) -> tuple[list[Answer], Answer]:
    """Scan as a gate does, again and again with the same id until there is a verdict; (the 503s, the verdict)."""
    turned_away = []
    async with asyncio.timeout(PATIENCE_S):
        while (told := await road.scan(token, "bus", scan_id=scan_id)).status == 503:
            turned_away.append(told)
            await asyncio.sleep(0.02)
    return turned_away, told


async def test_emptied_after_a_sale_redis_is_rebuilt_by_itself_and_all_goes_on_where_it_stood(
    road: Road, redis: Redis, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    await road.venue("pier", ["bus"])
    product = await road.product({"bus": 5, "ferry": 1}, sellable=20, price_fen=100)
    (ticket, *_) = await road.buy({product: 3})
    code = ticket["ticket_code"]
    qr = await road.qr(code)
    place = {"venue_code": "pier", "terminal_device_id": "gate-7"}
    told = {
        "passed": await road.scan(qr, "bus", scan_id="passed", **place),
        "again": await road.scan(qr, "bus", scan_id="again"),
        "wrong": await road.scan(qr, "museum", scan_id="wrong"),
        "second": await road.scan(await road.qr(code), "bus", scan_id="second"),
    }
    held = await road.order({product: 4}, idempotency_key="held")
    ended = await road.order({product: 2}, idempotency_key="ended")
    await road.call("POST", f"/orders/{ended.json['order_id']}/cancel", headers=road.buyer())
    await road.flushed()
    before = (await stock_of(redis), await left_on(redis))

    await redis.flushall()
    assert (await road.order({product: 1})).json["code"] == "GATE_CLOSED"
    turned_away, passed = await insist(road, await road.qr(code), "third")
    assert {answer.json["code"] for answer in turned_away} == {"GATE_CLOSED"}
    assert all("Retry-After" in answer.headers for answer in turned_away)
    assert (passed.json["result"], passed.json["remaining_uses"]) == ("success", 2)

    assert await stock_of(redis) == before[0]
    after = await left_on(redis)
    assert after.pop(keys.ticket(0, code)) == ",bus=2,ferry=1,"
    before[1].pop(keys.ticket(0, code))
    assert after == before[1]
    assert (await road.scan(qr, "bus", scan_id="passed", **place)).raw == told["passed"].raw
    assert (await road.scan(qr, "bus", scan_id="again")).raw == told["again"].raw
    assert (await road.scan(qr, "museum", scan_id="wrong")).raw == told["wrong"].raw
    assert (await road.scan(qr, "bus", scan_id="second")).raw == told["second"].raw
    seen = await road.scan(qr, "bus")
    assert seen.json["first_redemption"] == told["again"].json["first_redemption"]
    assert (await road.scan(qr, "ferry", scan_id="passed")).json["code"] == "SCAN_ID_CONFLICT"
    assert (await road.order({product: 4}, idempotency_key="held")).raw == held.raw
    assert (await road.order({product: 9}, idempotency_key="ended")).json["code"] == "IDEMPOTENCY_CONFLICT"
    assert (await road.notify(held.json["order_id"], 400)).json["result"] == "PAID"
    await audit(road)
    level = (await road.parts.stock.levels([product]))[product]
    assert (level.reserved, level.sold) == (0, 7)
    await road.until_ready()


async def test_emptied_while_people_scan_and_buy_redis_comes_back_without_a_double_spend(
    serve: Serve, redis: Redis, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    """What Redis alone knew at that moment is lost (README, acknowledgement levels); nothing else goes wrong."""
    one, other = await serve(), await serve()
    product = await one.product({"bus": 30}, price_fen=0, sellable=200)
    await other.parts.directory.refresh()
    codes = [(await one.buy({product: 1}))[0]["ticket_code"] for _ in range(3)]
    await one.gate()
    await other.gate()
    stop = asyncio.Event()
    bought: list[Answer] = []
    told: list[Answer] = []

    async def gate(road: Road, code: str) -> None:
        while not stop.is_set():
            told.append(await road.scan(await road.qr(code), "bus"))

    async def buyer(road: Road, name: str) -> None:
        while not stop.is_set():
            bought.append(await road.order({product: 1}, buyer=name))

    crowd = asyncio.gather(
        *(gate(road, code) for road in (one, other) for code in codes),
        *(buyer(road, f"buyer-{number}") for number, road in enumerate((one, other))),
    )
    for _ in range(3):
        passed = len(told)
        await eventually(lambda: asyncio.sleep(0, len(told) > passed + 20))  # noqa: B023  (awaited at once)
        await redis.flushall()
        await eventually(lambda: _ready(one))
    stop.set()
    await crowd

    assert {answer.status for answer in told} <= {200, 503}
    # 404: the order was made, and forgotten before its tickets could be issued; the retry makes it anew.
    assert {answer.status for answer in bought} <= {201, 404, 422, 503}
    await one.flushed()
    rows = await pg.fetch(
        "SELECT total_uses - remaining_uses AS spent, (SELECT count(*) FROM redemption_events AS event"
        " WHERE event.ticket_code = entitlements.ticket_code AND result = 'success') AS passed FROM entitlements"
    )
    assert all(row["spent"] == row["passed"] <= 30 for row in rows)
    recorded = {row[0]: row[1] for row in await pg.fetch("SELECT event_id, remaining FROM redemption_events")}
    agreeing = [answer for answer in told if answer.status == 200 and answer.json["event_id"] in recorded]
    assert all(
        f",bus={answer.json['remaining_uses']}," == recorded[answer.json["event_id"]] for answer in agreeing
    )
    assert await pg.fetchval("SELECT count(*) FROM dead_letters") == 0
    taken = await pg.fetchrow("SELECT reserved + sold AS taken, sellable FROM stock")
    assert taken is not None and taken["taken"] <= taken["sellable"]
    await audit(one)


async def _ready(road: Road) -> bool:
    return (await road.call("GET", "/readyz")).status == 200


# --- what can go wrong while Redis is being loaded ---------------------------------------------------------------


@pytest.fixture
async def sold(serve: Serve) -> AsyncIterator[tuple[Road, int, str]]:
    """A server without jobs, after the sale of one ticket for two rides; (it, the product, the ticket's code)."""
    jobs = await serve()
    product = await jobs.product({"bus": 2}, sellable=5)
    (ticket,) = await jobs.buy({product: 1})
    await jobs.flushed()
    await jobs.stop()
    road = await serve(jobs=False)
    await road.gate()
    yield road, product, ticket["ticket_code"]


@pytest.mark.parametrize("last", ["_load_stock", "_load_tickets", "_load_verdicts"])
async def test_emptied_again_while_it_is_loaded_redis_is_not_opened_half_empty(
    sold: tuple[Road, int, str], redis: Redis, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    road, product, code = sold
    rehydration = road.parts.rehydration
    step, emptied = getattr(rehydration, last), False

    async def empty_once(*arguments: Any) -> Any:
        nonlocal emptied
        loaded = await step(*arguments)
        if not emptied:
            emptied = True
            await redis.flushall()
        return loaded

    monkeypatch.setattr(rehydration, last, empty_once)
    await redis.flushall()
    for _ in range(2):  # as the guard does: again after a fault
        try:
            await rehydration.guard()
        except Refusal:
            continue
    assert (await road.order({product: 1})).status == 201
    assert await redis.exists(keys.ticket(0, code))
    level = (await road.parts.stock.levels([product]))[product]
    assert (level.sellable, level.reserved, level.sold) == (5, 1, 1)


async def test_one_who_lost_the_lock_while_loading_writes_nothing_into_open_gates(
    sold: tuple[Road, int, str], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, _, code = sold
    fast = await serve(jobs=False)
    rehydration = slow.parts.rehydration
    read, replace = asyncio.Event(), asyncio.Event()
    gate_hashes = rehydration._loader.gate_hashes

    async def dawdle(codes: list[str]) -> Any:
        hashes = await gate_hashes(codes)
        read.set()
        await replace.wait()
        return hashes

    monkeypatch.setattr(rehydration._loader, "gate_hashes", dawdle)
    loading = asyncio.create_task(rehydration.rehydrate())
    await read.wait()
    async with (
        slow.parts.database.connection() as connection
    ):  # its session ends, as an idle one may behind a firewall
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks"
            " WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock'"
        )
    await fast.parts.rehydration.guard()
    passed = await fast.scan(await fast.qr(code), "bus")
    assert passed.json["remaining_uses"] == 1
    replace.set()
    with pytest.raises(Refusal):
        await loading
    assert (await fast.scan(await fast.qr(code), "bus")).json["remaining_uses"] == 0
    assert (await fast.scan(await fast.qr(code), "bus")).json["reason"] == "NO_REMAINING"


# --- what a failing machine leaves -------------------------------------------------------------------------------


async def test_back_without_its_last_second_redis_is_rebuilt_and_a_gate_that_is_faster_than_the_guard_waits(
    serve: Serve, own_valkey: EmbeddedValkey, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    """At acknowledgement `memory` the host's crash takes what was not on disk; Postgres has it, and it counts."""
    jobs = await serve(redis_url=own_valkey.url, ack=Ack.MEMORY)
    product = await jobs.product({"bus": 1, "ferry": 1}, sellable=5)
    first, other = [ticket["ticket_code"] for ticket in await jobs.buy({product: 2})]
    await jobs.flushed()
    file = next(own_valkey.log.parents[1].glob("valkey/appendonlydir/*.incr.aof"))
    on_disk = file.stat().st_size
    assert (await jobs.scan(await jobs.qr(first), "bus")).json["result"] == "success"
    await jobs.flushed()
    await jobs.stop()
    own_valkey.kill()
    os.truncate(file, on_disk)
    own_valkey.start()

    road = await serve(redis_url=own_valkey.url, ack=Ack.MEMORY, jobs=False)
    await road.backlog.look()
    token = await road.qr(other)
    early = await road.scan(token, "bus", scan_id="early")
    assert (early.status, early.json["code"]) == (503, "GATE_CLOSED")
    await road.parts.rehydration.guard()
    assert (await road.scan(await road.qr(first), "bus")).json["reason"] == "NO_REMAINING"
    assert (await road.scan(token, "bus", scan_id="early")).json["result"] == "success"
    await road.jobs_by_hand(asyncio.sleep(0))
    await road.parts.flusher.drain(road.parts.stream_names)
    await audit(road)
    spent = await pg.fetch("SELECT ticket_code, remaining_uses FROM entitlements WHERE function_code = 'bus'")
    assert {tuple(row) for row in spent} == {(first, 0), (other, 0)}


async def test_while_redis_hangs_nobody_waits_for_the_looks_of_others(
    serve: Serve, own_valkey: EmbeddedValkey
) -> None:
    road = await serve(redis_url=own_valkey.url)
    await road.product({"bus": 1})
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:
        with redis_given_up_after(1.0):
            async with asyncio.timeout(PATIENCE_S):  # one after the other they would take longer
                told = await asyncio.gather(
                    *(road.call("GET", "/catalog") for _ in range(2 * int(PATIENCE_S)))
                )
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)

    assert {(answer.status, answer.json["code"]) for answer in told} == {(503, "REDIS_UNAVAILABLE")}


async def test_while_redis_hangs_scans_are_turned_away_and_afterwards_hear_one_verdict(
    serve: Serve, own_valkey: EmbeddedValkey, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    """It may have heard the scan, or not: the retry finds out, and no answer is ever given to another's question."""
    road = await serve(redis_url=own_valkey.url)
    (ticket,) = await road.buy({await road.product({"bus": 50}): 1})
    qrs = [await road.qr(ticket["ticket_code"]) for _ in range(20)]
    await road.gate()
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:
        with redis_given_up_after(1.0):
            scans = (road.scan(qr, "bus", scan_id=f"hung-{n}") for n, qr in enumerate(qrs))
            hung = await asyncio.gather(*scans)
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)
    assert {(answer.status, answer.json["code"]) for answer in hung} == {(503, "REDIS_UNAVAILABLE")}

    async def scan(number: int) -> Answer:
        return (await insist(road, qrs[number], f"hung-{number}"))[1]

    told = await asyncio.gather(*(scan(number) for number in range(20)))
    assert sorted(answer.json["remaining_uses"] for answer in told) == list(range(30, 50))
    assert [answer.json["scan_id"] for answer in told] == [f"hung-{number}" for number in range(20)]
    await road.until_ready()
    await audit(road)
    assert await pg.fetchval("SELECT count(*) FROM redemption_events") == 20
    await road.stop()
