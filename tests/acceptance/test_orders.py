"""Orders: made once per key, held until they are paid, cancelled or over, and then given back once."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from server.domain.catalog import ProductStatus
from server.domain.ids import new_order_id
from tests.conftest import Audit, Serve, eventually
from tests.road import Answer, Road


async def reserved_and_sold(road: Road, product: int) -> tuple[int, int]:
    """Units of the product in Redis."""
    level = (await road.parts.stock.levels([product]))[product]
    return level.reserved, level.sold


async def status(road: Road, order_id: str, buyer: str = "ann") -> str:
    """The order as its buyer sees it."""
    shown = await road.call("GET", f"/orders/{order_id}", headers=road.buyer(buyer))
    assert shown.status == 200, shown
    state: str = shown.json["status"]
    return state


async def cancel(road: Road, order_id: str, buyer: str = "ann") -> Answer:
    """The buyer cancels."""
    return await road.call("POST", f"/orders/{order_id}/cancel", headers=road.buyer(buyer))


# --- one order per key --------------------------------------------------------------------------------------


async def test_one_key_sent_many_times_at_once_makes_one_order_and_is_answered_equally(
    serve: Serve, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    one, other = await serve(), await serve()
    product, more = await one.product(), await one.product()
    await other.parts.directory.refresh()
    # The same order in other words: the lines' order does not matter, nor whether they are split.
    wordings: list[list[tuple[int, int]]] = [
        [(product, 2), (more, 1)],
        [(more, 1), (product, 2)],
        [(product, 1), (more, 1), (product, 1)],
    ]

    async def send(number: int) -> Answer:
        items = [{"product_id": each, "qty": qty} for each, qty in wordings[number % 3]]
        headers = one.buyer() | {"Idempotency-Key": "only"}
        return await (one, other)[number % 2].call("POST", "/orders", headers=headers, json={"items": items})

    answers = await asyncio.gather(*(send(number) for number in range(50)))

    assert {answer.status for answer in answers} == {201}
    assert {answer.raw for answer in answers} == {answers[0].raw}
    await audit(one)
    assert await reserved_and_sold(one, product) == (2, 0)
    assert await pg.fetchval("SELECT count(*) FROM orders") == 1
    # Once it is recorded, it is read from the record, and still is the same answer.
    assert (await send(0)).raw == answers[0].raw


async def test_a_key_used_for_another_order_is_a_conflict_and_holds_nothing(road: Road) -> None:
    product = await road.product()
    made = await road.order({product: 1}, idempotency_key="mine")
    other = await road.order({product: 2}, idempotency_key="mine")
    bobs = await road.order({product: 2}, buyer="bob", idempotency_key="mine")

    assert (other.status, other.json["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    assert (made.status, bobs.status) == (201, 201)  # a key is its buyer's own
    assert await reserved_and_sold(road, product) == (3, 0)


async def test_an_order_needs_a_key(road: Road) -> None:
    product = await road.product()
    body = {"items": [{"product_id": product, "qty": 1}]}
    without = await road.call("POST", "/orders", headers=road.buyer(), json=body)

    assert (without.status, without.json["code"]) == (400, "IDEMPOTENCY_KEY_REQUIRED")
    for key in ("", "k" * 65, "a b", "schlüssel"):
        refused = await road.call(
            "POST", "/orders", headers=road.buyer() | {"Idempotency-Key": key}, json=body
        )
        assert (refused.status, refused.json["code"]) == (400, "IDEMPOTENCY_KEY_INVALID"), key
    assert await reserved_and_sold(road, product) == (0, 0)


async def test_a_retry_finds_its_order_after_the_sale_has_ended_and_a_new_order_does_not(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    product = await road.product(sku="ends", price_fen=900)
    made = await road.order({product: 1}, idempotency_key="in-time")
    await pg.execute(
        "UPDATE products SET sale_end_at = now() - interval '1 s', price_fen = 5000 WHERE id = $1", product
    )
    await road.parts.directory.refresh()
    late = await road.order({product: 1}, idempotency_key="too-late")

    assert (late.status, late.json["code"], late.json["product_id"]) == (422, "PRODUCT_INACTIVE", product)
    assert (await road.order({product: 1}, idempotency_key="in-time")).raw == made.raw
    assert await reserved_and_sold(road, product) == (1, 0)


async def test_only_active_products_inside_their_sale_window_are_sold(road: Road) -> None:
    now, hour = datetime.now(UTC), timedelta(hours=1)
    good = await road.product()
    shut = [
        await road.product(status=ProductStatus.INACTIVE),
        await road.product(sale_start_at=now + hour),
        await road.product(sale_end_at=now - hour),
    ]
    for product in shut:
        refused = await road.order({good: 1, product: 1})
        told = (refused.status, refused.json["code"], refused.json["product_id"])
        assert told == (422, "PRODUCT_INACTIVE", product)
    unknown = await road.order({good: 1, 999_999: 1})
    assert (unknown.status, unknown.json["code"], unknown.json["product_id"]) == (
        404,
        "PRODUCT_NOT_FOUND",
        999_999,
    )
    assert await reserved_and_sold(road, good) == (0, 0)
    open_now = await road.product(sale_start_at=now - hour, sale_end_at=now + hour)
    assert (await road.order({open_now: 1})).status == 201


# --- the end of an order ------------------------------------------------------------------------------------


async def test_an_unpaid_order_expires_once_and_its_units_are_sold_to_others(
    serve: Serve, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    road, other = await serve(hold_s=1), await serve(hold_s=1)  # two processes expire at once
    product = await road.product(sellable=3)
    held = [(await road.order({product: 1})).json["order_id"] for _ in range(3)]
    assert (await road.order({product: 3})).json["code"] == "SOLD_OUT"

    async def free() -> bool:
        return await reserved_and_sold(road, product) == (0, 0)

    await eventually(free)
    assert [await status(road, order_id) for order_id in held] == ["EXPIRED"] * 3
    refused = [await road.call("POST", f"/orders/{each}/pay", headers=road.buyer()) for each in held]
    assert {(each.status, each.json["code"]) for each in refused} == {(409, "ORDER_NOT_PAYABLE")}
    assert (await cancel(road, held[0])).json["code"] == "ORDER_NOT_CANCELLABLE"
    last = (await other.order({product: 3})).json
    assert await reserved_and_sold(road, product) == (3, 0)
    assert (await road.notify(last["order_id"], last["total_fen"])).json["result"] == "PAID"
    await audit(road)
    assert await reserved_and_sold(road, product) == (0, 3)
    states = await pg.fetch("SELECT status FROM orders")
    assert Counter(row["status"] for row in states) == {"EXPIRED": 3, "PAID": 1}


async def test_cancelling_gives_the_units_back_once_however_often_it_is_asked(
    road: Road, audit: Audit
) -> None:
    product = await road.product(sellable=10)
    order_id = (await road.order({product: 4})).json["order_id"]
    await road.order({product: 5})
    answers = await asyncio.gather(*(cancel(road, order_id) for _ in range(20)))

    assert {answer.status for answer in answers} == {200}
    assert {answer.raw for answer in answers} == {answers[0].raw}
    assert answers[0].json["status"] == "CANCELLED"
    await audit(road)
    assert await reserved_and_sold(road, product) == (5, 0)
    resumed = await road.call("POST", f"/orders/{order_id}/pay", headers=road.buyer())
    assert (resumed.status, resumed.json["status"]) == (409, "CANCELLED")


async def test_a_retry_after_the_order_has_ended_is_shown_how_it_stands(road: Road) -> None:
    product = await road.product()
    made = await road.order({product: 1}, idempotency_key="mine")
    await cancel(road, made.json["order_id"])
    again = await road.order({product: 1}, idempotency_key="mine")

    assert (again.json["order_id"], again.json["status"]) == (made.json["order_id"], "CANCELLED")
    assert (again.json["channel"], again.json["payPayload"]) == (None, None)


async def test_a_paid_order_cannot_be_cancelled_and_keeps_its_tickets(road: Road, audit: Audit) -> None:
    product = await road.product()
    (ticket,) = await road.buy({product: 1})
    refused = await cancel(road, ticket["order_id"])

    assert (refused.status, refused.json["code"], refused.json["status"]) == (
        409,
        "ORDER_NOT_CANCELLABLE",
        "PAID",
    )
    await audit(road)
    assert await reserved_and_sold(road, product) == (0, 1)


async def test_cancelling_and_paying_at_once_end_in_one_of_the_two(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    product = await road.product(price_fen=100, sellable=20)
    made = [(await road.order({product: 1})).json["order_id"] for _ in range(20)]
    acts = [act for order_id in made for act in (cancel(road, order_id), road.notify(order_id, 100))]
    answers = await asyncio.gather(*acts)

    for order_id, cancelled, paid in zip(made, answers[::2], answers[1::2], strict=True):
        told = (cancelled.status, paid.json["result"], await status(road, order_id))
        assert told in {(409, "PAID", "PAID"), (200, "REFUND_REQUIRED", "REFUND_REQUIRED")}
    await audit(road)
    paid_orders = await pg.fetchval("SELECT count(*) FROM orders WHERE status = 'PAID'")
    assert await pg.fetchval("SELECT count(*) FROM tickets") == paid_orders
    assert await reserved_and_sold(road, product) == (0, paid_orders)


async def test_an_order_of_someone_else_is_not_there(road: Road) -> None:
    product = await road.product()
    order_id = (await road.order({product: 1})).json["order_id"]
    await road.flushed()
    for method, path in (("GET", ""), ("POST", "/pay"), ("POST", "/query"), ("POST", "/cancel")):
        for name in (order_id, new_order_id()):
            answer = await road.call(method, f"/orders/{name}{path}", headers=road.buyer("bob"))
            assert (answer.status, answer.json["code"]) == (404, "ORDER_NOT_FOUND"), (method, path)
    assert await status(road, order_id) == "PENDING_PAYMENT"


# --- nothing to pay -----------------------------------------------------------------------------------------


async def test_a_free_order_is_issued_at_once_and_only_once(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    product = await road.product({"bus": 2}, price_fen=0, sellable=5)
    answers = await asyncio.gather(*(road.order({product: 2}, idempotency_key="gift") for _ in range(20)))

    assert {answer.raw for answer in answers} == {answers[0].raw}
    told = answers[0].json
    assert (told["status"], told["total_fen"], told["channel"], told["payPayload"]) == ("PAID", 0, "FREE", {})
    owned = (await road.call("GET", "/my/tickets", headers=road.buyer())).json["tickets"]
    assert [ticket["order_id"] for ticket in owned] == [told["order_id"]] * 2
    passed = await road.scan(await road.qr(owned[0]["ticket_code"]), "bus")
    assert passed.json["result"] == "success"
    await audit(road)
    assert await reserved_and_sold(road, product) == (0, 2)
    assert await pg.fetchval("SELECT count(*) FROM payments") == 1
    assert (await road.order({product: 4})).json["code"] == "SOLD_OUT"


# --- reading one's own write --------------------------------------------------------------------------------


async def test_an_order_is_shown_before_it_is_recorded(serve: Serve, pg: asyncpg.Connection[Any]) -> None:
    road = await serve(jobs=False)
    product = await road.jobs_by_hand(road.product())
    made = (await road.order({product: 2}, idempotency_key="mine")).json
    shown = await road.call("GET", f"/orders/{made['order_id']}", headers=road.buyer())

    assert await pg.fetchval("SELECT count(*) FROM orders") == 0
    assert shown.json["status"] == "PENDING_PAYMENT"
    assert shown.json["items"] == [
        {"product_id": product, "name": "Island day 海岛一日", "qty": 2, "unit_price_fen": 1000}
    ]
    assert (await road.order({product: 2}, idempotency_key="mine")).json == made
    bobs = await road.call("GET", f"/orders/{made['order_id']}", headers=road.buyer("bob"))
    assert bobs.json["code"] == "ORDER_NOT_FOUND"
    resumed = await road.call("POST", f"/orders/{made['order_id']}/pay", headers=road.buyer())
    assert resumed.json == made
    await road.parts.flusher.drain(road.parts.stream_names)
    recorded = await road.call("GET", f"/orders/{made['order_id']}", headers=road.buyer())
    assert recorded.raw == shown.raw
