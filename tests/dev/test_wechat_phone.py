"""The simulated people: they log in, pay with what the merchant hands out, cancel, and look at pages."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.dev.wechat import WeChat
from server.dev.wechat_keys import WeChatKeys
from tests.dev.wechat_scene import FEN, Scene, number, scene

OK = "requestPayment:ok"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def stage(keys: WeChatKeys, clock: Clock) -> AsyncIterator[Scene]:
    async with scene(WeChat(keys, time_scale=0.0005, now=clock)) as running:
        yield running


async def code(stage: Scene, appid: str, user: str = "ann") -> str:
    """What wx.login gives."""
    status, told = await stage.phone("code", user=user, appid=appid)
    assert status == 200
    return str(told["code"])


async def exchange(stage: Scene, path: str, **query: str) -> dict[str, Any]:
    """The answer of a login call, which always is 200 and calls itself text."""
    async with stage.session.get(f"{stage.url}/sns/{path}", params=query) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        told: dict[str, Any] = await answer.json(content_type=None)
        return told


def mini(keys: WeChatKeys, **changes: str) -> dict[str, str]:
    return {
        "appid": keys.miniprogram_appid,
        "secret": keys.miniprogram_secret,
        "grant_type": "authorization_code",
        **changes,
    }


async def test_a_mini_program_learns_the_openid_for_its_app_once_per_code(stage: Scene) -> None:
    asked = mini(stage.keys, js_code=await code(stage, stage.keys.miniprogram_appid))

    told = await exchange(stage, "jscode2session", **asked)

    assert told["openid"] == stage.openid("ann")
    assert told.keys() == {"openid", "session_key", "unionid"}
    again = await exchange(stage, "jscode2session", **asked)
    assert again["errcode"] == 40163
    assert [call.name for call in stage.wechat.received] == ["login", "login"]
    assert asked["secret"] not in repr(stage.wechat.received)


async def test_a_browser_learns_another_openid_and_the_same_unionid(stage: Scene) -> None:
    keys = stage.keys
    session = await exchange(
        stage, "jscode2session", **mini(keys, js_code=await code(stage, keys.miniprogram_appid))
    )

    told = await exchange(
        stage,
        "oauth2/access_token",
        appid=keys.appid,
        secret=keys.secret,
        code=await code(stage, keys.appid),
        grant_type="authorization_code",
    )

    assert told["openid"] == stage.wechat.openid("ann", keys.appid) != session["openid"]
    assert told["unionid"] == session["unionid"]
    assert told["expires_in"] == 7200
    assert {"access_token", "refresh_token", "scope"} <= told.keys()


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        ({"js_code": "nonsense"}, 40029),
        ({"js_code": ""}, 41008),
        ({"appid": "wx0000000000000000"}, 40013),
        ({"appid": ""}, 41002),
        ({"secret": "0" * 32}, 40125),
        ({"secret": ""}, 41004),
        ({"grant_type": "password"}, 40002),
    ],
)
async def test_a_login_that_is_wrong_is_told_why_and_leaves_the_code_good(
    stage: Scene, changes: dict[str, str], errcode: int
) -> None:
    asked = mini(stage.keys, js_code=await code(stage, stage.keys.miniprogram_appid))

    told = await exchange(stage, "jscode2session", **{**asked, **changes})

    assert told["errcode"] == errcode
    assert told["errmsg"]
    assert "openid" in await exchange(stage, "jscode2session", **asked)


async def test_a_code_is_good_for_five_minutes_and_for_its_own_app(stage: Scene, clock: Clock) -> None:
    keys = stage.keys
    of_browser = await code(stage, keys.appid)
    in_time, late = [await code(stage, keys.miniprogram_appid) for _ in range(2)]

    assert (await exchange(stage, "jscode2session", **mini(keys, js_code=of_browser)))["errcode"] == 40029
    app = {"appid": keys.appid, "secret": keys.secret}
    told = await exchange(stage, "jscode2session", **mini(keys, js_code=of_browser, **app))
    assert told["errcode"] == 40029  # an official account's code is not for Mini Programs
    clock.ahead_s = 295
    assert "openid" in await exchange(stage, "jscode2session", **mini(keys, js_code=in_time))
    clock.ahead_s = 301
    assert (await exchange(stage, "jscode2session", **mini(keys, js_code=late)))["errcode"] == 40029


@pytest.mark.parametrize(("fault", "errcode"), [("fail_before", -1), ("limited", 45011), ("blocked", 40226)])
async def test_a_login_is_busy_limited_or_blocked_once(stage: Scene, fault: str, errcode: int) -> None:
    stage.wechat.fail_next("login", fault)
    asked = mini(stage.keys, js_code=await code(stage, stage.keys.miniprogram_appid))

    assert (await exchange(stage, "jscode2session", **asked))["errcode"] == errcode
    assert "openid" in await exchange(stage, "jscode2session", **asked)


async def test_nobody_opens_a_strange_app(stage: Scene) -> None:
    status, _ = await stage.phone("code", user="ann", appid="wx0000000000000000")

    assert status == 400


async def test_a_launch_pays_once(stage: Scene) -> None:
    body, told = await stage.create()

    assert await stage.pay(told["prepay_id"]) == OK
    assert await stage.pay(told["prepay_id"]) == "requestPayment:fail 该订单已支付"
    seen = stage.wechat.orders()[body["out_trade_no"]]
    assert (seen.state.name, seen.trade_type, seen.amount_fen) == ("SUCCESS", "JSAPI", FEN)
    assert (await stage.query(body["out_trade_no"]))["transaction_id"] == seen.transaction_id


@pytest.mark.parametrize(
    "changes",
    [
        {"appId": "wx0000000000000000"},
        {"timeStamp": "1700000000"},
        {"timeStamp": 1700000000},
        {"nonceStr": "another"},
        {"package": "prepay_id=another"},
        {"paySign": "AAAA"},
        {"paySign": None},
        {"signType": "MD5"},
    ],
    ids=str,
)
async def test_a_launch_that_the_merchant_did_not_sign_so_does_not_pay(
    stage: Scene, changes: dict[str, Any]
) -> None:
    body, told = await stage.create()
    _, answer = await stage.phone("pay", user="ann", payPayload=stage.launch(told["prepay_id"], **changes))

    assert answer["errMsg"].startswith("requestPayment:fail ")
    assert stage.wechat.orders()[body["out_trade_no"]].state.name == "NOTPAY"
    assert await stage.pay(told["prepay_id"]) == OK


@pytest.mark.parametrize("stamp", [1700000000, "today", ""], ids=repr)
async def test_a_launch_of_no_moment_in_text_is_a_fault_of_the_page(stage: Scene, stamp: object) -> None:
    _, told = await stage.create()

    _, answer = await stage.phone(
        "pay", user="ann", payPayload=stage.launch(told["prepay_id"], timeStamp=stamp)
    )

    assert answer["errMsg"] == "requestPayment:fail parameter error: timeStamp should be String"


async def test_a_prepay_id_is_launched_by_its_own_app_and_kind_alone(stage: Scene) -> None:
    openid = stage.wechat.openid("ann", stage.keys.appid)
    _, browsers = await stage.create(appid=stage.keys.appid, payer={"openid": openid})
    _, of_h5 = await stage.create("h5")
    prepay_id = re.findall("prepay_id=([^&]+)", of_h5["h5_url"])[0]

    assert await stage.pay(browsers["prepay_id"]) == "requestPayment:fail appid和prepay_id不匹配"
    assert await stage.pay(prepay_id) == "requestPayment:fail prepay_id无效"


async def test_another_person_does_not_pay_and_who_cancels_or_is_poor_may_pay_later(stage: Scene) -> None:
    _, told = await stage.create()

    assert await stage.pay(told["prepay_id"], "bob") == "requestPayment:fail 支付者与下单用户不一致"
    assert await stage.pay(told["prepay_id"], outcome="CANCEL") == "requestPayment:fail cancel"
    assert (await stage.pay(told["prepay_id"], outcome="FAIL")).startswith("requestPayment:fail ")
    assert stage.told == []
    assert await stage.pay(told["prepay_id"]) == OK


async def test_anybody_pays_a_code_or_an_h5_address(stage: Scene) -> None:
    native, code_url = await stage.create("native")
    h5, h5_url = await stage.create("h5")

    for way in (code_url, h5_url):
        assert await stage.phone("pay", user="bob", **way) == (200, {"errMsg": OK})

    for body in (native, h5):
        told = await stage.query(body["out_trade_no"])
        assert told["payer"]["openid"] == stage.openid("bob")
    assert code_url["code_url"].startswith("weixin://wxpay/bizpayurl?pr=")


@pytest.mark.parametrize(("call", "name"), [("native", "h5_url"), ("h5", "code_url")])
async def test_an_address_is_paid_as_what_it_is(stage: Scene, call: str, name: str) -> None:
    _, told = await stage.create(call)
    (address,) = told.values()

    _, answer = await stage.phone("pay", user="bob", **{name: address})

    assert answer["errMsg"].startswith("requestPayment:fail ")


@pytest.mark.parametrize(
    "body",
    [{"user": "ann"}, {"user": "ann", "code_url": "a", "h5_url": "b"}, {"code_url": "a"}, {"user": 7}],
    ids=str,
)
async def test_a_phone_that_is_asked_nonsense_says_so(stage: Scene, body: dict[str, Any]) -> None:
    status, _ = await stage.phone("pay", **body)

    assert status == 400


async def test_the_money_goes_back_once(stage: Scene) -> None:
    body, told = await stage.create()

    assert (await stage.phone("refund", out_trade_no=body["out_trade_no"]))[0] == 409
    await stage.pay(told["prepay_id"])
    assert await stage.phone("refund", out_trade_no=body["out_trade_no"]) == (200, {"trade_state": "REFUND"})
    assert (await stage.phone("refund", out_trade_no=body["out_trade_no"]))[0] == 409
    assert (await stage.query(body["out_trade_no"]))["trade_state"] == "REFUND"


async def test_orders_that_were_paid_under_two_numbers_are_found(stage: Scene) -> None:
    numbers = []
    for attach in ("order 7", "order 7", "order 8", ""):
        body, told = await stage.create(attach=attach)
        await stage.pay(told["prepay_id"])
        numbers.append(body["out_trade_no"])
    await stage.create(attach="order 8")  # not paid

    assert stage.wechat.paid_twice() == {"order 7": numbers[:2]}
    assert stage.wechat.paid_twice(lambda no, _: "all" if no == numbers[0] else "") == {}
    assert stage.wechat.paid_twice(lambda *_: "all") == {"all": numbers}


async def page(stage: Scene, address: str, form: dict[str, str] | None = None) -> str:
    """The text of a page; with a form it is posted."""
    asking = stage.session.get(address) if form is None else stage.session.post(address, data=form)
    async with asking as answer:
        assert answer.status == 200
        assert answer.content_type == "text/html"
        return await answer.text()


async def test_the_page_of_orders_lists_what_is_open_and_pays_it(stage: Scene) -> None:
    open_one, _ = await stage.create(description="<b>Ferry</b>")
    paid_one, told = await stage.create()
    await stage.pay(told["prepay_id"])

    text = await page(stage, f"{stage.url}/phone")

    assert open_one["out_trade_no"] in text
    assert paid_one["out_trade_no"] not in text
    assert "¥ 12.34" in text
    assert "&lt;b&gt;Ferry" in text
    (ticket,) = re.findall(r'name="ticket" value="([^"]+)"', text)
    form = {"ticket": ticket, "outcome": "CANCEL"}
    assert "fail cancel" in await page(stage, f"{stage.url}/phone/pay", form)
    assert "Paid" in await page(stage, f"{stage.url}/phone/pay", form | {"outcome": "SUCCESS"})
    assert (await stage.query(open_one["out_trade_no"]))["payer"]["openid"] == stage.openid("ann")
    assert "Nothing to pay" in await page(stage, f"{stage.url}/phone")


async def test_an_h5_address_leads_to_a_page_that_pays_for_five_minutes(stage: Scene, clock: Clock) -> None:
    body, told = await stage.create("h5")
    assert told["h5_url"].startswith(stage.url)

    text = await page(stage, told["h5_url"])
    (ticket,) = re.findall(r'name="ticket" value="([^"]+)"', text)
    assert body["out_trade_no"] in text
    clock.ahead_s = 301
    assert "<button" not in await page(stage, told["h5_url"])
    clock.ahead_s = 0
    assert "Paid" in await page(stage, f"{stage.url}/phone/pay", {"ticket": ticket, "outcome": "SUCCESS"})
    assert stage.wechat.orders()[body["out_trade_no"]].state.name == "SUCCESS"
    assert "<button" not in await page(stage, told["h5_url"])


async def test_a_form_with_nonsense_is_refused(stage: Scene) -> None:
    async with stage.session.post(f"{stage.url}/phone/pay", data={"ticket": number()}) as answer:
        assert answer.status == 400
