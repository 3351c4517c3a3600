"""Calls that WeChat refuses or does not answer: nobody pays twice, and the order can be paid all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from server.dev.wechat_book import TradeState
from server.dev.wechat_faults import Faults
from server.dev.wechat_rules import Refusal
from server.jobs import loops
from server.wechat import sending
from tests.conftest import Audit
from tests.payment.conftest import OpenShop
from tests.payment.record import Postgres, Record, attempts, record
from tests.payment.shop import GONE, IN_MINIPROGRAM, IN_WECHAT, PAYS, WAYS, Shop, launch

LOST = Faults(notify_lost=1.0)
# What was done and not told, or not credibly -> how often one call is sent: what may be a lie is not sent again.
UNANSWERED = {"hang": 3, "fail_after": 3, "bad_signature": 1, "unsigned": 1, "stale": 1, "unknown_serial": 1}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that hangs is given up after a second instead of 5, and the job that closes numbers keeps out of it."""
    monkeypatch.setattr(sending, "GATEWAY_CALL_S_MAX", 1.0)
    monkeypatch.setattr(loops, "CLOSE_POLL_S", 60.0)


@contextmanager
def refusing(shop: Shop, code: str, status: int) -> Iterator[None]:
    """While it lasts, WeChat refuses every prepay with this code."""
    book = shop.wechat._book
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book, "create", lambda *_: Refusal(status, code, "no"))
        yield


def fail(shop: Shop, call: str, fault: str, times: int = 3) -> None:
    """The next sendings meet this fault: three are all that there are of one call."""
    for _ in range(times):
        shop.wechat.fail_next(call, fault)


# --- closing the old number, when the channel is switched -----------------------------------------------------------


async def test_a_close_that_was_done_and_not_answered_is_found_out_by_asking(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    product = await shop.road.product()
    for fault, times in UNANSWERED.items():
        made = await shop.order(product)
        order_id = made.json["order_id"]
        old = shop.number(order_id)
        fail(shop, "close", fault, times)

        switched = await shop.resume(order_id, agent=IN_WECHAT)

        assert (switched.status, switched.json["channel"]) == (200, "WECHAT_JSAPI"), (fault, switched)
        assert [call.name for call in shop.wechat.received if call.number == old][-1] == "query"
        assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["CLOSED", "OPEN"], [], 0)
        assert await shop.pay(made) == GONE
        assert await shop.pay(switched) in PAYS
        await shop.until_status(order_id, "PAID")
    await audit(shop.road)


async def test_while_the_old_number_cannot_be_closed_no_new_one_is_taken(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    product = await shop.road.product()
    for fault in ("dropped", "fail_before", "limited"):
        made = await shop.order(product)
        order_id = made.json["order_id"]
        old = shop.number(order_id)
        fail(shop, "close", fault)

        refused = await shop.resume(order_id, agent=IN_WECHAT)

        assert (refused.status, refused.json["code"]) == (503, "GATEWAY_UNAVAILABLE"), (fault, refused)
        assert refused.json["order_id"] == order_id
        assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["CLOSING"], [], 0)
        assert shop.number(order_id) == old, "no second number that could be paid as well"
        switched = await shop.resume(order_id, agent=IN_WECHAT)
        assert (switched.status, shop.state(old)) == (200, "CLOSED"), (fault, switched)
        assert await shop.pay(switched) in PAYS
        await shop.until_status(order_id, "PAID")
    await audit(shop.road)


async def test_an_old_number_paid_while_it_was_being_closed_pays_the_order(
    open_shop: OpenShop, pg: Postgres, audit: Audit
) -> None:
    shop = await open_shop(faults=LOST)
    made = await shop.order(await shop.road.product())
    order_id = made.json["order_id"]
    fail(shop, "close", "fail_before")
    assert (await shop.resume(order_id, agent=IN_WECHAT)).status == 503
    assert await shop.pay(made) in PAYS, "the dialog was still open"

    again = await shop.resume(order_id, agent=IN_WECHAT)

    assert (again.status, again.json["code"], again.json["status"]) == (409, "ORDER_NOT_PAYABLE", "PAID")
    assert await record(pg, order_id) == Record("PAID", ["PAID"], ["APPLIED"], 1)
    assert len(shop.wechat.orders()) == 1
    await audit(shop.road)


@pytest.mark.parametrize("wanted", ["WECHAT_JSAPI", "HOSTED"])
async def test_a_switch_of_what_turns_out_to_be_paid_settles_it_and_offers_nothing_more(
    wanted: str, open_shop: OpenShop, pg: Postgres, audit: Audit
) -> None:
    shop = await open_shop(faults=LOST)
    made = await shop.order(await shop.road.product())
    order_id = made.json["order_id"]
    assert await shop.pay(made) in PAYS, "and nobody tells us"

    if wanted == "HOSTED":
        switched = await shop.resume(order_id, gateway="hosted")
    else:
        switched = await shop.resume(order_id, agent=IN_WECHAT)

    assert (switched.status, switched.json["code"]) == (409, "ORDER_NOT_PAYABLE"), switched
    assert await record(pg, order_id) == Record("PAID", ["PAID"], ["APPLIED"], 1)
    assert len(shop.wechat.orders()) == 1
    await audit(shop.road)


async def test_the_same_order_repeated_when_it_turns_out_to_be_paid_is_answered_as_paid(
    open_shop: OpenShop, audit: Audit
) -> None:
    shop = await open_shop(faults=LOST)
    product = await shop.road.product()
    made = await shop.order(product, key="once")
    assert await shop.pay(made) in PAYS

    again = await shop.order(product, key="once", agent=IN_WECHAT)

    assert (again.status, again.json["status"], again.json["channel"]) == (201, "PAID", None), again
    await audit(shop.road)


# --- preparing ------------------------------------------------------------------------------------------------------


async def test_a_prepay_that_was_done_and_not_answered_is_posted_again_under_its_number(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    product = await shop.road.product()
    await shop.headers("wang")
    for fault, times in UNANSWERED.items():
        fail(shop, "native", fault, times)

        made = await shop.order(product, key=fault)

        assert (made.status, made.json["code"]) == (503, "GATEWAY_UNAVAILABLE"), (fault, made)
        order_id = made.json["order_id"]
        assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["PREPARING"], [], 0)
        again = await shop.order(product, key=fault)
        assert (again.status, again.json["order_id"]) == (201, order_id), (fault, again)
        number = shop.number(order_id)
        asked = [call.asked for call in shop.wechat.received if call.number == number]
        assert [asked[0]] * (times + 1) == asked
        assert await shop.pay(again) in PAYS
        await shop.until_status(order_id, "PAID")
        assert await record(pg, order_id) == Record("PAID", ["PAID"], ["APPLIED"], 1)
    await audit(shop.road)


async def test_a_clear_no_is_told_to_staff_and_once_it_is_mended_a_new_number_is_taken(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    product = await shop.road.product()
    await shop.headers("wang")
    for code, status in (("NO_AUTH", 403), ("APPID_MCHID_NOT_MATCH", 400), ("PARAMERROR", 400)):
        before = await shop.road.alerts("PAYMENT_REJECTED")
        with refusing(shop, code, status):
            made = await shop.order(product)

        assert (made.status, made.json["code"]) == (502, "PAYMENT_REJECTED"), (code, made)
        order_id = made.json["order_id"]
        assert await shop.road.alerts("PAYMENT_REJECTED") == before + 1
        assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["CLOSED"], [], 0)
        mended = await shop.resume(order_id)
        assert mended.status == 200, (code, mended)
        refused, taken = await attempts(pg, order_id)
        assert (refused["phase"], taken["phase"]) == ("CLOSED", "OPEN")
        assert refused["out_trade_no"] not in shop.wechat.orders()
        assert await shop.pay(mended) in PAYS
        await shop.until_status(order_id, "PAID")
    await audit(shop.road)


async def test_an_openid_that_wechat_does_not_take_asks_for_a_login_and_is_no_alert(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    product = await shop.road.product()
    await shop.headers("wang")
    before = await shop.road.alerts("PAYMENT_REJECTED")
    with refusing(shop, "OPENID_MISMATCH", 500):
        made = await shop.order(product, **WAYS["MINIPROGRAM_BRIDGE"])

    assert (made.status, made.json["code"]) == (409, "WECHAT_OPENID_REQUIRED"), made
    assert await shop.road.alerts("PAYMENT_REJECTED") == before
    again = await shop.resume(made.json["order_id"], **WAYS["MINIPROGRAM_BRIDGE"])
    assert await shop.pay(again) in PAYS
    await shop.until_status(made.json["order_id"], "PAID")
    await audit(shop.road)


async def test_a_number_that_is_spent_is_replaced_and_the_buyer_sees_nothing_of_it(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    made = await shop.order(await shop.road.product())
    order_id = made.json["order_id"]
    old = shop.number(order_id)
    shop.wechat._book.orders[old].state = TradeState.CLOSED  # by someone at the merchant's console
    await pg.execute("UPDATE payment_attempts SET launch_expires_at = now()")

    again = await shop.resume(order_id)

    assert (again.status, launch(again) != launch(made)) == (200, True), again
    assert shop.number(order_id) != old
    assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["CLOSED", "OPEN"], [], 0)
    assert await shop.pay(again) in PAYS
    await shop.until_status(order_id, "PAID")
    await audit(shop.road)


async def test_a_number_used_by_something_else_is_left_and_another_one_taken(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    made = await shop.order(await shop.road.product())
    order_id = made.json["order_id"]
    old = shop.number(order_id)
    shop.wechat._book.orders[old].asked["description"] = "another thing"
    await pg.execute("UPDATE payment_attempts SET launch_expires_at = now()")

    again = await shop.resume(order_id)

    assert (again.status, shop.number(order_id) != old) == (200, True), again
    assert shop.state(old) == "CLOSED"
    assert await shop.pay(again) in PAYS
    await shop.until_status(order_id, "PAID")
    await audit(shop.road)


async def test_a_prepay_refused_because_it_is_paid_settles_it_and_alarms_nobody(
    open_shop: OpenShop, pg: Postgres, audit: Audit
) -> None:
    shop = await open_shop(faults=LOST)
    made = await shop.order(await shop.road.product(), **WAYS["MINIPROGRAM_BRIDGE"])
    order_id = made.json["order_id"]
    assert await shop.pay(made) in PAYS
    await pg.execute("UPDATE payment_attempts SET launch_expires_at = now()")
    before = await shop.road.alerts("PAYMENT_REJECTED")

    again = await shop.resume(order_id, **WAYS["MINIPROGRAM_BRIDGE"])

    assert (again.status, again.json["code"], again.json["status"]) == (409, "ORDER_NOT_PAYABLE", "PAID")
    assert await shop.road.alerts("PAYMENT_REJECTED") == before
    assert await record(pg, order_id) == Record("PAID", ["PAID"], ["APPLIED"], 1)
    await audit(shop.road)


async def test_a_number_that_was_paid_and_given_back_at_the_console_is_told_to_people(
    open_shop: OpenShop, pg: Postgres, audit: Audit
) -> None:
    shop = await open_shop(faults=LOST)
    made = await shop.order(
        await shop.road.product(), agent=IN_MINIPROGRAM, context=WAYS["MINIPROGRAM_BRIDGE"]["context"]
    )
    order_id = made.json["order_id"]
    assert await shop.pay(made) in PAYS
    assert shop.wechat._book.refund(shop.number(order_id))
    before = await shop.road.alerts("REFUND_REQUIRED")

    switched = await shop.resume(order_id)

    assert switched.status == 200, "it waits for payment still"
    assert await shop.road.alerts("REFUND_REQUIRED") == before + 1
    number = next(iter(shop.wechat.orders()))
    assert (await shop.wechat.notify(number, trade_state="SUCCESS")).status == 200, (
        "told late, before the refund"
    )
    assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["PAID", "OPEN"], ["REFUND_REQUIRED"], 0)
    await audit(shop.road)
