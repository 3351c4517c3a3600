"""Redis answers, and takes no writes: full, or read-only. Nobody is told a verdict, and /readyz says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from server.dev.embedded import EmbeddedValkey
from tests.conftest import Audit, Serve, eventually
from tests.road import Road

Do = Callable[[Redis], Awaitable[Any]]


async def fill(redis: Redis) -> None:
    await redis.config_set("maxmemory", "1mb")


async def make_room(redis: Redis) -> None:
    await redis.config_set("maxmemory", "0")


async def demote(redis: Redis) -> None:
    await redis.replicaof("127.0.0.1", "1")  # type: ignore[no-untyped-call]


async def promote(redis: Redis) -> None:
    await redis.replicaof("NO", "ONE")  # type: ignore[no-untyped-call]


async def said(road: Road) -> tuple[int, list[str]]:
    """What /readyz says."""
    await road.backlog.look()
    ready = await road.call("GET", "/readyz")
    return ready.status, ready.json["reasons"]


@pytest.mark.parametrize(("begin", "end"), [(fill, make_room), (demote, promote)])
async def test_undecided_while_it_takes_no_writes_and_decided_once_when_it_does(
    serve: Serve, own_valkey: EmbeddedValkey, audit: Audit, begin: Do, end: Do
) -> None:
    road = await serve(redis_url=own_valkey.url)
    product = await road.product({"bus": 1}, price_fen=0)
    (ticket,) = await road.buy({product: 1})
    token = await road.qr(ticket["ticket_code"])
    assert await said(road) == (200, [])

    async with Redis.from_url(own_valkey.url) as redis:
        await begin(redis)
        scan = await road.scan(token, "bus", scan_id="mine")
        order = await road.order({product: 1}, idempotency_key="mine")
        unfit = await said(road)
        await end(redis)

    assert [(each.status, each.json["code"]) for each in (scan, order)] == [(503, "REDIS_UNAVAILABLE")] * 2
    assert unfit == (503, ["REDIS_UNAVAILABLE"])

    async def fit() -> bool:
        return (await said(road))[0] == 200

    await eventually(fit)
    assert (await road.scan(token, "bus", scan_id="mine")).json["remaining_uses"] == 0
    assert (await road.order({product: 1}, idempotency_key="mine")).status == 201
    await audit(road)
