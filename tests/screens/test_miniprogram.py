"""The reference shell, executed in a browser with a stand-in for WeChat's `wx`, `Page`, `App` and `getApp`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from playwright.async_api import Browser, expect

import server.web
from server.dev.wechat import WeChat
from tests.road import Road
from tests.screens.buying import MINIPROGRAM, SHELL, Buyer, Dialog, at_the_shop, handed_to_pay_page
from tests.screens.conftest import OpenWindow, windows
from tests.screens.looking import Window

SHELL_DIR = Path(server.web.__file__).parent / "miniprogram"
GOOD_SHELL = "bridgeSupported=1&bridgeVersion=1.2.0"
PAYMENT = {
    "appId": "wx0123456789abcdef",
    "timeStamp": "1795334400",
    "nonceStr": "5K8264ILTKCH16CQ2502SI8ZNMTM67VS",
    "package": "prepay_id=wx201410272009395522657a690389285100",
    "signType": "RSA",
    "paySign": "oR9d8PuhnIc+YZ8cBHFCwfgpaK9gd7vaRvkYD7rthRAZ==",
    "orderNo": "01M80SGKBGSXSMW7DY6QHGA1GT",
}
TAKEN = ("timeStamp", "nonceStr", "package", "signType", "paySign")
# What WeChat gives to native pages. `says`: what its dialog reports, null for nothing.
STAND_IN = """
window.heard = [];
window.says = "requestPayment:ok";
window.alone = false;
window.wx = {
  requestPayment({success, fail, ...payment}) {
    window.heard.push(["requestPayment", payment]);
    window.report = (told) => (told.endsWith(":ok") ? success : fail)({errMsg: told});
    if (window.says !== null) setTimeout(() => window.report(window.says), 10);
  },
  navigateBack({fail}) {
    window.heard.push(["navigateBack"]);
    if (window.alone) fail({errMsg: "navigateBack:fail cannot navigate back at first page."});
  },
  reLaunch: ({url}) => window.heard.push(["reLaunch", url]),
  login: ({success, fail}) => window.code ? success({code: window.code}) : fail({errMsg: "login:fail"}),
};
window.App = (app) => { window.theApp = app; };
window.getApp = () => window.theApp;
window.Page = (page) => {
  window.open = (query) => {
    const made = {...page, data: {...page.data}};
    made.setData = (change) => Object.assign(made.data, change);
    made.onLoad(query);
    return made;
  };
};
"""


class Native:
    """A native page of the shell."""

    def __init__(self, window: Window) -> None:
        self.page = window.page

    @classmethod
    async def load(cls, open_window: OpenWindow, *files: str) -> Native:
        """These files of the shell, as WeChat would load them."""
        window: Window = await open_window(None)
        native = cls(window)
        await window.stand_still()
        for text in (STAND_IN, *((SHELL_DIR / file).read_text(encoding="utf-8") for file in files)):
            await native.page.add_script_tag(content=text)
        return native

    async def open(self, query: dict[str, str]) -> None:
        """The page is opened with what its address carries."""
        await self.page.evaluate("(query) => { window.it = window.open(query); }", query)

    async def heard(self, name: str = "") -> list[Any]:
        """What was asked of WeChat so far."""
        told: list[Any] = await self.page.evaluate("window.heard")
        return [each for each in told if not name or each[0] == name]

    async def shows(self) -> dict[str, str]:
        """What stands on the page."""
        data: dict[str, str] = await self.page.evaluate("window.it.data")
        return data


@pytest.fixture
async def device(browser: Browser, shelf: str) -> AsyncIterator[OpenWindow]:
    """Opens windows with no server behind them: native pages ask nobody but WeChat."""
    async with windows(browser, shelf) as start:
        yield start


@pytest.fixture
async def pay_page(device: OpenWindow) -> Native:
    """The pay page."""
    return await Native.load(device, "pages/pay/pay.js")


def encoded(payment: Any) -> dict[str, str]:
    return {"params": quote(json.dumps(payment), safe="")}


@pytest.mark.parametrize("decoded", [True, False], ids=["decoded-by-wechat", "as-sent"])
async def test_the_pay_page_launches_exactly_the_fields_that_wechat_takes_and_goes_back(
    decoded: bool, pay_page: Native
) -> None:
    await pay_page.open({"params": json.dumps(PAYMENT)} if decoded else encoded(PAYMENT))
    assert (await pay_page.shows())["orderNo"] == PAYMENT["orderNo"]
    await pay_page.page.clock.run_for(100)

    assert await pay_page.heard() == [
        ["requestPayment", {name: PAYMENT[name] for name in TAKEN}],
        ["navigateBack"],
    ]


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ("requestPayment:fail cancel", "MINI_PROGRAM_PAY_CANCELLED"),
        ("requestPayment:fail 余额不足", "MINI_PROGRAM_PAY_FAILED"),
        ("requestPayment:fail parameter error", "MINI_PROGRAM_PAY_FAILED"),
        ("", "MINI_PROGRAM_PAY_FAILED"),
    ],
)
async def test_a_payment_that_did_not_go_through_is_named_and_the_page_goes_back(
    says: str, code: str, pay_page: Native
) -> None:
    await pay_page.page.evaluate("(says) => { window.says = says; }", says)
    await pay_page.open(encoded(PAYMENT))
    await pay_page.page.clock.run_for(100)
    assert (await pay_page.shows())["code"] == code
    assert await pay_page.heard("navigateBack") == []  # long enough to be read
    await pay_page.page.clock.run_for(2_000)

    assert len(await pay_page.heard("navigateBack")) == 1


async def test_a_dialog_that_never_answers_is_given_up_after_three_minutes(pay_page: Native) -> None:
    await pay_page.page.evaluate("window.says = null")
    await pay_page.open(encoded(PAYMENT))
    await pay_page.page.clock.run_for(179_000)
    assert await pay_page.heard("navigateBack") == []
    await pay_page.page.clock.run_for(3_000)

    assert (await pay_page.shows())["code"] == "MINI_PROGRAM_BRIDGE_TIMEOUT"
    assert len(await pay_page.heard("navigateBack")) == 1


async def test_a_second_page_while_one_pays_launches_nothing(pay_page: Native) -> None:
    await pay_page.page.evaluate("window.says = null")
    await pay_page.open(encoded(PAYMENT))
    await pay_page.open(encoded(PAYMENT))
    await pay_page.page.clock.run_for(10)

    assert len(await pay_page.heard("requestPayment")) == 1
    assert len(await pay_page.heard("navigateBack")) == 1


async def test_the_next_payment_can_be_launched_after_one_that_ended_or_was_swiped_away(
    pay_page: Native,
) -> None:
    await pay_page.open(encoded(PAYMENT))
    await pay_page.page.clock.run_for(100)
    await pay_page.page.evaluate("window.says = null")
    await pay_page.open(encoded(PAYMENT))
    await pay_page.page.evaluate("window.it.onUnload()")
    await pay_page.open(encoded(PAYMENT))
    assert len(await pay_page.heard("requestPayment")) == 3

    await pay_page.page.evaluate("window.it.onUnload()")
    await pay_page.page.evaluate("window.report('requestPayment:ok')")
    await pay_page.page.clock.run_for(200_000)
    assert len(await pay_page.heard("navigateBack")) == 1  # the first one's; a page that is gone goes nowhere


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"params": ""},
        {"params": "%"},
        {"params": "null"},
        {"params": "[1]"},
        encoded(PAYMENT | {"signType": "MD5"}),
        encoded(PAYMENT | {"timeStamp": 1795334400}),
        encoded(PAYMENT | {"package": "something else"}),
        encoded(PAYMENT | {"nonceStr": "x" * 33}),
        encoded({name: value for name, value in PAYMENT.items() if name != "paySign"}),
        encoded(PAYMENT | {"more": "x" * 5_000}),
    ],
)
async def test_what_is_no_payment_is_not_launched(query: dict[str, str], pay_page: Native) -> None:
    await pay_page.open(query)
    await pay_page.page.clock.run_for(2_000)

    assert [name for name, *_ in await pay_page.heard()] == ["navigateBack"]
    assert (await pay_page.shows())["code"] == "MINI_PROGRAM_PAY_FAILED"


async def test_a_pay_page_with_nothing_behind_it_goes_home(pay_page: Native) -> None:
    await pay_page.page.evaluate("window.alone = true")
    await pay_page.open(encoded(PAYMENT))
    await pay_page.page.clock.run_for(100)

    assert (await pay_page.heard())[-2:] == [["navigateBack"], ["reLaunch", "/pages/web/web"]]


async def test_the_web_page_opens_the_h5_page_with_a_code_and_what_the_shell_can_do(
    device: OpenWindow,
) -> None:
    native = await Native.load(device, "app.js", "pages/web/web.js")
    await native.page.evaluate("window.code = 'a&b'")
    await native.open({})
    src = urlsplit((await native.shows())["src"])

    assert src.geturl().startswith("https://tickets.example.com/?")
    assert parse_qs(src.query) == {
        "bridgeSupported": ["1"],
        "bridgeVersion": ["1.2.0"],
        "shellVersion": ["1.0.0"],
        "code": ["a&b"],
    }
    await native.open({"to": "%23%2Fticket%2FY83DX3FK28NEFFQS"})
    assert urlsplit((await native.shows())["src"]).fragment == "/ticket/Y83DX3FK28NEFFQS"
    await native.open({"to": "@evil.example/"})
    assert (await native.shows())["src"].startswith("https://tickets.example.com/?")
    assert "evil" not in (await native.shows())["src"]


async def test_the_web_page_opens_the_h5_page_although_wechat_gives_no_code(device: OpenWindow) -> None:
    native = await Native.load(device, "app.js", "pages/web/web.js")
    await native.open({})

    assert "code=" not in (await native.shows())["src"]


async def test_every_page_that_the_shell_names_is_there() -> None:
    pages = json.loads((SHELL_DIR / "app.json").read_text(encoding="utf-8"))["pages"]

    assert sorted(pages) == ["pages/pay/pay", "pages/web/web"]
    for page in pages:
        assert (SHELL_DIR / f"{page}.js").is_file()
        assert (SHELL_DIR / f"{page}.wxml").is_file()
        json.loads((SHELL_DIR / f"{page}.json").read_text(encoding="utf-8"))


async def test_h5_page_pay_page_and_wechat_pay_an_order_together(
    road: Road, open_window: OpenWindow, wechat: tuple[WeChat, str]
) -> None:
    await road.product()
    dialog = Dialog(*wechat, road)
    code = await dialog.code(mini=True)
    buyer: Buyer = await at_the_shop(
        open_window, road, dialog=dialog, scripts=SHELL, path=f"/?code={code}&{GOOD_SHELL}", agent=MINIPROGRAM
    )
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await expect(
        buyer.page.get_by_role("heading", name="Finish paying in the window that opened")
    ).to_be_visible()
    url = (await dialog.hears())[0][1]
    native = await Native.load(open_window, "pages/pay/pay.js")
    await native.open({"params": url.partition("?params=")[2]})
    ((_, launched),) = await native.heard("requestPayment")

    # WeChat knows by itself whose Mini Program this is.
    appid = wechat[0].keys.miniprogram_appid
    assert handed_to_pay_page(url)["appId"] == appid
    assert await dialog.pay({"payPayload": launched | {"appId": appid}}) == "requestPayment:ok"
    await buyer.is_paid()
