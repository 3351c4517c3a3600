"""Staff are told, once, of what only people mend: wrong keys, money given back, payments that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from server.dev.wechat_faults import Faults
from server.dev.wechat_rules import Refusal as Refused
from server.flows import settle, wechat_news
from server.jobs import loops
from server.wechat.client import WeChatClient
from tests.conftest import Audit
from tests.payment.conftest import OpenShop
from tests.payment.record import Postgres, Record, record
from tests.payment.shop import PAYS, Shop
from tests.road import Answer

NO_AUTH = Refused(403, "NO_AUTH", "商户无权限")


@pytest.fixture(autouse=True)
def _closed_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job that closes numbers keeps out of it; a test calls it, and need not wait between two tries."""
    monkeypatch.setattr(loops, "CLOSE_POLL_S", 60.0)
    monkeypatch.setattr(wechat_news, "CLOSE_RETRY_S", 0.0)


@pytest.fixture
async def quiet(open_shop: OpenShop) -> Shop:
    """A shop that WeChat never notifies, with no other gateway: what is known is known by asking."""
    return await open_shop(faults=Faults(notify_lost=1.0), gateway_url="", gateway_secrets=())


async def bought(shop: Shop) -> tuple[Answer, str, str]:
    """An order paid by a code, of which nobody tells us: offer, order id, number at WeChat."""
    made = await shop.order(await shop.road.product())
    assert await shop.pay(made) in PAYS
    order_id = made.json["order_id"]
    return made, order_id, shop.number(order_id)


# --- wrong keys, and what a merchant may not do -----------------------------------------------------------------------


@contextmanager
def another_key(shop: Shop) -> Iterator[None]:
    """While it lasts, we sign with a key that is not the certificate's: 401 SIGN_ERROR to everything."""
    assert shop.road.parts.paying.wechat is not None
    signer = shop.road.parts.paying.wechat.pay._signer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signer, "_key", rsa.generate_private_key(65537, 2048))
        yield


@contextmanager
def no_product(shop: Shop) -> Iterator[None]:
    """While it lasts, the merchant may do nothing at all: 403 NO_AUTH to everything."""
    with pytest.MonkeyPatch.context() as patch:
        for call in ("create", "query", "close"):
            patch.setattr(shop.wechat._book, call, lambda *_: NO_AUTH)
        yield


@pytest.mark.parametrize("wrong", [another_key, no_product])
async def test_what_wechat_refuses_whatever_is_asked_is_told_to_staff_and_mended_by_them(
    wrong: Any, shop: Shop, pg: Postgres, audit: Audit
) -> None:
    fault: AbstractContextManager[None] = wrong(shop)
    product = await shop.road.product()
    await shop.headers("wang")
    rejected, refused = [
        await shop.road.alerts(name) for name in ("PAYMENT_REJECTED", "WECHAT_CALL_REJECTED")
    ]
    with fault:
        made = await shop.order(product)

    assert (made.status, made.json["code"]) == (502, "PAYMENT_REJECTED"), made
    order_id = made.json["order_id"]
    assert await shop.road.alerts("PAYMENT_REJECTED") == rejected + 1
    assert await shop.road.alerts("WECHAT_CALL_REJECTED") == refused + 1, "nor could it be asked or closed"
    assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["CLOSING"], [], 0)
    mended = await shop.resume(order_id)
    assert mended.status == 200, mended
    assert await shop.pay(mended) in PAYS
    await shop.until_status(order_id, "PAID")
    assert await record(pg, order_id) == Record("PAID", ["CLOSED", "PAID"], ["APPLIED"], 1)
    await audit(shop.road)


async def test_a_question_that_is_refused_is_told_to_staff(quiet: Shop) -> None:
    made = await quiet.order(await quiet.road.product())
    before = await quiet.road.alerts("WECHAT_CALL_REJECTED")
    with no_product(quiet):
        asked = await quiet.query(made.json["order_id"])

    assert (asked.status, asked.json["code"]) == (503, "GATEWAY_UNAVAILABLE"), asked
    assert await quiet.road.alerts("WECHAT_CALL_REJECTED") == before + 1


async def test_answers_signed_by_a_key_that_is_not_configured_are_told_to_staff(shop: Shop) -> None:
    product = await shop.road.product()
    await shop.headers("wang")
    before = await shop.road.alerts("WECHAT_KEY_UNKNOWN")
    shop.wechat.fail_next("native", "unknown_serial")

    made = await shop.order(product)

    assert (made.status, made.json["code"]) == (503, "GATEWAY_UNAVAILABLE"), made
    assert await shop.road.alerts("WECHAT_KEY_UNKNOWN") == before + 1


async def test_a_stranger_who_notifies_us_by_a_key_of_their_own_alarms_nobody(shop: Shop) -> None:
    made = await shop.order(await shop.road.product())
    before = await shop.road.alerts("WECHAT_KEY_UNKNOWN")

    told = await shop.wechat.notify(shop.number(made.json["order_id"]), told_serial="PUB_KEY_ID_" + "9" * 34)

    assert told.status == 401
    assert await shop.road.alerts("WECHAT_KEY_UNKNOWN") == before


async def test_a_prepay_refused_because_the_order_ends_meanwhile_alarms_nobody(
    shop: Shop, pg: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = await shop.road.product()
    await shop.headers("wang")
    before = await shop.road.alerts("PAYMENT_REJECTED")
    real = WeChatClient.prepay

    async def late(client: WeChatClient, *asked: Any) -> str:
        await shop.road.flushed()
        await pg.execute("UPDATE orders SET expires_at = now() + interval '950 ms'")  # its last second
        return await real(client, *asked)

    monkeypatch.setattr(WeChatClient, "prepay", late)
    past = Refused(400, "PARAM_ERROR", "time_expire")
    monkeypatch.setattr(shop.wechat._book, "create", lambda *_: past)
    made = await shop.order(product)

    assert made.json.get("code") in (None, "ORDER_NOT_PAYABLE"), made
    assert await shop.road.alerts("PAYMENT_REJECTED") == before


# --- money that somebody gave back at the merchant's console ----------------------------------------------------------


@pytest.mark.parametrize("way", ["asked", "told", "closed"])
async def test_money_given_back_before_we_heard_of_it_buys_no_ticket_whenever_it_is_told_of(
    way: str, quiet: Shop, pg: Postgres, monkeypatch: pytest.MonkeyPatch, audit: Audit
) -> None:
    _, order_id, number = await bought(quiet)
    assert quiet.wechat._book.refund(number)
    told: list[tuple[str, Any]] = []
    monkeypatch.setattr(settle, "alert", lambda name, **facts: told.append((name, facts.get("given_back"))))

    if way == "asked":
        assert (await quiet.query(order_id)).json["status"] == "PENDING_PAYMENT"
    elif way == "told":
        assert (await quiet.wechat.notify(number)).status == 200
    else:
        await pg.execute("UPDATE payment_attempts SET phase = 'CLOSING'")
        assert await quiet.road.parts.jobs_paying.provider.close_ended() == 1
    late = await quiet.wechat.notify(number, trade_state="SUCCESS")

    assert (late.status, "REFUND_REQUIRED" in late.body) == (200, True), late
    assert await record(pg, order_id) == Record("PENDING_PAYMENT", ["PAID"], ["REFUND_REQUIRED"], 0)
    assert told == [("REFUND_REQUIRED", True)], "once, and that there is nothing left to give back"
    anew = await quiet.resume(order_id)
    assert (anew.status, quiet.number(order_id) != number) == (200, True), anew
    assert await quiet.pay(anew) in PAYS
    assert (await quiet.query(order_id)).json["status"] == "PAID"
    expected = Record("PAID", ["PAID", "PAID"], ["APPLIED", "REFUND_REQUIRED"], 1)
    assert await record(pg, order_id) == expected
    await audit(quiet.road)


# --- payments that cannot be of this order ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "alert"),
    [
        ({"amount": {"total": 999, "currency": "CNY"}}, "PAYMENT_AMOUNT_MISMATCH"),
        ({"appid": "wx0000000000000000"}, "PAYMENT_PAYEE_MISMATCH"),
    ],
    ids=["another amount", "another app"],
)
async def test_a_number_whose_payment_contradicts_its_order_is_told_of_once_and_left_in_peace(
    change: dict[str, Any], alert: str, quiet: Shop, pg: Postgres, audit: Audit
) -> None:
    _, order_id, number = await bought(quiet)
    quiet.wechat._book.orders[number].asked.update(change)
    assert (await quiet.cancel(order_id)).json["status"] == "CANCELLED"
    before = await quiet.road.alerts(alert)

    rounds = [await quiet.road.parts.jobs_paying.provider.close_ended() for _ in range(3)]

    assert rounds == [1, 0, 0]
    assert await quiet.road.alerts(alert) == before + 1
    assert await record(pg, order_id) == Record("CANCELLED", ["CLOSED"], [], 0)
    await audit(quiet.road)
