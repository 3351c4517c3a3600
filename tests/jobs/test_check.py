"""`gateline check`: silent on a system that works, and loud about every kind of breach, each made here by hand."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis

from server import config as configuration
from server.app import Parts, build_app, build_jobs, open_parts
from server.config import Config
from server.dev.embedded import EmbeddedServers
from server.domain.catalog import Terms
from server.domain.errors import ErrorCode, Refusal
from server.domain.ids import new_order_id
from server.domain.orders import NewOrder, OrderLine
from server.domain.payments import PaymentNews, Settled
from server.domain.redemption import Decision, Scan, Verdict, pack_remaining, unpack_remaining
from server.hot import keys
from server.hot.connection import connect
from server.hot.epoch import Epochs
from server.hot.stock import HoldCode
from server.hot.stream import Streams
from server.jobs import catch_up, check_record, check_stock, check_tickets, check_verdicts
from server.jobs import check as check_module
from server.jobs.check import Finding, check, exit_code, render, report
from server.store.pool import Database
from server.web import appkeys
from tests.conftest import Serve, database_named, key
from tests.road import Road

SHARDS = 3
Pg: TypeAlias = "asyncpg.Connection[Any]"


def pages_of(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for module in (check_module, check_record, check_stock, check_tickets, check_verdicts):
        monkeypatch.setattr(module, "CHECK_PAGE", size)


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two things a page, so that a handful of orders and tickets crosses pages; looks in quick succession."""
    pages_of(monkeypatch, 2)
    monkeypatch.setattr(catch_up, "CHECK_LOOK_PAUSE_S", 0.001)


@dataclass
class Scene:
    """A road that was walked: orders in every status; tickets untouched, half used and used up; many verdicts."""

    parts: Parts
    redis: Redis
    pg: Pg
    places: Places

    def ticket_key(self, code: str) -> str:
        return keys.ticket(keys.shard_of(code, SHARDS), code)

    async def check(self) -> dict[str, Finding]:
        parts = self.parts
        found = await check(parts.bulk_database, parts.redis, parts.streams, parts.epochs, SHARDS)
        return {finding.invariant: finding for finding in found}


@dataclass(frozen=True)
class Places:
    """What a test may want to break."""

    product: int
    pending: str
    paid: str
    untouched: str
    used: str


async def walk(road: Road) -> Places:
    product = await road.product({"bus": 2, "museum": 1}, price_fen=5_000, sellable=50)
    other = await road.product({"ferry": 1}, price_fen=0)
    await road.venue("pier", ["ferry"])
    tickets = await road.buy({product: 3})
    await road.buy({other: 2, product: 1})
    await road.buy({other: 1})
    pending = (await road.order({product: 2, other: 1})).json["order_id"]
    await road.order({product: 1})
    await road.order({other: 1, product: 5})
    dropped = (await road.order({product: 4})).json
    await road.call("POST", f"/orders/{dropped['order_id']}/cancel", headers=road.buyer())
    await road.notify(dropped["order_id"], dropped["total_fen"])
    ended = (await road.order({product: 1})).json["order_id"]
    await road.call("POST", f"/orders/{ended}/cancel", headers=road.buyer())

    used, half, untouched = (ticket["ticket_code"] for ticket in tickets)
    for function in ("bus", "bus", "museum"):
        await road.scan(await road.qr(used), function)
    token = await road.qr(half)
    for _ in range(2):
        await road.scan(token, "bus", scan_id="told-twice")
    await road.scan(token, "bus")  # ALREADY_REDEEMED
    await road.scan(token, "ferry")  # WRONG_FUNCTION
    await road.scan(await road.qr(half), "bus", venue_code="pier")  # WRONG_VENUE_FUNCTION
    await road.scan("NOT-A-TOKEN", "bus")
    await road.flushed()
    return Places(product, pending, tickets[0]["order_id"], untouched, used)


@dataclass(frozen=True)
class Walked:
    """What a walk left behind, to be put back for each test: a database to clone, and every key of Redis."""

    config: Config
    places: Places
    database: str
    dumps: dict[str, bytes]


@pytest.fixture(scope="module")
async def walked(
    servers: EmbeddedServers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Walked]:
    assert servers.database_url and servers.redis_url
    name = "check_walked"
    admin = await asyncpg.connect(servers.database_url)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    config = msgspec.structs.replace(
        configuration.load(
            {
                "REDIS_URL": servers.redis_url,
                "DATABASE_URL": database_named(servers.database_url, name),
                "GATELINE_DATA_DIR": str(tmp_path_factory.mktemp("check")),
                "GATELINE_QR_KEYS": f"1:{key()}",
                "GATELINE_JWT_KEYS": f"k1:{key()}",
                "GATELINE_GATEWAY_SECRETS": key(),
                "GATELINE_GATEWAY_URL": "http://127.0.0.1:9",
            }
        ),
        shards=SHARDS,
    )
    async with Redis.from_url(servers.redis_url) as redis:
        await redis.flushall()
        async with open_parts(config) as parts:
            app = build_app(parts, jobs=build_jobs(parts))
            async with TestServer(app) as server, ClientSession(base_url=server.make_url("/")) as session:
                road = Road(session, config, parts, app[appkeys.BACKLOG])
                await road.until_ready()
                places = await walk(road)
        dumps = {name.decode(): await redis.dump(name) for name in await redis.keys()}
    yield Walked(config, places, name, dumps)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def scene(walked: Walked, redis_url: str, redis: Redis) -> AsyncIterator[Scene]:
    """The walked road, put back as it was; no server and no job runs on it."""
    assert walked.config.database_url
    name = f"test_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(walked.config.database_url.replace(walked.database, "postgres"))
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {walked.database}")
    url = database_named(walked.config.database_url, name)
    pg = await asyncpg.connect(url)
    async with Redis.from_url(redis_url) as raw, raw.pipeline() as pipe:
        for each, dump in walked.dumps.items():
            pipe.restore(each, 0, dump)
        await pipe.execute()
    async with open_parts(msgspec.structs.replace(walked.config, database_url=url)) as parts:
        yield Scene(parts, redis, pg, walked.places)
    await pg.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


# --- A system that works ------------------------------------------------------------------------------------


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


async def test_what_is_under_way_is_no_breach(
    serve: Serve, redis: Redis, pg: Pg, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages_of(monkeypatch, 100)
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


# --- Breaches, each made by hand ----------------------------------------------------------------------------


Tamper = Callable[[Scene], Awaitable[object]]
BREACHES: list[tuple[str, dict[str, int], Tamper]] = []


def breach(what: str, **expected: int) -> Callable[[Tamper], Tamper]:
    """Register a way of breaking things, and what the check must say of it: rule -> count, and nothing else."""

    def register(tamper: Tamper) -> Tamper:
        BREACHES.append((what, {"-".join(k.split("_")[1:]): n for k, n in expected.items()}, tamper))
        return tamper

    return register


async def set_use(
    scene: Scene, code: str, function: str, left: int, *, in_record: bool, at_gate: bool
) -> None:
    if in_record:
        await scene.pg.execute(
            "UPDATE entitlements SET remaining_uses = $3 WHERE ticket_code = $1 AND function_code = $2",
            code, function, left,
        )  # fmt: skip
    if at_gate:
        uses = unpack_remaining(await scene.redis.hget(scene.ticket_key(code), "r") or "") | {function: left}
        await scene.redis.hset(scene.ticket_key(code), "r", pack_remaining(list(uses.items())))


async def copy_event(scene: Scene, result: str, **changes: str) -> None:
    """One more event like the first of this result, as if it came a moment later."""
    event = dict(await scene.pg.fetchrow("SELECT * FROM redemption_events WHERE result = $1", result))
    event |= {"event_id": event["event_id"] + "7", **changes}
    places = ", ".join(f"${number}" for number in range(1, len(event) + 1))
    await scene.pg.execute(f"INSERT INTO redemption_events VALUES ({places})", *event.values())  # noqa: S608


@breach("more units are sold in Redis than there are", _1_cap_redis=1, _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hincrby(keys.stock(scene.places.product), "sold", 50)


@breach("stock in Redis is below zero", _1_cap_redis=1, _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(keys.stock(scene.places.product), "reserved", -1)


@breach("stock in Redis is no number", _1_cap_redis=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(keys.stock(scene.places.product), "reserved", "1.5")


@breach("the record sold more than there is", _1_cap_postgres=1, _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE products SET sellable = 3 WHERE id = $1", scene.places.product)


@breach("a unit sold is not counted in Redis", _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hincrby(keys.stock(scene.places.product), "sold", -1)


@breach("a unit released is still reserved in Redis", _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hincrby(keys.stock(scene.places.product), "reserved", 1)


@breach("a hold was released twice", _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hincrby(keys.stock(scene.places.product), "reserved", -1)


@breach("Redis lost a product", _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.delete(keys.stock(scene.places.product))


@breach("Redis sells a product that does not exist", _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(keys.stock(999), mapping={"sellable": 1, "reserved": 0, "sold": 0})


@breach("a hold of no order", _1_hold_has_order=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(keys.hold("GHOST"), "deadline_ms", 1)


@breach("a hold of a paid order", _1_hold_has_order=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(keys.hold(scene.places.paid), "deadline_ms", 1)


@breach("an order that waits has lost its hold", _1_order_has_hold=1)
async def _(scene: Scene) -> None:
    await scene.redis.delete(keys.hold(scene.places.pending))


@breach("a ticket of a paid order is gone", _2_paid_has_tickets=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("DELETE FROM entitlements WHERE ticket_code = $1", scene.places.untouched)
    await scene.pg.execute("DELETE FROM tickets WHERE code = $1", scene.places.untouched)
    await scene.redis.delete(scene.ticket_key(scene.places.untouched))


@breach("a paid order has a ticket for a unit that nobody bought", _2_paid_has_tickets=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE tickets SET unit = 9 WHERE code = $1", scene.places.untouched)


@breach("an order that is not paid has a ticket", _2_unpaid_has_none=1, _2_paid_has_tickets=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute(
        "UPDATE tickets SET order_id = $1, unit = 1 WHERE code = $2",
        scene.places.pending,
        scene.places.untouched,
    )


@breach("a ticket has a use more than was sold", _2_as_sold=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute(
        "UPDATE order_lines SET terms = jsonb_set(terms, '{functions,0,quantity}', '1') "
        "WHERE order_id = (SELECT order_id FROM order_lines JOIN tickets USING (order_id, position) "
        "                  WHERE qty = 1 AND product_name = 'Island day 海岛一日' "
        "                  GROUP BY order_id HAVING count(*) = 1 LIMIT 1) "
        "AND terms #> '{functions,0,code}' = '\"bus\"'"
    )


@breach("a ticket belongs to someone who did not buy it", _2_as_sold=3)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE orders SET buyer_id = 'demo:eve' WHERE id = $1", scene.places.paid)


@breach("a use went without a success", _3_uses=1)
async def _(scene: Scene) -> None:
    await set_use(scene, scene.places.untouched, "bus", 1, in_record=True, at_gate=True)


@breach("a success spent no use", _3_uses=1, _3_status=1)
async def _(scene: Scene) -> None:
    await set_use(scene, scene.places.used, "bus", 1, in_record=True, at_gate=True)


@breach("a ticket with uses left is REDEEMED", _3_status=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE tickets SET status = 'REDEEMED' WHERE code = $1", scene.places.untouched)


@breach("a ticket without uses is ACTIVE", _3_status=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE tickets SET status = 'ACTIVE' WHERE code = $1", scene.places.used)


@breach("a use came back at the gate", _3_remaining_equal=1)
async def _(scene: Scene) -> None:
    await set_use(scene, scene.places.used, "museum", 1, in_record=False, at_gate=True)


@breach("a use was lost at the gate", _3_remaining_equal=1)
async def _(scene: Scene) -> None:
    await set_use(scene, scene.places.untouched, "museum", 0, in_record=False, at_gate=True)


@breach("the gate cannot read what remains", _3_remaining_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(scene.ticket_key(scene.places.untouched), "r", ",bus,")


@breach("the gate lost a function", _3_remaining_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(scene.ticket_key(scene.places.untouched), "r", ",bus=2,")


@breach("the gate lost a ticket", _3_ticket_at_gate=1)
async def _(scene: Scene) -> None:
    await scene.redis.delete(scene.ticket_key(scene.places.untouched))


@breach("the gate has a ticket that was never issued", _3_ticket_in_record=1)
async def _(scene: Scene) -> None:
    forged = "0" * 16
    await scene.redis.copy(scene.ticket_key(scene.places.untouched), scene.ticket_key(forged))


@breach("a ticket has another owner at the gate", _3_ticket_facts=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(scene.ticket_key(scene.places.untouched), "o", "demo:eve")


@breach("a void ticket passes at the gate", _3_ticket_facts=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE tickets SET status = 'VOID' WHERE code = $1", scene.places.untouched)


@breach("a ticket's validity ends later at the gate", _3_ticket_facts=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE tickets SET valid_until = now() WHERE code = $1", scene.places.untouched)


@breach("the gate forgot that a QR was spent", _4_spent=1)
async def _(scene: Scene) -> None:
    name = scene.ticket_key(scene.places.used)
    spent = [field for field in await scene.redis.hkeys(name) if field.startswith("j:")]
    await scene.redis.hdel(name, spent[0])


@breach("a QR was spent at the gate that the record knows nothing of", _4_spent=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(
        scene.ticket_key(scene.places.untouched), "j:forged:bus", "1-1\tx\t\x1f\t,bus=1,\t1"
    )


@breach("the record says that another scan spent the QR, and the scan was told so", _4_spent=1, _4_told=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute(
        "UPDATE redemption_events SET scan_id = 'other' WHERE event_id IN "
        "(SELECT event_id FROM redemption_events WHERE ticket_code = $1 LIMIT 1)", scene.places.used
    )  # fmt: skip


@breach("a refusal that a scan was told is not in the record", _4_told=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("DELETE FROM redemption_events WHERE reason = 'ALREADY_REDEEMED'")


@breach("a scan was told something else than the record says", _4_told=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute(
        "UPDATE redemption_events SET remaining = ',bus=9,museum=9,' WHERE reason = 'ALREADY_REDEEMED'"
    )


@breach("what a scan was told cannot be read", _4_told=1)
async def _(scene: Scene) -> None:
    await scene.redis.set(keys.said(1, "any:scan:id"), "garbage", ex=60)


@breach("an unreadable token was given an event", _4_told=1)
async def _(scene: Scene) -> None:
    await scene.redis.set(keys.said(0, "s"), "1\t5-5\t\tbus\t\t\t\t1\t", ex=60)


@breach("the record is ahead of a stream", _4_cursor=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE stream_cursors SET last_id = '99999999999999-0' WHERE stream ~ 'orders'")


@breach("an order was passed over", _4_cursor=1)
async def _(scene: Scene) -> None:
    await pass_over(scene, keys.ORDERS_STREAM)


@breach("a verdict was passed over", _4_cursor=1)
async def _(scene: Scene) -> None:
    await pass_over(scene, keys.redemptions(keys.shard_of(scene.places.used, SHARDS)))


async def pass_over(scene: Scene, stream: str) -> None:
    last_id = await scene.parts.streams.last_id(stream)
    async with scene.redis.pipeline() as pipe:
        pipe.delete(stream)
        pipe.xadd(stream, {"d": "lost"}, id="1-1")
        pipe.execute_command("XSETID", stream, last_id)
        await pipe.execute()


@breach("one QR passed twice", _5_qr_once=1, _3_uses=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("DROP INDEX redemption_events_spent_once")
    await copy_event(scene, "success", scan_id="again")


@breach("one scan_id was judged twice", _5_scan_once=1)
async def _(scene: Scene) -> None:
    await copy_event(scene, "reject")


@breach("a column of money takes fractions", _6_integer=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("ALTER TABLE payments ALTER amount_fen TYPE numeric")


@breach("an order behind a hold has fractions of a fen", _6_integer=1)
async def _(scene: Scene) -> None:
    text = await scene.redis.hget(keys.hold(scene.places.pending), "order")
    assert text is not None
    order = msgspec.json.decode(text)
    order["lines"][0]["unit_price_fen"] = 5000.0
    await scene.redis.hset(keys.hold(scene.places.pending), "order", msgspec.json.encode(order).decode())


@breach("an order's total is not the sum of its lines", _6_total=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE orders SET total_fen = total_fen - 1 WHERE id = $1", scene.places.pending)


@breach("an order was paid by hand", _7_paid_by_settlement=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("DELETE FROM payments WHERE order_id = $1", scene.places.paid)


@breach("an order was paid with too little", _7_paid_by_settlement=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE payments SET amount_fen = 1 WHERE order_id = $1", scene.places.paid)


@breach("an order was paid twice", _7_paid_by_settlement=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("DROP INDEX payments_applied_once")
    await scene.pg.execute(
        "INSERT INTO payments SELECT gateway, 'again', order_id, status, amount_fen, currency, paid_at "
        "FROM payments WHERE order_id = $1", scene.places.paid
    )  # fmt: skip


@breach("a payment was applied to an order that is not paid", _7_unpaid_is_unsettled=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute(
        "UPDATE payments SET order_id = $1, status = 'APPLIED' WHERE status <> 'APPLIED'",
        scene.places.pending,
    )
    await scene.pg.execute("UPDATE orders SET status = 'CANCELLED' WHERE status = 'REFUND_REQUIRED'")


@breach("an order is to be refunded, and nobody paid", _7_unpaid_is_unsettled=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("DELETE FROM payments WHERE status = 'REFUND_REQUIRED'")


@pytest.mark.parametrize(
    ("what", "expected", "tamper"), BREACHES, ids=[re.sub(r"\W+", "-", what) for what, _, _ in BREACHES]
)
async def test_a_breach_is_found_by_its_rule_and_no_other(
    scene: Scene, what: str, expected: dict[str, int], tamper: Tamper
) -> None:
    await tamper(scene)
    found = await scene.check()

    assert {code: each.breaches for code, each in found.items() if each.breaches} == expected, found
    assert all(each.examples for each in found.values() if each.breaches)
    assert exit_code(list(found.values())) == 1


def test_every_rule_was_seen_broken() -> None:
    modules = (check_module, check_record, check_stock, check_tickets, check_verdicts)
    source = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules)
    named = set(re.findall(r'Tally\(\s*"([\w-]+)"', source))

    assert named - {rule for _, expected, _ in BREACHES for rule in expected} == {"caught-up", "dead-letters"}
