"""Only what WeChat Pay signed, now, and sealed for us is believed: anything else is refused and changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from aiohttp import web
from multidict import CIMultiDict

from server.config.wechat import NOTIFY_PATH
from server.dev.serving import serving
from server.dev.wechat import WeChat
from server.dev.wechat_keys import WeChatKeys
from server.dev.wechat_seals import signed
from tests.conftest import Audit
from tests.payment.conftest import OpenShop
from tests.payment.record import Postgres, Record, record
from tests.payment.shop import Shop

UNTOUCHED = Record("PENDING_PAYMENT", ["OPEN"], [], 0)
PAID = Record("PAID", ["PAID"], ["APPLIED"], 1)
SIGNED = ("Wechatpay-Timestamp", "Wechatpay-Nonce", "Wechatpay-Signature", "Wechatpay-Serial")


class Mail(NamedTuple):
    """A notification as it came, with nothing changed on the way."""

    raw: bytes
    headers: CIMultiDict[str]


Intercept = Callable[..., Awaitable[Mail]]


@pytest.fixture
async def intercept(shop: Shop) -> AsyncIterator[Intercept]:
    """Gives a notification of WeChat's instead of delivering it: `await intercept(number, ...)`."""
    caught: list[Mail] = []

    async def catch(request: web.Request) -> web.Response:
        headers = CIMultiDict(
            (name, value) for name, value in request.headers.items() if name.startswith("Wechatpay-")
        )
        caught.append(Mail(await request.read(), headers))
        return web.Response(status=500)

    app = web.Application()
    app.router.add_post("/", catch)
    async with serving(app) as url:

        async def one(number: str, **letter: Any) -> Mail:
            await shop.wechat.notify(number, url=url + "/", **letter)
            return caught.pop()

        yield one


async def post(shop: Shop, raw: bytes, headers: CIMultiDict[str]) -> tuple[int, str]:
    """Status, and the code of the answer."""
    answer = await shop.road.call(
        "POST",
        NOTIFY_PATH,
        data=raw,
        headers=CIMultiDict([*headers.items(), ("Content-Type", "application/json")]),
    )
    return answer.status, answer.json["code"]


def code_of(body: str) -> str:
    """The code of an answer to WeChat."""
    told: str = msgspec.json.decode(body)["code"]
    return told


async def order(shop: Shop) -> tuple[str, str]:
    """An order that waits to be paid by a code: its id, its number at WeChat."""
    made = await shop.order(await shop.road.product())
    assert made.status == 201, made
    return made.json["order_id"], shop.number(made.json["order_id"])


REFUSED: dict[str, dict[str, Any]] = {
    "a probe of WeChat's own": {"probe": True},
    "another signature": {"corrupt": "signature"},
    "another body": {"corrupt": "body"},
    "five minutes old": {"age_s": 300},
    "an hour old": {"age_s": 3600},
    "an hour ahead": {"age_s": -3600},
    "an unknown public key": {"told_serial": "PUB_KEY_ID_0000000000000000000000000000000"},
    "an unknown certificate": {"told_serial": "5D00000000000000000000000000000000000000"},
}


async def test_what_wechat_did_not_sign_just_now_is_refused(shop: Shop, pg: Postgres, audit: Audit) -> None:
    order_id, number = await order(shop)

    told = {case: await shop.wechat.notify(number, **letter) for case, letter in REFUSED.items()}

    assert {case: (each.status, code_of(each.body)) for case, each in told.items()} == dict.fromkeys(
        REFUSED, (401, "SIGNATURE_INVALID")
    )
    assert await record(pg, order_id) == UNTOUCHED
    assert (await shop.wechat.notify(number)).status == 200, "the next honest one is taken"
    assert await record(pg, order_id) == PAID
    await audit(shop.road)


async def test_a_key_cannot_sign_in_the_name_of_the_other_one(shop: Shop, pg: Postgres) -> None:
    order_id, number = await order(shop)
    keys = shop.wechat.keys
    pairs = [(keys.platform_serial, keys.public_key_id), (keys.public_key_id, keys.platform_serial)]

    told = [await shop.wechat.notify(number, serial=serial, told_serial=other) for serial, other in pairs]

    assert [each.status for each in told] == [401, 401]
    assert await record(pg, order_id) == UNTOUCHED


@pytest.mark.parametrize("mode", ["public_key", "certificate"])
async def test_both_kinds_of_keys_are_believed(
    mode: str, open_shop: OpenShop, wechat_keys: WeChatKeys, pg: Postgres
) -> None:
    shop = await open_shop(wechat=WeChat(wechat_keys, signs_by=mode))
    order_id, number = await order(shop)

    assert (await shop.wechat.notify(number)).status == 200
    assert await record(pg, order_id) == PAID


async def test_a_timestamp_is_good_for_less_than_five_minutes_either_way(
    open_shop: OpenShop, wechat_keys: WeChatKeys, pg: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = float(int(time.time()))
    shop = await open_shop(wechat=WeChat(wechat_keys, now=lambda: now))
    assert shop.road.parts.paying.wechat is not None
    monkeypatch.setattr(
        shop.road.parts.paying.wechat.news, "_now", lambda: now
    )  # it stands still on both sides
    for sign in (1, -1):
        order_id, number = await order(shop)
        assert (await shop.wechat.notify(number, age_s=300 * sign)).status == 401
        assert await record(pg, order_id) == UNTOUCHED
        assert (await shop.wechat.notify(number, age_s=299 * sign)).status == 200
        assert await record(pg, order_id) == PAID


async def test_each_header_must_be_there_exactly_once(shop: Shop, pg: Postgres, intercept: Intercept) -> None:
    order_id, number = await order(shop)
    mail = await intercept(number)
    told = {}
    for header in SIGNED:
        without, twice, empty = mail.headers.copy(), mail.headers.copy(), mail.headers.copy()
        del without[header]
        twice.add(header, mail.headers[header])
        empty[header] = ""
        told[header] = [await post(shop, mail.raw, headers) for headers in (without, twice, empty)]

    assert told == dict.fromkeys(SIGNED, [(401, "SIGNATURE_INVALID")] * 3)
    assert await record(pg, order_id) == UNTOUCHED
    assert await post(shop, mail.raw, mail.headers) == (200, "SUCCESS")
    assert await record(pg, order_id) == PAID


async def test_what_the_headers_say_is_signed_too(shop: Shop, pg: Postgres, intercept: Intercept) -> None:
    order_id, number = await order(shop)
    mail = await intercept(number)
    for header in ("Wechatpay-Timestamp", "Wechatpay-Nonce", "Wechatpay-Serial"):
        told, changed = mail.headers[header], mail.headers.copy()
        changed[header] = told[:-1] + ("0" if told[-1] != "0" else "1")

        assert await post(shop, mail.raw, changed) == (401, "SIGNATURE_INVALID"), header

    assert await record(pg, order_id) == UNTOUCHED


async def test_a_body_changed_by_one_byte_anywhere_is_refused(
    shop: Shop, pg: Postgres, intercept: Intercept
) -> None:
    order_id, number = await order(shop)
    raw, headers = await intercept(number)
    changed = [raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] for at in range(0, len(raw), 3)]
    changed += [raw[:-1], raw + b" ", b" " + raw, raw + b"\n", b"", raw.replace(b",", b", ", 1)]
    for region in (b"TRANSACTION.SUCCESS", b"ciphertext", b"nonce", b"associated_data", b"create_time"):
        at = raw.index(region)
        changed.append(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    assert len(changed) > 300

    told = []
    for at in range(0, len(changed), 50):
        told += await asyncio.gather(*(post(shop, each, headers) for each in changed[at : at + 50]))

    assert set(told) == {(401, "SIGNATURE_INVALID")}
    assert await record(pg, order_id) == UNTOUCHED
    assert await post(shop, raw, headers) == (200, "SUCCESS")


async def test_what_is_truly_signed_and_cannot_be_opened_is_told_to_people_and_asked_for_again(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    order_id, number = await order(shop)
    before = await shop.road.alerts("WECHAT_NOTIFICATION_UNREADABLE")

    changed = await shop.wechat.notify(number, corrupt="ciphertext")
    sealed = await shop.wechat.notify(number, api_v3_key="another-key-of-thirty-two-chars.")

    assert [(each.status, code_of(each.body)) for each in (changed, sealed)] == [
        (400, "NOTIFICATION_UNREADABLE")
    ] * 2
    assert await shop.road.alerts("WECHAT_NOTIFICATION_UNREADABLE") == before + 2
    assert await record(pg, order_id) == UNTOUCHED
    await audit(shop.road)


OTHER_NEWS: dict[str, dict[str, Any]] = {
    "of a refund": {"event_type": "REFUND.SUCCESS"},
    "of a kind that we never heard of": {"event_type": "COUPON.USE"},
    **{
        f"in state {state}": {"trade_state": state}
        for state in ("NOTPAY", "CLOSED", "REVOKED", "USERPAYING", "PAYERROR")
    },
}


async def test_news_that_are_not_of_a_success_are_taken_and_pay_nothing(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    order_id, number = await order(shop)

    told = {case: await shop.wechat.notify(number, **changes) for case, changes in OTHER_NEWS.items()}

    assert {case: (each.status, "NOTHING_TO_SETTLE" in each.body) for case, each in told.items()} == (
        dict.fromkeys(OTHER_NEWS, (200, True))
    )
    assert await record(pg, order_id) == UNTOUCHED
    await audit(shop.road)


NO_TRANSACTION: dict[str, dict[str, Any]] = {
    "without a transaction": {"transaction_id": ""},
    "without a time": {"success_time": None},
    "with an amount that is text": {"amount": {"total": "1000"}},
    "with half a fen": {"amount": {"total": 1000.5}},
    "with a state unheard of": {"trade_state": "PERHAPS"},
}


async def test_a_success_that_does_not_say_what_must_be_known_is_not_believed(
    shop: Shop, pg: Postgres
) -> None:
    order_id, number = await order(shop)

    told = {case: await shop.wechat.notify(number, **changes) for case, changes in NO_TRANSACTION.items()}

    assert {case: (each.status, code_of(each.body)) for case, each in told.items()} == dict.fromkeys(
        NO_TRANSACTION, (400, "NOTIFICATION_UNREADABLE")
    )
    assert await record(pg, order_id) == UNTOUCHED


async def test_a_signed_body_that_is_no_notification_is_refused_and_crashes_nothing(
    shop: Shop, pg: Postgres, intercept: Intercept
) -> None:
    order_id, number = await order(shop)
    whole = msgspec.json.decode((await intercept(number)).raw)
    bodies = [b"", b"null", b"[]", b"{}", b"{", b'"\xff"', b"[" * 30_000, b"9" * 5_000]
    bodies += [msgspec.json.encode({**whole, "resource": other}) for other in (None, {}, [], "x")]
    bodies += [msgspec.json.encode({k: v for k, v in whole.items() if k != "resource"})]

    told = []
    for body in bodies:
        headers = CIMultiDict(signed(shop.wechat.keys, shop.wechat.keys.public_key_id, body, time.time()))
        told.append(await post(shop, body, headers))

    assert {status for status, _ in told} == {400}, told
    assert await record(pg, order_id) == UNTOUCHED
