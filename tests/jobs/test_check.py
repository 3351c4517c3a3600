"""`gateline check` on a system that works: silent about what is under way, honest about what it cannot judge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from redis.asyncio import Redis

from server.config import Config
from server.domain.catalog import Terms
from server.domain.errors import ErrorCode, Refusal
from server.domain.ids import new_order_id
from server.domain.orders import NewOrder, OrderLine
from server.domain.payments import PaymentNews, Settled
from server.domain.redemption import Decision, Scan, Verdict
from server.hot import keys
from server.hot.connection import connect
from server.hot.epoch import Epochs
from server.hot.stock import HoldCode
from server.hot.stream import Streams
from server.jobs import catch_up
from server.jobs.check import check
from server.jobs.findings import Finding, exit_code, render, report
from server.limits import SCAN_REPLAY_S
from server.store.pool import Database
from tests.conftest import Serve
from tests.jobs.check_scene import SHARDS, Pg, Places, Scene


async def test_a_road_that_was_walked_leaves_no_breach_and_every_rule_looked_at_something(
    scene: Scene,
) -> None:
    found = await scene.check()

    assert {code: each for code, each in found.items() if each.breaches or each.undecided} == {}
    assert [code for code, each in found.items() if not each.looked_at] == ["dead-letters"]
    assert found["3-ticket-at-gate"].looked_at == await scene.pg.fetchval("SELECT count(*) FROM tickets")
    assert found["1-hold-has-order"].looked_at == found["1-order-has-hold"].looked_at == 3
    assert found["5-scan-once"].looked_at == 7
    assert exit_code(list(found.values())) == 0


async def test_it_stays_clean_after_redis_was_emptied_and_loaded_again(scene: Scene) -> None:
    await scene.redis.flushall()
    await scene.parts.rehydration.guard()
    found = await scene.check()

    assert [each for each in found.values() if each.breaches or each.undecided] == []
    assert found["4-spent"].looked_at == 4


async def test_a_dead_letter_needs_a_person_and_is_no_breach(scene: Scene) -> None:
    await scene.pg.execute(
        "INSERT INTO dead_letters SELECT 'stream', n || '-0', 'refused', '' FROM generate_series(1, 7) AS n"
    )
    found = await scene.check()

    assert (found["dead-letters"].needs_person, len(found["dead-letters"].examples)) == (7, 5)
    assert exit_code(list(found.values())) == 0


async def test_an_entry_that_the_record_refused_was_not_passed_over(scene: Scene) -> None:
    for stream in (keys.ORDERS_STREAM, keys.redemptions(keys.shard_of(scene.places.used, SHARDS))):
        await scene.pass_over(stream)
        await scene.pg.execute("INSERT INTO dead_letters VALUES ($1, '1-1', 'refused', 'lost')", stream)
    found = await scene.check()

    assert found["4-cursor"].looked_at == 1 + SHARDS + 2
    assert [each for each in found.values() if each.breaches] == []


async def test_what_happened_more_than_a_day_ago_need_not_be_remembered(scene: Scene) -> None:
    """A scan may be judged anew; a gate loaded since has forgotten who spent a QR, and an old gate has not."""
    days_ago = timedelta(days=3)
    await scene.copy_event("reject", later=timedelta(seconds=SCAN_REPLAY_S))
    await scene.pg.execute(
        "UPDATE redemption_events SET decided_at = decided_at - $1::interval, scanned_at = scanned_at - $1::interval",
        days_ago,
    )
    await scene.redis.delete(*await scene.redis.keys("{s*}:said:*"))
    for name in await scene.redis.keys("{s*}:t:*"):
        for field, told in (await scene.redis.hgetall(name)).items():
            if field.startswith("j:") and name == scene.ticket_key(scene.places.used):
                first, _, decided_ms = told.rpartition("\t")
                shifted = int(decided_ms) - days_ago // timedelta(milliseconds=1)
                await scene.redis.hset(name, field, f"{first}\t{shifted}")
            elif field.startswith("j:"):
                await scene.redis.hdel(name, field)
    found = await scene.check()

    assert found["4-spent"].looked_at == 3
    assert [each for each in found.values() if each.breaches or each.undecided] == []


async def test_what_is_under_way_is_no_breach(
    serve: Serve, redis: Redis, pg: Pg, pages_of: Callable[[int], None]
) -> None:
    pages_of(100)
    road = await serve(shards=SHARDS)
    product = await road.product({"bus": 10}, sellable=200, price_fen=100)
    tickets = await road.buy({product: 10})
    tokens = [[await road.qr(ticket["ticket_code"]) for _ in range(4)] for ticket in tickets]
    await road.gate()
    done = asyncio.Event()

    async def buyer(name: str) -> None:
        while not done.is_set():
            made = await road.order({product: 1}, buyer=name)
            if made.status == 201 and name < "c":
                await road.notify(made.json["order_id"], 100)
            elif made.status == 201:
                await road.call("POST", f"/orders/{made.json['order_id']}/cancel", headers=road.buyer(name))

    async def gates() -> None:
        for some in tokens:
            for token in some:
                await asyncio.gather(*(road.scan(token, "bus") for _ in range(3)))

    working = [asyncio.create_task(buyer(name)) for name in ("a", "b", "c", "d")]
    working.append(asyncio.create_task(gates()))
    scene = Scene(road.parts, redis, pg, Places(product, "", "", "", ""))
    found = [await scene.check() for _ in range(3)]
    done.set()
    await asyncio.gather(*working)
    found.append(await scene.check())

    assert [each for one in found for each in one.values() if each.breaches or each.undecided] == []
    assert found[-1]["5-scan-once"].looked_at == 10 * 4 * 3


async def test_what_nobody_flushes_is_undecided_and_no_breach(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "CHECK_CATCH_UP_S_MAX", 0.05)
    parts = scene.parts
    order = NewOrder(
        order_id=new_order_id(),
        buyer_id="demo:bob",
        idempotency_key="k",
        payload_hash="h",
        total_fen=0,
        created_at=datetime.now(UTC),
        expires_at=datetime.now(UTC),
        lines=(OrderLine(scene.places.product, 1, 0, Terms(name="x", functions=())),),
    )
    assert (await parts.stock.hold(order, [True])).code is HoldCode.HELD
    line = await parts.redeemer.redeem(
        Scan(
            scan_id="s",
            ticket_code=scene.places.untouched,
            function_code="bus",
            jti="q",
            at_ms=1,
            operator="gina",
            venue_code="",
            terminal_device_id="",
        )
    )
    assert isinstance(line, str) and Decision.parse(line).verdict is Verdict.SUCCESS
    found = await scene.check()
    undecided = {code: each.undecided for code, each in found.items() if each.undecided}

    assert [each for each in found.values() if each.breaches] == []
    assert undecided == {
        "caught-up": 2,
        "1-hold-has-order": 1,
        "1-stock-equal": 1,
        "3-remaining-equal": 1,
        "4-spent": 1,
        "4-told": 1,
    }
    assert exit_code(list(found.values())) == 2


async def test_what_nobody_publishes_is_undecided_and_no_breach(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "CHECK_CATCH_UP_S_MAX", 0.05)
    order_id = scene.places.pending
    news = PaymentNews(
        gateway="hosted",
        gateway_txn_id="t",
        order_id=order_id,
        success=True,
        amount_fen=10_000,
        currency="CNY",
        paid_at=datetime.now(UTC),
    )
    assert await scene.parts.settlement.settle(news) is Settled.PAID
    await scene.pg.execute("UPDATE products SET sellable = 49 WHERE id = $1", scene.places.product)
    await scene.pg.execute("INSERT INTO outbox (kind, subject) VALUES ('cap', $1)", str(scene.places.product))
    found = await scene.check()

    assert [each for each in found.values() if each.breaches] == []
    assert {code for code, each in found.items() if each.undecided} == {"caught-up"}
    assert await scene.parts.publisher.publish() == 5
    clean = await scene.check()
    assert [each for each in clean.values() if each.breaches or each.undecided] == []


async def test_what_arrives_while_it_is_looked_at_again_is_no_breach(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first look and the second the ticket comes back: as loading does it."""
    name = scene.ticket_key(scene.places.untouched)
    ticket = await scene.redis.hgetall(name)
    await scene.redis.delete(name)
    looks = 0

    pause = asyncio.sleep

    async def sleep(seconds: float) -> None:
        nonlocal looks
        if seconds == catch_up.CHECK_LOOK_PAUSE_S:
            looks += 1
            await scene.redis.hset(name, mapping=ticket)
        await pause(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    found = await scene.check()

    assert looks == 1
    assert [each for each in found.values() if each.breaches or each.undecided] == []


async def test_closed_gates_are_undecided_and_no_breach(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "CHECK_CATCH_UP_S_MAX", 0.05)
    await scene.redis.flushall()
    found = await scene.check()

    assert exit_code(list(found.values())) == 2
    assert found["caught-up"].undecided == 1 + SHARDS
    assert found["3-ticket-at-gate"].examples == ["not judged: the gates are closed: Redis is not loaded"]
    assert found["3-uses"].looked_at > 0


async def test_postgres_or_redis_away_is_one_clear_refusal(config: Config) -> None:
    assert config.redis_url and config.database_url
    away = "postgresql://nobody@127.0.0.1:9/none"
    for redis_url, database_url, code in (
        (config.redis_url, away, ErrorCode.POSTGRES_UNAVAILABLE),
        ("redis://127.0.0.1:9", config.database_url, ErrorCode.REDIS_UNAVAILABLE),
    ):
        redis, db = connect(redis_url), Database(database_url, size_max=1)
        with pytest.raises(Refusal) as refused:
            await check(db, redis, Streams(redis), Epochs(redis, 1), 1)
        assert refused.value.code is code
        await db.close()
        await redis.aclose(close_connection_pool=True)


def test_the_table_shows_every_rule_with_its_count_and_breaches_last() -> None:
    findings = [
        Finding(
            invariant="1-x", text="One " * 30, looked_at=1_234_567, breaches=9, examples=["ticket A: gone"]
        ),
        Finding(invariant="2-y", text="Two", looked_at=3),
        Finding(invariant="3-z", text="Three", undecided=2, examples=["not judged: late"]),
        Finding(
            invariant="letters", text="Letters", looked_at=1, needs_person=1, examples=["s 1-0: refused"]
        ),
    ]
    lines = render(findings).splitlines()

    assert [line.split()[0] for line in lines if line[:1].isalnum()][:4] == [
        "ok",
        "PERSON",
        "UNKNOWN",
        "BREACH",
    ]
    assert "1,234,567" in next(line for line in lines if line.startswith("BREACH"))
    assert lines[-2].endswith("· ticket A: gone")
    assert lines[-1] == (
        "4 rules held against 1,234,571 things: 9 breaches of 1 rules; 2 could not be judged; 1 things need a person."
    )
    assert max(len(line) for line in lines) <= 120


def test_programs_get_one_json_object() -> None:
    clean = [Finding(invariant="1-x", text="One", looked_at=1)]
    broken = [*clean, Finding(invariant="2-y", text="Two", breaches=2, examples=["here"])]

    assert msgspec.json.decode(report(clean))["ok"] is True
    told = msgspec.json.decode(report(broken))
    assert (told["ok"], told["breaches"], told["findings"][1]["examples"]) == (False, 2, ["here"])
