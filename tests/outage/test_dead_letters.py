"""What Postgres refuses is set aside with its reason, gives back what it held, and never stops a stream."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
from redis.asyncio import Redis

from server.hot import keys
from tests.conftest import Audit, eventually
from tests.road import Road

REDEMPTIONS = keys.redemptions(0)
NOW_MS = "1700000000000"


def event(**changes: str) -> str:
    """A redemption as the script writes it, of a ticket that does not exist unless a change names one."""
    parts = {
        "verdict": "0", "code": "0000000000000000", "function": "bus", "status": "ACTIVE", "remaining": ",bus=1,",
        "first": "", "decided_ms": NOW_MS, "jti": "00", "scan_id": "poison", "at_ms": NOW_MS, "operator": "gina",
        "place": "\x1f",
    } | changes  # fmt: skip
    return "\t".join(parts.values())


async def test_garbage_in_the_redemptions_goes_to_the_dead_letters_and_the_rest_is_written(
    road: Road, redis: Redis, pg: asyncpg.Connection[Any]
) -> None:
    (ticket,) = await road.buy({await road.product({"bus": 3}): 1})
    code = ticket["ticket_code"]
    await road.flushed()
    garbage: list[dict[str, str | bytes]] = [
        {"d": ""},
        {"d": "garbage"},
        {"other": "field"},
        {"d": event()},  # a ticket that the record does not have
        {"d": event(verdict="7")},  # the same, refused
        {"d": event(code=code, function="boat")},  # a function that the ticket does not have
        {"d": event(code=code, verdict="99")},
        {"d": event(code=code, verdict="zero")},
        {"d": event(code=code, at_ms="9" * 30)},  # past every calendar
        {"d": event(code=code, at_ms="9" * 5_000)},  # past what Python reads as a number
        {"d": event(code=code, decided_ms="-" + "9" * 17)},
        {"d": event(code=code, operator="a\0b")},  # PostgreSQL's text has no NUL
        {"d": event(code=code, verdict="7", operator="\x1f" * 3)},
        {"d": b"\xff\xfe\x00 not UTF-8"},
        {"d": event().encode() + b"\xff"},
        {b"\xff": "d"},
    ]
    before = await road.alerts("DEAD_LETTER")
    passed = [await road.scan(await road.qr(code), "bus")]
    async with redis.pipeline() as pipe:
        for fields in garbage:
            pipe.xadd(REDEMPTIONS, fields)  # type: ignore[arg-type]
        await pipe.execute()
    passed.append(await road.scan(await road.qr(code), "bus"))
    await road.flushed()

    letters = await pg.fetch("SELECT stream, reason, body FROM dead_letters ORDER BY entry_id")
    # "operator" of three separators is text like any other: only what cannot be written is refused.
    refused = len(garbage) - 1
    assert len(letters) == refused, [row["reason"] for row in letters]
    assert all(row["stream"] == REDEMPTIONS and row["reason"] for row in letters)
    assert await road.alerts("DEAD_LETTER") == before + refused
    written = {
        row[0] for row in await pg.fetch("SELECT event_id FROM redemption_events WHERE operator='gina'")
    }
    assert written == {answer.json["event_id"] for answer in passed}
    ready = await road.call("GET", "/readyz")
    assert (ready.status, ready.json["status"]) == (200, "degraded")
    assert ready.json["dead_letters"] == refused


async def test_garbage_in_the_orders_goes_to_the_dead_letters_and_the_rest_is_written(
    road: Road, redis: Redis, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    product = await road.product(sellable=10)
    terms = {"name": "Day", "functions": []}
    line = {"product_id": product, "qty": 1, "unit_price_fen": 1_000, "terms": terms}
    order = {
        "order_id": "01M80T9BEPCCG47P41J6YCR6TR", "buyer_id": "demo:bob", "idempotency_key": "k", "payload_hash": "h",
        "total_fen": 1_000, "created_at": "2026-05-01T00:00:00Z", "expires_at": "2026-05-01T00:15:00Z",
        "lines": [line],
    }  # fmt: skip
    garbage = [
        "",
        "{}",
        '{"a":' * 20_000,
        '{"lines":' + "[" * 100_000,
        json.dumps(order | {"lines": [line | {"product_id": 999_999}]}),
        json.dumps(order | {"lines": [line | {"product_id": 2**40}]}),
        json.dumps(order | {"lines": [line | {"qty": 0}]}),
        json.dumps(order | {"lines": [line | {"unit_price_fen": 99_999_999_999}]}),
        json.dumps(order | {"total_fen": -1}),
        json.dumps(order | {"buyer_id": "demo:\0"}),
        json.dumps(order | {"order_id": "\0"}),
        json.dumps(order | {"created_at": "0001-01-01T00:00:00+14:00"}),
        json.dumps(order | {"lines": [line, line | {"product_id": 999_999}]}),
    ]
    before = await road.alerts("DEAD_LETTER")
    async with redis.pipeline() as pipe:
        for body in garbage:
            pipe.xadd(keys.ORDERS_STREAM, {"d": body})
        await pipe.execute()
    made = await road.order({product: 2})
    await road.flushed()

    letters = await pg.fetch("SELECT reason FROM dead_letters WHERE stream = $1", keys.ORDERS_STREAM)
    assert len(letters) == len(garbage), [row["reason"] for row in letters]
    assert await road.alerts("DEAD_LETTER") == before + len(garbage)
    assert await pg.fetchval("SELECT count(*) FROM orders") == 1
    assert (await road.notify(made.json["order_id"], 2_000)).json["result"] == "PAID"
    await pg.execute("DELETE FROM dead_letters")
    await audit(road)


async def test_an_order_whose_key_redis_had_forgotten_is_released_and_the_old_one_stands(
    road: Road, redis: Redis, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    product = await road.product(sellable=10)
    old = (await road.order({product: 2}, idempotency_key="old")).json["order_id"]
    await road.flushed()
    assert await redis.delete(keys.idempotency("demo:ann", "old")) == 1
    new = (await road.order({product: 3}, idempotency_key="old")).json["order_id"]
    await road.flushed()

    assert new != old
    letter = await pg.fetchrow("SELECT stream, reason FROM dead_letters")
    assert letter is not None
    assert letter["stream"] == keys.ORDERS_STREAM and "orders_idempotency" in letter["reason"]
    level = (await road.parts.stock.levels([product]))[product]
    assert (level.reserved, level.sold) == (2, 0)
    shown = [await road.call("GET", f"/orders/{each}", headers=road.buyer()) for each in (old, new)]
    assert [answer.status for answer in shown] == [200, 404]
    assert (await road.notify(new, 3_000)).json["code"] == "ORDER_NOT_FOUND"
    assert (await road.notify(old, 2_000)).json["result"] == "PAID"
    await pg.execute("DELETE FROM dead_letters")
    await audit(road)


async def test_an_order_that_is_told_twice_keeps_its_units(
    road: Road, redis: Redis, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    """The second telling is refused; the order itself stands, so its hold must, too."""
    product = await road.product(sellable=10)
    parts = road.parts
    names = []
    read = parts.streams.read

    async def listen(stream: str, after: str, limit: int) -> Any:
        entries = await read(stream, after, limit)
        names.extend(entry.body for entry in entries if stream == keys.ORDERS_STREAM)
        return entries

    parts.streams.read = listen  # type: ignore[method-assign]
    order_id = (await road.order({product: 4})).json["order_id"]
    await road.flushed()
    await redis.xadd(keys.ORDERS_STREAM, {"d": names[0]})

    async def refused() -> bool:
        return bool(await pg.fetchval("SELECT count(*) FROM dead_letters"))

    await eventually(refused)
    await road.flushed()
    level = (await parts.stock.levels([product]))[product]
    assert (level.reserved, level.sold) == (4, 0)
    assert (await road.notify(order_id, 4_000)).json["result"] == "PAID"
    await pg.execute("DELETE FROM dead_letters")
    await audit(road)


async def test_a_key_that_redis_held_anew_leads_to_the_order_that_stands(road: Road, redis: Redis) -> None:
    product = await road.product(sellable=10)
    first = await road.order({product: 1}, idempotency_key="old")
    await road.flushed()
    await redis.delete(keys.idempotency("demo:ann", "old"))  # as after its day
    await road.order({product: 1}, idempotency_key="old")
    await road.flushed()  # the record refuses the second, and its units are free again

    again = await road.order({product: 1}, idempotency_key="old")
    other = await road.order({product: 2}, idempotency_key="old")

    assert again.raw == first.raw
    assert (other.status, other.json["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    assert (await road.parts.stock.levels([product]))[product].reserved == 1
