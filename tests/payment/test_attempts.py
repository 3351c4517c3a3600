"""Attempts: an order has at most one number at WeChat that can be paid, and a good launch is handed out again."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import asyncpg
import pytest

from server.hot import keys, throttle
from server.hot.pace import steady
from server.limits import INQUIRIES_FREE
from tests.conftest import Audit, eventually
from tests.payment.conftest import AnotherServer, OpenShop, PostgresAway
from tests.payment.record import Postgres, Record, attempts, record
from tests.payment.shop import GONE, ON_A_PHONE, PAYS, WAYS, Shop, launch
from tests.road import Answer


def calls(shop: Shop, *numbers: str) -> list[tuple[str, str]]:
    """(call, number) of what WeChat was asked about these numbers, oldest first."""
    return [(call.name, call.number) for call in shop.wechat.received if call.number in numbers]


async def until_closed(shop: Shop, number: str, pg: Postgres, order_id: str) -> None:
    """Wait until the number is closed there, and known to be."""

    async def closed() -> bool:
        phases = {row["out_trade_no"]: row["phase"] for row in await attempts(pg, order_id)}
        return (shop.state(number), phases[number]) == ("CLOSED", "CLOSED")

    await eventually(closed)


async def test_the_same_channel_again_hands_out_the_same_launch_and_asks_nobody(
    shop: Shop, pg: Postgres
) -> None:
    product = await shop.road.product()
    for channel, way in WAYS.items():
        made = await shop.order(product, **way)
        order_id = made.json["order_id"]
        number = shop.number(order_id)
        asked = len(shop.wechat.received)

        again = [await shop.resume(order_id, **way) for _ in range(3)]

        assert {(each.status, each.json["channel"]) for each in again} == {(200, channel)}
        assert {launch(each) for each in again} == {launch(made)}
        assert len(shop.wechat.received) == asked
        assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["OPEN"], [], 0)
        assert shop.number(order_id) == number
        assert await shop.pay(again[-1]) in PAYS
        await shop.until_status(order_id, "PAID")


async def test_a_launch_that_is_nearly_over_is_had_anew_under_the_same_number(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    product = await shop.road.product()
    for way in WAYS.values():
        made = await shop.order(product, **way)
        order_id = made.json["order_id"]
        number = shop.number(order_id)
        sooner = (
            "UPDATE payment_attempts SET launch_expires_at = now() + $2 * interval '1 s' WHERE order_id = $1"
        )
        await pg.execute(sooner, order_id, 65)
        assert launch(await shop.resume(order_id, **way)) == launch(made), "time enough"
        await pg.execute(sooner, order_id, 59)

        fresh = await shop.resume(order_id, **way)

        assert (fresh.status, launch(fresh) != launch(made)) == (200, True)
        posted = [call.asked for call in shop.wechat.received if call.number == number]
        assert [posted[0]] * 2 == posted, "the same parameters, or WeChat would refuse them"
        (row,) = await attempts(pg, order_id)
        assert (row["out_trade_no"], row["phase"]) == (number, "OPEN")
        assert launch(await shop.resume(order_id, **way)) == launch(fresh)
        assert await shop.pay(fresh) in PAYS
        await shop.until_status(order_id, "PAID")
    assert shop.wechat.paid_twice() == {}
    await audit(shop.road)


async def test_a_switch_closes_the_old_number_at_wechat_and_takes_a_new_one(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    product = await shop.road.product()
    for first, second in itertools.permutations(WAYS, 2):
        made = await shop.order(product, **WAYS[first])
        order_id = made.json["order_id"]
        old = shop.number(order_id)

        switched = await shop.resume(order_id, **WAYS[second])

        assert (switched.status, switched.json["channel"]) == (200, second), (first, switched)
        new = shop.number(order_id)
        assert (shop.state(old), shop.state(new)) == ("CLOSED", "NOTPAY")
        names = [name for name, _ in calls(shop, old, new)]
        assert (names[1], calls(shop, old, new)[1][1], len(names)) == ("close", old, 3), "closed before"
        assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["CLOSED", "OPEN"], [], 0)
        assert await shop.pay(made) == GONE
        assert await shop.pay(switched) in PAYS
        await shop.until_status(order_id, "PAID")
    await audit(shop.road)


async def test_a_buyer_who_switches_all_the_time_is_told_to_wait_and_the_order_stays_payable(
    shop: Shop, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By resuming, or by asking for the same order once more. What can be launched already is asked of nobody."""
    monkeypatch.setattr(throttle, "_INQUIRED", steady(INQUIRIES_FREE, 30))
    product, (one, other, *_) = await shop.road.product(), WAYS.values()
    made = await shop.order(product, key="again", **one)
    order_id = made.json["order_id"]
    for _ in range(2 * INQUIRIES_FREE):
        assert launch(await shop.resume(order_id, **one)) == launch(made)
    for number in range(INQUIRIES_FREE - 1):
        way = (other, one)[number % 2]
        again = shop.order(product, key="again", **way) if number % 3 else shop.resume(order_id, **way)
        made = await again
        assert made.status in (200, 201), made

    for beyond in (await shop.resume(order_id, **one), await shop.order(product, key="again", **other)):
        if beyond.status != 429:
            assert launch(beyond) == launch(made), "the way it is prepared for"
            continue
        assert (beyond.json["code"], beyond.json["order_id"]) == ("TOO_MANY_REQUESTS", order_id)

    prepared = [call.name for call in shop.wechat.received if call.name in ("jsapi", "native", "h5")]
    assert len(prepared) == INQUIRIES_FREE
    await shop.road.parts.redis.delete(keys.inquired(order_id))
    assert await shop.pay(await shop.resume(order_id, **one)) in PAYS
    await shop.until_status(order_id, "PAID")
    await audit(shop.road)


async def test_a_page_of_h5_is_for_the_address_that_asked_for_it(open_shop: OpenShop, pg: Postgres) -> None:
    shop = await open_shop(client_ip_header="X-Real-IP")

    async def resume(ip: str) -> Answer:
        headers = {**await shop.headers("wang", ON_A_PHONE), "X-Real-IP": ip}
        return await shop.road.call("POST", f"/orders/{order_id}/pay", headers=headers)

    made = await shop.order(await shop.road.product(), agent=ON_A_PHONE)
    order_id = made.json["order_id"]
    at_home = await resume("203.0.113.7")
    number = shop.number(order_id)
    assert launch(await resume("203.0.113.7")) == launch(at_home)
    on_the_way = await resume("2001:db8::7")

    assert shop.number(order_id) != number
    asked = [call.asked for call in shop.wechat.received if call.name == "h5"]
    assert [each["scene_info"]["payer_client_ip"] for each in asked] == [
        "127.0.0.1", "203.0.113.7", "2001:db8::7",
    ]  # fmt: skip
    assert await shop.pay(at_home) == GONE
    assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["CLOSED", "CLOSED", "OPEN"], [], 0)
    assert await shop.pay(on_the_way) in PAYS


async def test_of_twenty_launches_asked_for_at_once_on_two_servers_the_last_one_can_be_paid(
    shop: Shop, another_server: AnotherServer, pg: Postgres, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "_INQUIRED", steady(1_000, 1))
    made = await shop.order(await shop.road.product())
    order_id = made.json["order_id"]
    second = await another_server(shop)
    live: list[int] = []

    async def watch() -> None:
        while True:
            living = "SELECT count(*) FROM payment_attempts WHERE phase IN ('PREPARING', 'OPEN', 'CLOSING')"
            live.append(await pg.fetchval(living))
            await asyncio.sleep(0.002)

    watching = asyncio.create_task(watch())
    told = await asyncio.gather(
        *((shop, second)[turn % 2].resume(order_id, **way) for turn, way in enumerate([*WAYS.values()] * 5))
    )
    last = await second.resume(order_id, **WAYS["WECHAT_JSAPI"])
    watching.cancel()

    codes = {(each.status, each.json.get("code")) for each in told}
    assert codes <= {(200, None), (409, "PAYMENT_SUPERSEDED"), (503, "GATEWAY_UNAVAILABLE")}, codes
    assert max(live) == 1
    assert (last.status, last.json["channel"]) == (200, "WECHAT_JSAPI"), last
    # One number may have been prepared twice: each of its launches pays the same number.
    same = next(
        seen.launches
        for seen in shop.wechat.orders().values()
        if any(each in launch(last) for each in seen.launches)
    )
    offers = [each for each in (made, *told) if each.status in (200, 201)]
    offers = [each for each in offers if not any(one in launch(each) for one in same)]
    assert {await shop.pay(each) for each in offers} <= {GONE}
    assert await shop.pay(last) in PAYS
    await shop.until_status(order_id, "PAID")
    phases = (await record(pg, order_id)).attempts
    assert (phases[-1], set(phases[:-1])) == ("PAID", {"CLOSED"})
    await audit(shop.road)


@pytest.mark.parametrize("end", ["CANCELLED", "EXPIRED", "paid elsewhere"])
async def test_what_could_still_be_paid_of_an_order_that_ends_is_closed_within_seconds(
    end: str, shop: Shop, pg: Postgres, audit: Audit
) -> None:
    made = await shop.order(await shop.road.product())
    order_id = made.json["order_id"]
    number = shop.number(order_id)

    if end == "CANCELLED":
        assert (await shop.cancel(order_id)).status == 200
    elif end == "EXPIRED":
        await pg.execute("UPDATE orders SET expires_at = now() WHERE id = $1", order_id)
    else:
        assert (await shop.road.notify(order_id, 1000)).json["result"] == "PAID"
    await until_closed(shop, number, pg, order_id)

    assert await shop.pay(made) == GONE
    await shop.until_status(order_id, end if end != "paid elsewhere" else "PAID")
    assert shop.wechat.orders()[number].transaction_id == ""
    await audit(shop.road)


async def test_whoever_chooses_the_hosted_gateway_can_pay_at_wechat_no_more(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    made = await shop.order(await shop.road.product())
    order_id = made.json["order_id"]

    hosted = await shop.resume(order_id, gateway="hosted")

    assert (hosted.status, hosted.json["channel"]) == (200, "HOSTED"), hosted
    assert await shop.pay(made) == GONE
    assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["CLOSED"], [], 0)
    back = await shop.resume(order_id)
    assert (back.json["channel"], await shop.pay(back)) == ("WECHAT_NATIVE", PAYS[0]), back
    await shop.until_status(order_id, "PAID")
    await audit(shop.road)


async def test_an_order_repeated_after_it_was_paid_is_answered_without_a_way_to_pay(
    shop: Shop, audit: Audit
) -> None:
    product = await shop.road.product()
    made = await shop.order(product, key="once")
    again = await shop.order(product, key="once")
    assert (again.status, launch(again)) == (201, launch(made))
    assert await shop.pay(made) in PAYS
    await shop.until_status(made.json["order_id"], "PAID")
    asked = len(shop.wechat.received)

    after = await shop.order(product, key="once")

    told: dict[str, Any] = {**made.json, "status": "PAID", "channel": None, "payPayload": None}
    assert (after.status, after.json) == (201, told)
    assert len(shop.wechat.received) == asked
    await audit(shop.road)


async def test_with_wechat_away_the_order_is_held_and_paid_later(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    product = await shop.road.product()
    await shop.headers("wang")
    for _ in range(3):
        shop.wechat.fail_next("native", "dropped")

    made = await shop.order(product, key="held")

    assert (made.status, made.json["code"]) == (503, "GATEWAY_UNAVAILABLE"), made
    order_id = made.json["order_id"]
    assert made.headers["Retry-After"]
    assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["PREPARING"], [], 0)
    (product_now,) = (await shop.road.call("GET", "/catalog")).json["products"]
    assert product_now["available"] == 99
    again = await shop.order(product, key="held")
    assert (again.status, again.json["order_id"]) == (201, order_id)
    assert await shop.pay(again) in PAYS
    await shop.until_status(order_id, "PAID")
    assert len(await attempts(pg, order_id)) == 1
    await audit(shop.road)


async def test_with_postgres_away_the_order_is_held_and_paid_later(
    shop: Shop, postgres_away: PostgresAway, database_url: str, audit: Audit
) -> None:
    product = await shop.road.product()
    await shop.headers("wang")
    async with postgres_away():
        made = await shop.order(product)
        assert (made.status, made.json["code"]) == (503, "POSTGRES_UNAVAILABLE"), made
        order_id = made.json["order_id"]
        resumed = await shop.resume(order_id)
        assert (resumed.status, resumed.json["code"]) == (503, "POSTGRES_UNAVAILABLE"), resumed
        assert shop.wechat.orders() == {}, "nothing is asked of WeChat that is not written first"

    async def paid() -> bool:
        offer = await shop.resume(order_id)
        return offer.status == 200 and await shop.pay(offer) in PAYS

    await eventually(paid)
    await shop.until_status(order_id, "PAID")
    again = await asyncpg.connect(database_url)
    assert await record(again, order_id) == Record("PAID", ["PAID"], ["APPLIED"], 1)
    await again.close()
    await audit(shop.road)
