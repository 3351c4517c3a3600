"""A number counts as closed when WeChat says that it is, and by nothing less; until then it is asked about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from server.dev.wechat_book import TradeState
from server.dev.wechat_faults import Faults
from server.domain.errors import ErrorCode, Refusal
from server.flows import wechat_news
from server.jobs import loops
from server.store import attempts as stored
from tests.conftest import Audit
from tests.payment.conftest import OpenShop
from tests.payment.record import Postgres, Record, attempts, record
from tests.payment.shop import GONE, IN_WECHAT, PAYS, WAYS, Shop
from tests.road import Answer

PAID_ONCE = Record("PAID", ["PAID"], ["APPLIED"], 1)


@pytest.fixture(autouse=True)
def _closed_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job that closes numbers keeps out of it; a test calls it, and need not wait between two tries."""
    monkeypatch.setattr(loops, "CLOSE_POLL_S", 60.0)
    monkeypatch.setattr(wechat_news, "CLOSE_RETRY_S", 0.0)


@pytest.fixture
async def quiet(open_shop: OpenShop) -> Shop:
    """A shop that WeChat never notifies, with no other gateway: what is known is known by asking."""
    return await open_shop(faults=Faults(notify_lost=1.0), gateway_url="", gateway_secrets=())


@contextmanager
def lagging(shop: Shop, number: str) -> Iterator[None]:
    """While it lasts, the host that we ask has not heard of this number yet, which another one has made."""
    orders = shop.wechat._book.orders
    unheard_of = orders.pop(number)
    yield
    orders[number] = unheard_of


async def offered(shop: Shop) -> tuple[Answer, str, str]:
    """An order to be paid by a code: offer, order id, number at WeChat."""
    made = await shop.order(await shop.road.product())
    assert made.status == 201, made
    order_id = made.json["order_id"]
    return made, order_id, shop.number(order_id)


async def close_ended(shop: Shop) -> str:
    """One round of the job that closes numbers: what it says of it."""
    try:
        return str(await shop.road.parts.jobs_paying.provider.close_ended())
    except Refusal as refusal:
        return refusal.code.name


# --- 202 USER_PAYING ------------------------------------------------------------------------------------------------


async def test_while_the_buyer_types_the_password_no_second_number_is_taken(
    quiet: Shop, pg: Postgres, audit: Audit
) -> None:
    made, order_id, number = await offered(quiet)
    quiet.wechat.fail_next("close", "user_paying")

    switched = await quiet.resume(order_id, agent=IN_WECHAT)

    assert (switched.status, switched.json["code"]) == (503, "GATEWAY_UNAVAILABLE"), switched
    assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["CLOSING"], [], 0)
    assert (list(quiet.wechat.orders()), quiet.state(number)) == ([number], "NOTPAY")
    assert await quiet.pay(made) in PAYS, "the password was right"
    assert (await quiet.query(order_id)).json["status"] == "PAID"
    assert await record(pg, order_id) == PAID_ONCE
    await audit(quiet.road)


async def test_a_buyer_who_gives_up_at_the_password_pays_by_another_channel(
    quiet: Shop, pg: Postgres, audit: Audit
) -> None:
    made, order_id, _ = await offered(quiet)
    quiet.wechat.fail_next("close", "user_paying")
    assert (await quiet.resume(order_id, agent=IN_WECHAT)).status == 503

    again = await quiet.resume(order_id, agent=IN_WECHAT)

    assert (again.status, again.json["channel"]) == (200, "WECHAT_JSAPI"), again
    assert await quiet.pay(made) == GONE
    assert await quiet.pay(again) in PAYS
    assert (await quiet.query(order_id)).json["status"] == "PAID"
    assert await record(pg, order_id) == Record("PAID", ["CLOSED", "PAID"], ["APPLIED"], 1)
    await audit(quiet.road)


async def test_money_of_a_password_typed_while_the_order_was_cancelled_is_to_be_refunded(
    quiet: Shop, pg: Postgres, audit: Audit
) -> None:
    made, order_id, number = await offered(quiet)
    assert (await quiet.cancel(order_id)).json["status"] == "CANCELLED"
    before = await quiet.road.alerts("REFUND_REQUIRED")
    for _ in range(2):
        quiet.wechat.fail_next("close", "user_paying")
        assert await close_ended(quiet) == "GATEWAY_UNAVAILABLE"
        assert await record(pg, order_id) == Record("CANCELLED", ["CLOSING"], [], 0)
    assert await quiet.pay(made) in PAYS, "and nobody tells us"

    assert await close_ended(quiet) == "1"

    assert await record(pg, order_id) == Record("REFUND_REQUIRED", ["PAID"], ["REFUND_REQUIRED"], 0)
    assert await quiet.road.alerts("REFUND_REQUIRED") == before + 1
    assert (await close_ended(quiet), quiet.state(number)) == ("0", "SUCCESS")
    await audit(quiet.road)


# --- 404 ORDER_NOT_EXIST --------------------------------------------------------------------------------------------


async def test_a_number_that_the_buyer_can_launch_is_not_closed_because_one_host_has_not_heard_of_it(
    quiet: Shop, pg: Postgres, audit: Audit
) -> None:
    made, order_id, number = await offered(quiet)
    with lagging(quiet, number):
        switched = await quiet.resume(order_id, agent=IN_WECHAT)
        assert quiet.wechat.orders() == {}, "no second number"

    assert (switched.status, switched.json["code"]) == (503, "GATEWAY_UNAVAILABLE"), switched
    assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["CLOSING"], [], 0)
    assert await quiet.pay(made) in PAYS
    again = await quiet.resume(order_id, agent=IN_WECHAT)
    assert (again.status, again.json["code"], again.json["status"]) == (409, "ORDER_NOT_PAYABLE", "PAID")
    assert await record(pg, order_id) == PAID_ONCE
    await audit(quiet.road)


async def test_a_number_of_an_ended_order_is_closed_once_its_host_has_heard_of_it(
    quiet: Shop, pg: Postgres, audit: Audit
) -> None:
    made, order_id, number = await offered(quiet)
    assert (await quiet.cancel(order_id)).json["status"] == "CANCELLED"
    with lagging(quiet, number):
        assert await close_ended(quiet) == "GATEWAY_UNAVAILABLE"
    assert (await record(pg, order_id)).attempts == ["CLOSING"]

    assert await close_ended(quiet) == "1"

    assert (await record(pg, order_id)).attempts == ["CLOSED"]
    assert (quiet.state(number), await quiet.pay(made)) == ("CLOSED", GONE)
    await audit(quiet.road)


async def test_a_number_of_an_order_of_this_morning_is_tried_again_as_soon_as_any_other(
    quiet: Shop, pg: Postgres
) -> None:
    _, order_id, number = await offered(quiet)
    assert (await quiet.cancel(order_id)).json["status"] == "CANCELLED"
    await pg.execute("UPDATE payment_attempts SET created_at = now() - interval '23 hours'")
    quiet.wechat.fail_next("close", "user_paying")
    assert await close_ended(quiet) == "GATEWAY_UNAVAILABLE"

    assert await close_ended(quiet) == "1"

    assert quiet.state(number) == "CLOSED"


# --- what is closed meanwhile, without the order's lock --------------------------------------------------------------


async def test_a_number_that_was_closed_while_it_was_looked_at_is_not_handed_out_for_another_channel(
    quiet: Shop, pg: Postgres, monkeypatch: pytest.MonkeyPatch, audit: Audit
) -> None:
    _, order_id, number = await offered(quiet)
    quiet.wechat._book.orders[number].state = TradeState.CLOSED  # by someone at the merchant's console
    real = stored.begin_closing

    async def begin_closing(*asked: Any) -> Any:
        monkeypatch.setattr(stored, "begin_closing", real)
        assert (await quiet.query(order_id)).status == 200  # learns and notes it, between the two statements
        assert (await record(pg, order_id)).attempts == ["CLOSED"]
        return await real(*asked)

    monkeypatch.setattr(stored, "begin_closing", begin_closing)
    resumed = await quiet.resume(order_id, **WAYS["MINIPROGRAM_BRIDGE"])

    assert (resumed.status, resumed.json["channel"]) == (200, "MINIPROGRAM_BRIDGE"), resumed
    assert resumed.json["payPayload"].keys() >= {"package", "paySign"}
    assert "codeUrl" not in resumed.json["payPayload"], "no QR code in a Mini Program"
    assert [(row["channel"], row["phase"]) for row in await attempts(pg, order_id)] == [
        ("WECHAT_NATIVE", "CLOSED"),
        ("MINIPROGRAM_BRIDGE", "OPEN"),
    ]
    assert await quiet.pay(resumed) in PAYS
    assert (await quiet.query(order_id)).json["status"] == "PAID"
    await audit(quiet.road)


async def test_a_number_that_was_closed_while_it_was_prepared_is_not_opened_again(
    shop: Shop, pg: Postgres, monkeypatch: pytest.MonkeyPatch, audit: Audit
) -> None:
    made = await shop.order(await shop.road.product(), gateway="hosted")
    order_id = made.json["order_id"]
    real = stored.opened
    hosted: list[Answer] = []

    async def opened(*asked: Any) -> bool:
        hosted.append(await shop.resume(order_id, gateway="hosted"))  # in another page, at this very moment
        return await real(*asked)

    monkeypatch.setattr(stored, "opened", opened)
    resumed = await shop.resume(order_id)

    assert (resumed.status, resumed.json["code"]) == (409, ErrorCode.PAYMENT_SUPERSEDED.name), resumed
    assert [(each.status, each.json["channel"]) for each in hosted] == [(200, "HOSTED")]
    assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["CLOSED"], [], 0)
    assert shop.state(shop.number(order_id)) == "CLOSED"
    await audit(shop.road)
