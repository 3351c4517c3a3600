"""Postgres killed while gates scan and buyers buy: clients repeat themselves, and all they were told is true."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from server.dev.embedded import EmbeddedPostgres
from server.hot import keys
from server.store.migrate import migrate_by_owner
from tests.conftest import Audit, Serve, database_named
from tests.road import PATIENCE_S, Answer, Road


@pytest.fixture
async def database_url(own_postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A fresh, migrated database on a Postgres that may be killed."""
    name = f"test_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(own_postgres.owner_url)
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    url = database_named(own_postgres.url, name)
    await migrate_by_owner(url, database_named(own_postgres.owner_url, name))
    yield url


async def insist(call: Callable[..., Awaitable[Answer]], *arguments: Any, **named: Any) -> Answer:
    """Repeat a call, with the same ids, until it is no 503: what every client of ours has to do."""
    async with asyncio.timeout(PATIENCE_S):
        while (answer := await call(*arguments, **named)).status == 503:
            assert "Retry-After" in answer.headers
            await asyncio.sleep(0.05)
    return answer


async def until(probe: Callable[[], bool]) -> None:
    """Wait until the probe is true, at most 20 s."""
    async with asyncio.timeout(PATIENCE_S):
        while not probe():
            await asyncio.sleep(0.02)


class Clients:
    """Gates and buyers that work until they are told to stop, and what they were told."""

    def __init__(self, roads: list[Road], product: int, codes: list[str]) -> None:
        self.product = product
        self.told: list[Answer] = []  # to gates
        self.ended: dict[str, str] = {}  # order id -> what its buyer was told last
        self.stop = asyncio.Event()
        self.working = asyncio.gather(
            *(self.gate(road, code) for road in roads for code in codes),
            *(self.buyer(road, f"buyer-{n}-{m}", m) for n, road in enumerate(roads) for m in range(3)),
        )

    async def gate(self, road: Road, code: str) -> None:
        """Show and scan."""
        while not self.stop.is_set():
            shown = await insist(road.call, "POST", f"/qr/{code}?image=none", headers=road.buyer())
            token = road.sealed(code) if shown.status == 429 else shown.json["qr_token"]
            self.told.append(await insist(road.scan, token, "bus", scan_id=uuid4().hex))

    async def buyer(self, road: Road, name: str, turn: int) -> None:
        """Order, then pay, cancel or let be, in turn."""
        while not self.stop.is_set():
            turn += 1
            key = f"{name}-{turn}"
            made = await insist(road.order, {self.product: 1}, buyer=name, idempotency_key=key)
            assert made.status == 201, made
            order_id = made.json["order_id"]
            assert self.ended.setdefault(order_id, "PENDING_PAYMENT") == "PENDING_PAYMENT"
            if turn % 3 == 0:
                paid = await insist(road.notify, order_id, 100)
                self.ended[order_id] = paid.json["result"]
            elif turn % 3 == 1:
                ended = await insist(
                    road.call, "POST", f"/orders/{order_id}/cancel", headers=road.buyer(name)
                )
                self.ended[order_id] = ended.json["status"]

    async def go_on(self) -> None:
        """Wait until more was scanned, and more was bought, than by now."""
        scans, orders = len(self.told) + 20, len(self.ended) + 8
        await until(lambda: len(self.told) > scans and len(self.ended) > orders)


async def test_killed_twice_amid_scans_orders_and_payments_nothing_told_is_lost_or_doubled(
    serve: Serve, own_postgres: EmbeddedPostgres, database_url: str, audit: Audit
) -> None:
    road, other = await serve(), await serve()
    package = await road.product({"bus": 1_000}, price_fen=0)
    codes = [(await road.buy({package: 1}))[0]["ticket_code"] for _ in range(3)]
    product = await road.product({"bus": 1}, price_fen=100, sellable=100_000)
    await other.parts.directory.refresh()
    await road.flushed()
    for each in (road, other):
        await each.gate()
    clients = Clients([road, other], product, codes)
    for _ in range(2):
        await clients.go_on()
        own_postgres.kill()
        scans = len(clients.told) + 20
        await until(lambda: len(clients.told) > scans)  # noqa: B023  (awaited at once)
        await asyncio.to_thread(own_postgres.start)
    await clients.go_on()
    clients.stop.set()
    await clients.working

    await audit(road)
    pg = await asyncpg.connect(database_url)
    recorded = dict(await pg.fetch("SELECT event_id, result FROM redemption_events"))
    assert recorded == {answer.json["event_id"]: answer.json["result"] for answer in clients.told}
    assert len(recorded) == len(clients.told)
    statuses = dict(await pg.fetch("SELECT id, status FROM orders WHERE total_fen > 0"))
    assert statuses == clients.ended
    paid = Counter(statuses.values())["PAID"]
    assert 0 < paid < len(statuses)
    assert await pg.fetchval("SELECT count(*) FROM payments WHERE amount_fen > 0") == paid
    assert await pg.fetchval("SELECT count(*) FROM tickets WHERE product_id = $1", product) == paid
    assert await pg.fetchval("SELECT count(*) FROM dead_letters") == 0
    await pg.close()


async def test_redis_emptied_while_postgres_is_away_stays_closed_until_it_can_be_loaded(
    serve: Serve, own_postgres: EmbeddedPostgres, redis: Any, audit: Audit
) -> None:
    road = await serve()
    (ticket,) = await road.buy({await road.product({"bus": 2}): 1})
    code = ticket["ticket_code"]
    assert (await road.scan(await road.qr(code), "bus")).json["remaining_uses"] == 1
    await road.flushed()
    qr = await road.qr(code)
    own_postgres.kill()
    # A ticket that Redis does not have cannot be judged without Postgres: no verdict is better than a wrong one.
    await redis.delete(keys.ticket(0, code))
    unknown = await road.scan(qr, "bus", scan_id="mine")
    assert (unknown.status, unknown.json["code"]) == (503, "POSTGRES_UNAVAILABLE")
    shown = await road.call("POST", f"/qr/{code}", headers=road.buyer())
    assert (shown.status, shown.json["code"]) == (503, "POSTGRES_UNAVAILABLE")

    await redis.flushall()
    for _ in range(3):
        closed = await road.scan(qr, "bus", scan_id="mine")
        assert (closed.status, closed.json["code"]) == (503, "GATE_CLOSED")
        await road.backlog.look()
    ready = await road.call("GET", "/readyz")
    assert (ready.status, ready.json["reasons"]) == (503, ["GATE_CLOSED", "POSTGRES_UNAVAILABLE"])
    await asyncio.to_thread(own_postgres.start)
    told = await insist(road.scan, qr, "bus", scan_id="mine")
    assert told.json["remaining_uses"] == 0
    await audit(road)
