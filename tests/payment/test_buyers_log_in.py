"""Logging in by WeChat: one person is one buyer in both apps, with an openid for each, and no session_key is kept."""

from __future__ import annotations

import time
from typing import Any

import pytest
from redis.asyncio import Redis

from server.dev.wechat_login import Login
from server.wechat import login
from tests.conftest import Audit, Serve
from tests.payment.conftest import OpenShop
from tests.payment.record import Postgres, Record, record
from tests.payment.shop import AT_A_DESKTOP, IN_WECHAT, PAYS, WAYS, Shop
from tests.road import Answer, Road


async def enter(shop: Shop, code: str, environment: str = "miniprogram") -> Answer:
    """Log in by a code."""
    body = {"code": code, "environment": environment}
    return await shop.road.call("POST", "/auth/wechat/login", json=body)


def outcome(answer: Answer) -> tuple[int, str]:
    """Status and code of a refusal."""
    return answer.status, answer.json["code"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """WeChat's being busy is waited for a hundredth of the time."""
    monkeypatch.setattr(login, "RETRY_S_MIN", 0.001)


async def test_one_person_is_one_buyer_in_both_apps_with_an_openid_for_each(shop: Shop, pg: Postgres) -> None:
    inside = await shop.log_in("wang", "miniprogram")
    browser = await shop.log_in("wang", "wechat")
    again = await shop.log_in("wang", "miniprogram")
    other = await shop.log_in("li", "wechat")

    assert [each.status for each in (inside, browser, again, other)] == [200] * 4
    buyer, stranger = inside.json["buyer_id"], other.json["buyer_id"]
    assert buyer == browser.json["buyer_id"] == again.json["buyer_id"] != stranger
    keys = shop.wechat.keys
    rows = await pg.fetch("SELECT buyer_id, appid, openid FROM wechat_identities")
    assert {tuple(row) for row in rows} == {
        (buyer, keys.miniprogram_appid, shop.wechat.openid("wang", keys.miniprogram_appid)),
        (buyer, keys.appid, shop.wechat.openid("wang", keys.appid)),
        (stranger, keys.appid, shop.wechat.openid("li", keys.appid)),
    }


async def test_without_a_unionid_the_apps_do_not_know_that_it_is_the_same_person(
    shop: Shop, pg: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = Login._ids
    monkeypatch.setattr(Login, "_ids", lambda self, user, appid: {"openid": ids(self, user, appid)["openid"]})

    buyers = [(await shop.log_in("wang", each)).json["buyer_id"] for each in ("miniprogram", "wechat")]

    assert buyers[0] != buyers[1]
    assert (await shop.log_in("wang", "miniprogram")).json["buyer_id"] == buyers[0]
    assert await pg.fetchval("SELECT count(*) FROM wechat_identities WHERE unionid IS NULL") == 2


async def test_a_token_orders_pays_and_reads_its_tickets_until_it_ends(shop: Shop, audit: Audit) -> None:
    entered = await enter(shop, await shop.code("wang"))
    assert entered.json["expires_in_s"] == shop.road.config.buyer_token_s
    product = await shop.road.product()

    made = await shop.order(product, **WAYS["MINIPROGRAM_BRIDGE"])
    assert await shop.pay(made) in PAYS
    await shop.until_status(made.json["order_id"], "PAID")

    tickets = await shop.road.call("GET", "/my/tickets", headers=await shop.headers("wang"))
    assert len(tickets.json["tickets"]) == 1
    others = await shop.road.call("GET", f"/orders/{made.json['order_id']}", headers=await shop.headers("li"))
    assert outcome(others) == (404, "ORDER_NOT_FOUND")
    await audit(shop.road)


async def test_a_code_is_good_once_and_only_in_its_own_app(shop: Shop, pg: Postgres) -> None:
    code = await shop.code("wang")
    assert (await enter(shop, code)).status == 200
    invalid = (401, "WECHAT_CODE_INVALID")

    assert outcome(await enter(shop, code)) == invalid, "used"
    assert outcome(await enter(shop, await shop.code("li"), "wechat")) == invalid, "of the Mini Program"
    assert outcome(await enter(shop, await shop.code("li", "wechat"))) == invalid, "of the browser"
    assert outcome(await enter(shop, "0made-up")) == invalid
    old = shop.wechat._people.code("li", shop.wechat.keys.miniprogram_appid, time.time() - 301)
    assert outcome(await enter(shop, old)) == invalid, "five minutes old"
    for body in (
        {"code": ""},
        {"code": "x" * 513},
        {"code": "a b"},
        {},
        {"code": "x", "environment": "none"},
    ):
        answer = await shop.road.call("POST", "/auth/wechat/login", json=body)
        assert outcome(answer) == (400, "VALIDATION_FAILED"), body
    assert await pg.fetchval("SELECT count(*) FROM wechat_identities") == 1


async def test_a_user_whom_wechat_holds_for_a_risk_is_not_let_in(shop: Shop, pg: Postgres) -> None:
    shop.wechat.fail_next("login", "blocked")

    assert outcome(await shop.log_in("wang")) == (403, "WECHAT_LOGIN_REFUSED")
    assert await pg.fetchval("SELECT count(*) FROM wechat_identities") == 0


async def test_a_busy_wechat_is_asked_again_and_not_for_ever(shop: Shop) -> None:
    code = await shop.code("wang")
    for _ in range(2):
        shop.wechat.fail_next("login", "fail_before")
    assert (await enter(shop, code)).status == 200, "-1 means that the code is still good"
    assert [call.name for call in shop.wechat.received] == ["login"] * 3

    for _ in range(3):
        shop.wechat.fail_next("login", "fail_before")
    busy = await enter(shop, await shop.code("wang"))
    assert outcome(busy) == (503, "WECHAT_UNAVAILABLE")
    assert busy.headers["Retry-After"]
    shop.wechat.fail_next("login", "limited")
    assert outcome(await enter(shop, await shop.code("wang"))) == (503, "WECHAT_UNAVAILABLE")


async def test_a_secret_that_is_not_the_apps_is_told_to_staff_and_not_to_the_buyer(
    open_shop: OpenShop, pg: Postgres
) -> None:
    shop = await open_shop(merchant={"miniprogram_secret": "0" * 32})
    before = await shop.road.alerts("WECHAT_LOGIN_MISCONFIGURED")

    assert outcome(await shop.log_in("wang")) == (503, "WECHAT_UNAVAILABLE")
    assert await shop.road.alerts("WECHAT_LOGIN_MISCONFIGURED") == before + 1
    assert (await shop.log_in("wang", "wechat")).status == 200, "the other app works"


async def test_without_an_app_there_is_no_logging_in_from_it_and_no_paying(open_shop: OpenShop) -> None:
    shop = await open_shop(merchant={"miniprogram_appid": "", "miniprogram_secret": ""})
    product = await shop.road.product()

    assert outcome(await enter(shop, "0anything")) == (422, "CHANNEL_NOT_OFFERED")
    assert (await shop.log_in("wang", "wechat")).status == 200
    bridge = await shop.order(product, **WAYS["MINIPROGRAM_BRIDGE"])
    assert (*outcome(bridge), bridge.json["channel"]) == (422, "CHANNEL_NOT_OFFERED", "MINIPROGRAM_BRIDGE")
    assert (await shop.order(product, agent=IN_WECHAT)).json["channel"] == "WECHAT_JSAPI"


@pytest.mark.parametrize(
    ("app", "wanted"), [("wechat", "MINIPROGRAM_BRIDGE"), ("miniprogram", "WECHAT_JSAPI")]
)
async def test_who_never_logged_in_from_this_app_is_asked_to_and_the_order_waits(
    app: str, wanted: str, shop: Shop, pg: Postgres, audit: Audit
) -> None:
    assert (await shop.log_in("wang", app)).status == 200
    product = await shop.road.product()

    made = await shop.order(product, **WAYS[wanted])

    assert outcome(made) == (409, "WECHAT_OPENID_REQUIRED"), made
    order_id = made.json["order_id"]
    assert outcome(await shop.resume(order_id, **WAYS[wanted])) == (409, "WECHAT_OPENID_REQUIRED")
    await shop.road.flushed()
    assert await record(pg, order_id) == Record("PENDING_PAYMENT", [], [], 0)
    assert (await shop.resume(order_id, agent=AT_A_DESKTOP)).json["channel"] == "WECHAT_NATIVE"
    other = "miniprogram" if app == "wechat" else "wechat"
    assert (await shop.log_in("wang", other)).status == 200
    offer = await shop.resume(order_id, **WAYS[wanted])
    assert (offer.status, offer.json["channel"]) == (200, wanted), offer
    assert await shop.pay(offer) in PAYS
    await shop.until_status(order_id, "PAID")
    await audit(shop.road)


async def test_no_session_key_and_no_access_token_is_kept_anywhere(
    shop: Shop, pg: Postgres, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    text = Login._text

    def listen(self: Login, answer: dict[str, Any]) -> Any:
        told.extend(
            str(answer[name]) for name in ("session_key", "access_token", "refresh_token") if name in answer
        )
        return text(self, answer)

    monkeypatch.setattr(Login, "_text", listen)
    codes = [await shop.code("wang", each) for each in ("miniprogram", "wechat")]
    answers = [await enter(shop, codes[0]), await enter(shop, codes[1], "wechat")]
    made = await shop.order(await shop.road.product(), **WAYS["MINIPROGRAM_BRIDGE"])
    assert await shop.pay(made) in PAYS
    await shop.until_status(made.json["order_id"], "PAID")
    assert len(told) >= 3

    kept = await everything_kept(pg, redis) + "".join(each.raw.decode() for each in [*answers, made])

    assert shop.wechat.openid("wang", shop.wechat.keys.appid) in kept, "it would be seen"
    for secret in (
        *told,
        *codes,
        "session_key",
        *shop.wechat.keys.apps.values(),
        shop.wechat.keys.api_v3_key,
    ):
        assert secret not in kept


async def everything_kept(pg: Postgres, redis: Redis) -> str:
    """All that stands in Postgres and in Redis."""
    tables = [name for (name,) in await pg.fetch("SELECT relname FROM pg_stat_user_tables")]
    rows = [str(dict(row)) for name in tables for row in await pg.fetch(f"SELECT * FROM {name}")]  # noqa: S608
    for key in await redis.keys("*"):
        kind = await redis.type(key)
        read = {"hash": redis.hgetall, "string": redis.get}.get(kind)
        rows.append(f"{key} {await read(key) if read else await redis.xrange(key)}")
    return "\n".join(rows)


async def test_without_a_merchant_wechats_addresses_are_not_there_and_orders_are_paid_elsewhere(
    serve: Serve, road: Road
) -> None:
    for path in ("/auth/wechat/login", "/payments/wechat/notify"):
        answer = await road.call("POST", path, json={"code": "x"})
        assert outcome(answer) == (404, "NOT_FOUND")
    product = await road.product()
    headers = road.buyer() | {"User-Agent": IN_WECHAT}
    asked = {"items": [{"product_id": product, "qty": 1}]}

    made = await road.call("POST", "/orders", headers=headers | {"Idempotency-Key": "a"}, json=asked)
    wechat = await road.call(
        "POST", "/orders", headers=headers | {"Idempotency-Key": "b"}, json=asked | {"gateway": "wechat"}
    )

    assert (made.status, made.json["channel"]) == (201, "HOSTED")
    assert outcome(wechat) == (422, "GATEWAY_NOT_OFFERED")
