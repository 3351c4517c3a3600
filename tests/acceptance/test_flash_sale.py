"""A sale that more people want than there are units: nothing is sold twice, at no moment, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import ClientSession, TCPConnector

from tests.conftest import Audit
from tests.road import Answer, Road

CONNECTIONS = 200  # clients at the same moment; what more buyers send waits in the client


class Watch:
    """Looks at stock while a sale runs, on both sides; `most` is the largest number of units taken that it saw."""

    def __init__(self) -> None:
        self.looks = Counter[str]()
        self.most = Counter[int]()

    def see(self, side: str, product: int, sellable: int, reserved: int, sold: int) -> None:
        assert reserved >= 0 and sold >= 0 and reserved + sold <= sellable, (side, product, reserved, sold)
        self.looks[side] += 1
        self.most[product] = max(self.most[product], reserved + sold)


@asynccontextmanager
async def watched(road: Road, pg: asyncpg.Connection[Any], products: list[int]) -> AsyncIterator[Watch]:
    """Watch the invariant `reserved + sold <= sellable` in Redis and in Postgres for as long as the block runs."""
    watch = Watch()

    async def redis() -> None:
        while True:
            for product, level in (await road.parts.stock.levels(products)).items():
                watch.see("redis", product, level.sellable, level.reserved, level.sold)
            await asyncio.sleep(0.005)

    async def postgres() -> None:
        while True:
            for row in await pg.fetch("SELECT product_id, sellable, reserved, sold FROM stock"):
                watch.see("postgres", *row)
            await asyncio.sleep(0.02)

    watching = asyncio.gather(redis(), postgres())
    try:
        yield watch
        assert not watching.done(), watching.exception()
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def pay(road: Road, order_id: str, amount_fen: int) -> None:
    """The gateway tells of the payment until it is heard, as gateways do: in the rush a 503 is an answer, too."""
    while (told := await road.notify(order_id, amount_fen)).status == 503:
        assert "Retry-After" in told.headers
    assert (told.status, told.json["result"]) == (200, "PAID")


@pytest.fixture
async def crowd(road: Road) -> AsyncIterator[Road]:
    """The same server, reached over many connections at once."""
    async with ClientSession(base_url=road.url, connector=TCPConnector(limit=CONNECTIONS)) as session:
        yield Road(session, road.config, road.parts, road.backlog, url=road.url)


async def test_of_two_thousand_buyers_at_once_exactly_as_many_hold_a_unit_as_there_are(
    crowd: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    units, buyers = 500, 2_000
    product = await crowd.product(price_fen=100, sellable=units)

    async def buy(number: int) -> Answer:
        made = await crowd.order({product: 1}, buyer=f"buyer-{number}")
        if made.status == 201 and number % 10 == 0:  # some pay while others still try
            await pay(crowd, made.json["order_id"], 100)
        return made

    async with watched(crowd, pg, [product]) as watch:
        answers = await asyncio.gather(*(buy(number) for number in range(buyers)))

    assert Counter(answer.status for answer in answers) == {201: units, 422: buyers - units}
    refused = [answer.json for answer in answers if answer.status == 422]
    assert {(each["code"], each["product_id"], each["available"]) for each in refused} == {
        ("SOLD_OUT", product, 0)
    }
    held = [answer.json["order_id"] for answer in answers if answer.status == 201]
    assert len(set(held)) == units
    assert watch.most[product] == units
    assert min(watch.looks["redis"], watch.looks["postgres"]) >= 10
    await audit(crowd)
    paid = await pg.fetchval("SELECT count(*) FROM orders WHERE status = 'PAID'")
    level = (await crowd.parts.stock.levels([product]))[product]
    assert (level.reserved, level.sold) == (units - paid, paid)
    assert await pg.fetchval("SELECT count(*) FROM orders") == units
    assert await pg.fetchval("SELECT count(*) FROM tickets") == paid


async def test_units_that_change_hands_in_a_rush_are_never_over_the_cap_and_never_lost(
    crowd: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    """Orders, cancellations and payments of several products, all at once."""
    many, few = (
        await crowd.product(sellable=15, price_fen=100),
        await crowd.product(sellable=7, price_fen=100),
    )
    dice = random.Random(20_240_601)  # noqa: S311  (a seeded workload)
    plans = [[dice.random() for _ in range(6)] for _ in range(40)]

    async def buyer(name: str, plan: list[float]) -> None:
        for chance in plan:
            made = await crowd.order({many: 2, few: 1}, buyer=name)
            assert made.status in (201, 422), made
            if made.status == 422:
                continue
            order_id = made.json["order_id"]
            if chance < 0.1:
                await pay(crowd, order_id, 300)
            else:
                path = f"/orders/{order_id}/cancel"
                ended = await crowd.call("POST", path, headers=crowd.buyer(name))
                assert ended.json["status"] == "CANCELLED"

    async with watched(crowd, pg, [many, few]) as watch:
        await asyncio.gather(*(buyer(f"buyer-{n}", plan) for n, plan in enumerate(plans)))

    assert watch.most[few] >= 1
    await audit(crowd)
    paid = await pg.fetchval("SELECT count(*) FROM orders WHERE status = 'PAID'")
    levels = await crowd.parts.stock.levels([many, few])
    assert [(level.reserved, level.sold) for level in levels.values()] == [(0, 2 * paid), (0, paid)]
    assert await pg.fetchval("SELECT count(*) FROM tickets") == 3 * paid


async def test_an_order_over_several_products_holds_all_of_them_or_none(
    crowd: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    plenty, scarce = await crowd.product(sellable=100), await crowd.product(sellable=6)

    async with watched(crowd, pg, [plenty, scarce]):
        answers = await asyncio.gather(
            *(crowd.order({plenty: 1, scarce: 2}, buyer=uuid4().hex[:8]) for _ in range(30))
        )

    assert Counter(answer.status for answer in answers) == {201: 3, 422: 27}
    refusals = {(a.json["product_id"], a.json["available"]) for a in answers if a.status == 422}
    assert refusals == {(scarce, 0)}
    await audit(crowd)
    levels = await crowd.parts.stock.levels([plenty, scarce])
    assert [level.reserved for level in levels.values()] == [3, 6]


async def test_units_left_are_told_and_a_smaller_order_still_fits(road: Road) -> None:
    product = await road.product(sellable=3)
    refused = await road.order({product: 4})
    held = await road.order({product: 3})

    assert (refused.status, refused.json["code"], refused.json["available"]) == (422, "SOLD_OUT", 3)
    assert refused.json["product_id"] == product
    assert held.status == 201
    assert (await road.order({product: 1})).json["available"] == 0
