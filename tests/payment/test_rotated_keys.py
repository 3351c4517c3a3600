"""A merchant's keys replaced while the server runs: WeChat is believed by the new ones, and asked with them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from cryptography import x509

from server.config import WeChatAccount
from server.dev.wechat_keys import WeChatKeys
from tests.payment.record import Postgres, record
from tests.payment.shop import Shop
from tests.payment.test_signed_notifications import PAID, UNTOUCHED, code_of, order

NEW_API_V3 = "another-key-of-thirty-two-chars."


@pytest.fixture(scope="module")
def others() -> WeChatKeys:
    """Keys that neither side of the shop has."""
    return WeChatKeys.fresh()


def replace(shop: Shop, **keys: Any) -> WeChatAccount:
    """As the server does when it has read them; the account of before."""
    keyring = shop.road.parts.keyring
    before = keyring.config.wechat
    assert before is not None
    account = msgspec.structs.replace(before, **keys)
    keyring.replace(msgspec.structs.replace(keyring.config, wechat=account))
    return before


async def notified(shop: Shop, number: str, **letter: Any) -> tuple[int, str]:
    """Status and code of the answer to WeChat."""
    delivery = await shop.wechat.notify(number, **letter)
    return delivery.status, code_of(delivery.body)


async def test_notifications_are_opened_by_either_api_v3_key_while_one_takes_over(
    shop: Shop, pg: Postgres
) -> None:
    _, early = await order(shop)
    late_id, late = await order(shop)
    old = shop.wechat.keys.api_v3_key.encode()

    assert await notified(shop, early, api_v3_key=NEW_API_V3) == (400, "NOTIFICATION_UNREADABLE")
    replace(shop, api_v3_keys=(NEW_API_V3.encode(), old))
    assert await notified(shop, early, api_v3_key=NEW_API_V3) == (200, "SUCCESS")
    assert await notified(shop, late, corrupt="ciphertext") == (400, "NOTIFICATION_UNREADABLE")
    assert await record(pg, late_id) == UNTOUCHED
    assert await notified(shop, late) == (200, "SUCCESS")  # by the old one
    assert await record(pg, late_id) == PAID
    replace(shop, api_v3_keys=(NEW_API_V3.encode(),))
    assert await notified(shop, late) == (400, "NOTIFICATION_UNREADABLE")


async def test_wechat_is_believed_by_the_keys_of_the_ring_alone_in_news_and_in_answers(
    shop: Shop, others: WeChatKeys, pg: Postgres
) -> None:
    order_id, number = await order(shop)
    theirs = {"public_key": others.pay_key.public_key(), "public_key_id": others.public_key_id}

    ours = replace(shop, **theirs, platform_certificates=(others.platform_cert,))
    assert await notified(shop, number) == (401, "SIGNATURE_INVALID")
    asked = await shop.road.call("POST", f"/orders/{order_id}/query", headers=await shop.headers("wang"))
    assert (asked.status, asked.json["code"]) == (503, "GATEWAY_UNAVAILABLE")
    assert await record(pg, order_id) == UNTOUCHED

    both: tuple[x509.Certificate, ...] = (others.platform_cert, *ours.platform_certificates)
    replace(shop, public_key=ours.public_key, public_key_id=ours.public_key_id, platform_certificates=both)
    assert await notified(shop, number) == (200, "SUCCESS")
    assert await record(pg, order_id) == PAID


async def test_what_is_asked_of_wechat_is_signed_with_the_merchants_present_key(
    shop: Shop, others: WeChatKeys
) -> None:
    product = await shop.road.product(sellable=10)
    ours = replace(shop, mch_key=others.mch_key, mch_certificate=others.mch_cert)
    refused = await shop.order(product)
    replace(shop, mch_key=ours.mch_key, mch_certificate=ours.mch_certificate)
    made = await shop.order(product)
    assert (refused.status, refused.json["code"]) == (502, "PAYMENT_REJECTED")
    assert made.status == 201, made


async def test_readiness_tells_the_end_of_the_certificates_that_are_in_use(
    shop: Shop, others: WeChatKeys
) -> None:
    before = (await shop.road.call("GET", "/readyz")).json["wechat_certificate_ends_at"]
    replace(shop, mch_key=others.mch_key, mch_certificate=others.mch_cert, platform_certificates=())
    now = (await shop.road.call("GET", "/readyz")).json["wechat_certificate_ends_at"]
    assert now != before
    assert now.startswith(f"{others.mch_cert.not_valid_after_utc:%Y-%m-%dT%H:%M:%S}")
