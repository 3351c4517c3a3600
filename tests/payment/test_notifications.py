"""What WeChat Pay tells of payments ends as it must: once, for the right order, and never silently dropped."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import asyncpg
import pytest

from server.dev.wechat_faults import Faults
from server.jobs.reconcile import reconcile
from server.limits import NOTIFY_ANSWER_S_MAX, SIMULATED_ANSWER_S_MAX
from server.web import wechat
from tests.conftest import Audit, eventually
from tests.payment.conftest import AnotherServer, OpenShop, PostgresAway
from tests.payment.record import Postgres, Record, record
from tests.payment.shop import BRIDGE, IN_MINIPROGRAM, IN_WECHAT, Shop
from tests.road import Answer

LOST = Faults(notify_lost=1.0)
PAID_ONCE = Record("PAID", ["PAID"], ["APPLIED"], 1)


async def until(pg: Postgres, order_id: str, wanted: Record) -> None:
    """Wait until the record is so; says what it is otherwise."""
    try:
        await eventually(lambda: _is(pg, order_id, wanted))
    except TimeoutError:
        assert await record(pg, order_id) == wanted


async def _is(pg: Postgres, order_id: str, wanted: Record) -> bool:
    return await record(pg, order_id) == wanted


async def free(shop: Shop, product: int) -> int:
    """Units that can still be bought, once the outbox is empty."""
    await shop.road.flushed()
    products = (await shop.road.call("GET", "/catalog")).json["products"]
    return next(each["available"] for each in products if each["id"] == product)


async def made(shop: Shop, **options: Any) -> tuple[int, Answer, str, str]:
    """An order to be paid by a code: product, offer, order id, number at WeChat."""
    product = await shop.road.product()
    offer = await shop.order(product, **options)
    assert offer.status == 201, offer
    order_id = offer.json["order_id"]
    return product, offer, order_id, shop.number(order_id)


async def test_a_success_for_an_old_attempt_told_after_a_switch_pays_the_order(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    _, _, order_id, old = await made(shop)
    switched = await shop.resume(order_id, agent=IN_WECHAT)
    assert (switched.status, switched.json["channel"]) == (200, "WECHAT_JSAPI"), switched
    assert [shop.wechat.orders()[number].state.name for number in (old, shop.number(order_id))] == [
        "CLOSED",
        "NOTPAY",
    ]

    told = await shop.wechat.notify(old)

    assert (told.status, "PAID" in told.body) == (200, True), told
    await until(pg, order_id, Record("PAID", ["PAID", "CLOSED"], ["APPLIED"], 1))
    assert shop.wechat.orders()[shop.number(order_id)].state.name == "CLOSED"
    assert "ok" not in await shop.pay(switched), "the new one can be paid no more"
    await audit(shop.road)


async def test_an_order_paid_by_two_attempts_is_paid_by_the_first_and_the_second_is_to_be_refunded(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    product, _, order_id, old = await made(shop)
    switched = await shop.resume(order_id, agent=IN_MINIPROGRAM, context=BRIDGE)
    before = await shop.road.alerts("REFUND_REQUIRED")
    assert "ok" in await shop.pay(switched)
    await until(pg, order_id, Record("PAID", ["CLOSED", "PAID"], ["APPLIED"], 1))

    told = [await shop.wechat.notify(old, transaction_id="4200000000202601010000000001") for _ in range(3)]

    assert {(each.status, "REFUND_REQUIRED" in each.body) for each in told} == {(200, True)}
    assert await record(pg, order_id) == Record("PAID", ["PAID", "PAID"], ["APPLIED", "REFUND_REQUIRED"], 1)
    assert await shop.road.alerts("REFUND_REQUIRED") == before + 1, "people are told once"
    assert await free(shop, product) == 99
    await audit(shop.road)


@pytest.mark.parametrize("end", ["EXPIRED", "CANCELLED"])
async def test_a_success_for_an_order_that_had_ended_is_to_be_refunded_and_its_units_stay_free(
    end: str, open_shop: OpenShop, pg: Postgres, audit: Audit
) -> None:
    shop = await open_shop(faults=LOST)
    product, offer, order_id, number = await made(shop)
    assert "ok" in await shop.pay(offer), "in the last moment, and nobody tells us"
    before = await shop.road.alerts("REFUND_REQUIRED")
    shop.wechat.fail_next("close", "hang")  # what comes of the number is learnt by the notification alone
    if end == "EXPIRED":
        longer_than_closing_may_take = (
            "UPDATE orders SET expires_at = now() - interval '5 minutes' WHERE id = $1"
        )
        await pg.execute(longer_than_closing_may_take, order_id)
    else:
        assert (await shop.cancel(order_id)).json["status"] == "CANCELLED"

    async def ended() -> bool:
        return await shop.status(order_id) == end

    await eventually(ended)
    assert await free(shop, product) == 100
    told = [await shop.wechat.notify(number) for _ in range(2)]

    assert [each.status for each in told] == [200, 200]
    assert "REFUND_REQUIRED" in told[0].body
    assert told[0].body == told[1].body
    assert await record(pg, order_id) == Record("REFUND_REQUIRED", ["PAID"], ["REFUND_REQUIRED"], 0)
    assert await shop.road.alerts("REFUND_REQUIRED") == before + 1
    assert await free(shop, product) == 100
    await audit(shop.road)


async def test_a_payment_of_the_last_moment_of_which_nobody_told_us_buys_the_ticket(
    open_shop: OpenShop, pg: Postgres, audit: Audit
) -> None:
    shop = await open_shop(faults=LOST)
    product, offer, order_id, _ = await made(shop)
    _, _, unpaid_id, _ = await made(shop)
    assert "ok" in await shop.pay(offer)
    await pg.execute("UPDATE orders SET expires_at = now()")

    await shop.until_status(order_id, "PAID")
    await shop.until_status(unpaid_id, "EXPIRED")
    assert await record(pg, order_id) == Record("PAID", ["PAID"], ["APPLIED"], 1)
    assert await free(shop, product) == 99
    await audit(shop.road)


AMOUNT = ("AMOUNT_MISMATCH", "PAYMENT_AMOUNT_MISMATCH")
PAYEE = ("PAYEE_MISMATCH", "PAYMENT_PAYEE_MISMATCH")
MISMATCHES: dict[str, tuple[dict[str, Any], str, str]] = {
    "a fen less": ({"amount": {"total": 999}}, *AMOUNT),
    "a fen more": ({"amount": {"total": 1001}}, *AMOUNT),
    "another currency": ({"amount": {"currency": "HKD"}}, *AMOUNT),
    "another merchant": ({"mchid": "1900000109"}, *PAYEE),
    "an app of a stranger": ({"appid": "wx0000000000000000"}, *PAYEE),
}


async def test_what_contradicts_the_order_is_taken_with_an_alert_and_pays_nothing(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    _, offer, order_id, number = await made(shop)
    # Paid by a code of the official account's, and told by the Mini Program's.
    ours: dict[str, Any] = {"appid": shop.wechat.keys.miniprogram_appid}
    for case, (changes, result, name) in {**MISMATCHES, "our other app": (ours, *PAYEE)}.items():
        before = await shop.road.alerts(name)

        told = await shop.wechat.notify(number, **changes)

        assert (case, told.status, result in told.body) == (case, 200, True), told
        assert (case, await shop.road.alerts(name)) == (case, before + 1)
        assert (case, await record(pg, order_id)) == (case, Record("PENDING_PAYMENT", ["OPEN"], [], 0))
    assert "ok" in await shop.pay(offer), "it stays payable"
    await until(pg, order_id, PAID_ONCE)
    await audit(shop.road)


async def test_an_unknown_number_is_taken_with_an_alert_since_telling_it_again_would_not_help(
    shop: Shop, pg: Postgres
) -> None:
    _, _, order_id, number = await made(shop)
    before = await shop.road.alerts("PAYMENT_FOR_UNKNOWN_ORDER")

    told = await shop.wechat.notify(number, out_trade_no=f"{number[:-1]}_")

    assert (told.status, "NOTHING_TO_SETTLE" in told.body) == (200, True), told
    assert await shop.road.alerts("PAYMENT_FOR_UNKNOWN_ORDER") == before + 1
    assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["OPEN"], [], 0)
    assert await pg.fetchval("SELECT count(*) FROM payments") == 0


async def test_a_transaction_that_paid_one_order_pays_no_other(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    _, offer, first, number = await made(shop)
    _, _, second, other = await made(shop)
    await shop.pay(offer)
    await until(pg, first, PAID_ONCE)
    before = await shop.road.alerts("PAYMENT_TRANSACTION_CONFLICT")

    told = await shop.wechat.notify(other, transaction_id=shop.wechat.orders()[number].transaction_id)

    assert (told.status, "TRANSACTION_CONFLICT" in told.body) == (200, True), told
    assert await shop.road.alerts("PAYMENT_TRANSACTION_CONFLICT") == before + 1
    assert await record(pg, first) == PAID_ONCE
    assert await record(pg, second) == Record("PENDING_PAYMENT", ["OPEN"], [], 0)
    await audit(shop.road)


async def test_notifications_that_come_twice_and_in_any_order_settle_each_order_once(
    open_shop: OpenShop, pg: Postgres, audit: Audit
) -> None:
    shop = await open_shop(faults=LOST)
    orders = []
    for _ in range(6):
        _, offer, order_id, number = await made(shop)
        assert "ok" in await shop.pay(offer)
        orders.append((order_id, number))
    deliveries = [number for _, number in orders] * 4
    random.Random(3).shuffle(deliveries)  # noqa: S311

    one_by_one = [await shop.wechat.notify(number) for number in deliveries[:12]]
    at_once = await asyncio.gather(*(shop.wechat.notify(number) for number in deliveries[12:]))

    assert {(each.status, each.body) for each in [*one_by_one, *at_once]} == {(200, one_by_one[0].body)}
    assert [await record(pg, order_id) for order_id, _ in orders] == [PAID_ONCE] * 6
    await audit(shop.road)


async def test_fifty_notifications_at_once_on_two_servers_amid_queries_settle_once(
    open_shop: OpenShop, another_server: AnotherServer, pg: Postgres, audit: Audit
) -> None:
    shop = await open_shop(faults=LOST, gateway_url="")
    product, offer, order_id, number = await made(shop)
    assert "ok" in await shop.pay(offer)
    second = await another_server(shop)
    addresses = [f"{each.road.url}payments/wechat/notify" for each in (shop, second)]

    told, asked = await asyncio.gather(
        asyncio.gather(*(shop.wechat.notify(number, url=addresses[turn % 2]) for turn in range(50))),
        asyncio.gather(*((shop, second)[turn % 2].query(order_id) for turn in range(8))),  # none too often
    )

    assert {(each.status, "PAID" in each.body) for each in told} == {(200, True)}
    assert {(each.status, each.json["status"]) for each in asked} == {(200, "PAID")}
    assert await record(pg, order_id) == PAID_ONCE
    assert await free(shop, product) == 99
    await audit(shop.road)


async def test_while_postgres_is_away_wechat_is_told_to_come_again_and_then_it_is_settled(
    open_shop: OpenShop, postgres_away: PostgresAway, pg: Postgres, database_url: str, audit: Audit
) -> None:
    shop = await open_shop(time_scale=0.02)  # again after 0.3 s, 0.3 s, 0.6 s, 3.6 s
    _, offer, order_id, _ = await made(shop)
    async with postgres_away():
        assert "ok" in await shop.pay(offer)

        async def refused_twice() -> bool:
            return len(shop.wechat.deliveries) >= 2

        await eventually(refused_twice)
        assert {each.status for each in shop.wechat.deliveries} == {503}
    again = await asyncpg.connect(database_url)  # the test's own connection was cut too
    try:
        await until(again, order_id, PAID_ONCE)
    finally:
        await again.close()
    assert shop.wechat.deliveries[-1].status == 200
    await audit(shop.road)


async def test_while_postgres_hangs_the_answer_comes_before_wechat_gives_up(
    shop: Shop, pg: Postgres, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert NOTIFY_ANSWER_S_MAX < SIMULATED_ANSWER_S_MAX
    monkeypatch.setattr(wechat, "NOTIFY_ANSWER_S_MAX", 1.0)
    _, _, order_id, number = await made(shop)
    async with pg.transaction():
        await pg.fetchval("SELECT id FROM orders WHERE id = $1 FOR UPDATE", order_id)
        told = await shop.wechat.notify(number, transaction_id="4200000000202601010000000001")

        assert told.status == 503, told
    again = await shop.wechat.notify(number, transaction_id="4200000000202601010000000001")
    assert again.status == 200
    assert await record(pg, order_id) == PAID_ONCE
    await audit(shop.road)


@pytest.mark.parametrize("who", ["the buyer", "the job"])
async def test_a_payment_of_which_nobody_tells_is_found_by_asking(
    who: str, open_shop: OpenShop, pg: Postgres, audit: Audit
) -> None:
    shop = await open_shop(faults=LOST)
    _, offer, order_id, _ = await made(shop)
    assert "ok" in await shop.pay(offer)

    if who == "the buyer":
        answer = await shop.query(order_id)
        assert (answer.status, answer.json["status"]) == (200, "PAID")
    else:
        await shop.road.flushed()
        await pg.execute("UPDATE orders SET created_at = created_at - interval '61 s'")
        parts = shop.road.parts
        assert await reconcile(parts.bulk_database, parts.provider, parts.settlement) == 1

    assert await record(pg, order_id) == PAID_ONCE
    await audit(shop.road)
