"""A buyer in front of the page: devices that imitate WeChat's, whose payment dialog really pays at the simulator."""

from __future__ import annotations

import asyncio
import io
import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import zxingcpp
from PIL import Image
from playwright.async_api import Locator, Page, expect

from server.dev.wechat import WeChat
from tests.road import Road
from tests.screens.looking import Window

DESKTOP = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile Safari/604.1"
WECHAT = (
    "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/126.0 Mobile MicroMessenger/8.0.50(0x28003231)"
)
MINIPROGRAM = f"{WECHAT} MiniProgramEnv/android miniProgram/wx0000000000000000"
UNMARKED = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 MicroMessenger/8.0.49"

# WeChat's object in its browser: what the dialog says is for the test to decide.
BRIDGE = """
window.WeixinJSBridge = {invoke(name, payload, back) {
  window.heardByWeChat(name, payload).then((told) => told === null || back(told));
}};
"""
# The same, but later, as it is on a slow phone: when the test says so.
LATE_BRIDGE = (
    f"window.arrive = () => {{ {BRIDGE} document.dispatchEvent(new Event('WeixinJSBridgeReady')); }};"
)
# In a Mini Program: what WeChat's own script offers to pages.
SHELL = """
window.wx = {miniProgram: {
  navigateTo: ({url}) => window.heardByWeChat("navigateTo", url),
  reLaunch: ({url}) => window.heardByWeChat("reLaunch", url),
}};
"""
INSIDE = "window.__wxjs_environment = 'miniprogram';"


PATIENCE_S = 30  # as PATIENCE_MS of these tests


class Buyer:
    """What a person does on the page."""

    def __init__(self, window: Window, road: Road) -> None:
        self.window = window
        self.page: Page = window.page
        self.road = road

    def button(self, name: str | re.Pattern[str]) -> Locator:
        """A button or a link that looks like one, by its words."""
        return self.page.get_by_role("button", name=name).or_(self.page.get_by_role("link", name=name)).first

    async def tab(self, name: str) -> None:
        """Goes there by the bar at the bottom, whatever else on the page leads there too."""
        await self.page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()

    @property
    def title(self) -> Locator:
        """What the view is about."""
        return self.page.locator("h1")

    async def choose(self, units: int = 1) -> None:
        """Take so many of the first package."""
        for _ in range(units):
            await self.page.get_by_role("button", name=re.compile("One more|增加")).first.click()

    async def order(self, units: int = 1) -> str:
        """Choose and order; the order's id, once its page is there."""
        await self.choose(units)
        await self.page.get_by_role("button", name=re.compile("^(Order|提交订单)$")).click()
        await self.page.wait_for_url(re.compile(r"#/order/"))
        return self.page.url.rpartition("/")[2]

    async def begins(self, sign: Locator) -> None:
        """The page's clock stands: it goes on by no more than a new view needs to ask, and to show this."""
        async with asyncio.timeout(PATIENCE_S):
            while not await sign.is_visible():
                await self.page.clock.run_for(10)
                await asyncio.sleep(0.02)

    async def is_paid(self, *, by_itself: bool = False) -> None:
        """The page says so. Unless by itself, it is told that the network is back: it looks at once, and not in 3 s."""
        paid = re.compile("Paid|付款成功")
        async with asyncio.timeout(PATIENCE_S):
            while not by_itself and not paid.search(await self.title.text_content() or ""):
                await self.page.evaluate("() => { window.dispatchEvent(new Event('online')); }")
                await asyncio.sleep(0.1)
        await expect(self.title).to_have_text(paid)


class Dialog:
    """WeChat on a device: hears what the page asks of it, pays or not, and says what the test wants it to say."""

    def __init__(self, wechat: WeChat, url: str, road: Road, user: str = "wang") -> None:
        self.wechat = wechat
        self.url = url
        self.road = road
        self.user = user
        self.says: dict[str, str] | None = {"err_msg": "get_brand_wcpay_request:ok"}  # None: nothing, ever
        self.pays = True
        self.heard: list[tuple[str, Any]] = []

    async def attach(self, window: Window) -> None:
        """From now on the page's WeChat is this one."""
        await window.page.expose_function("heardByWeChat", self._hear)

    async def hears(self, count: int = 1) -> list[tuple[str, Any]]:
        """What was asked of it, once that is so much."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.heard) < count:
                await asyncio.sleep(0.02)
        return self.heard

    async def _hear(self, name: str, payload: Any) -> dict[str, str] | None:
        self.heard.append((name, payload))
        if name == "getBrandWCPayRequest" and self.pays:
            assert await self.pay({"payPayload": payload}) == "requestPayment:ok"
        return self.says

    async def pay(self, what: dict[str, Any]) -> str:
        """Pay on the person's phone; what WeChat says of it."""
        async with self.road.session.post(
            f"{self.url}/phone/pay", json={"user": self.user, **what}
        ) as answer:
            told: dict[str, str] = await answer.json()
            return told["errMsg"]

    async def code(self, *, mini: bool) -> str:
        """A fresh login code."""
        keys = self.wechat.keys
        appid = keys.miniprogram_appid if mini else keys.appid
        async with self.road.session.post(
            f"{self.url}/phone/code", json={"user": self.user, "appid": appid}
        ) as answer:
            told: dict[str, str] = await answer.json()
            return told["code"]


async def read_off(page: Page, what: str) -> str:
    """The text of the one QR code on the screen, read off a picture of the screen; `what` is its place."""
    await expect(page.locator(what)).to_be_visible()
    await page.locator(what).evaluate(
        "(image) => image.decode()"
    )  # it has its place before it has its picture
    picture = Image.open(io.BytesIO(await page.screenshot()))
    (found,) = zxingcpp.read_barcodes(picture)
    return str(found.text)


def handed_to_pay_page(url: str) -> dict[str, Any]:
    """The payment in the address of the shell's pay page."""
    assert url.startswith("/pages/pay/pay?params=")
    (text,) = parse_qs(urlsplit(url).query)["params"]
    payload: dict[str, Any] = json.loads(text)
    return payload


async def at_the_shop(
    open_window: Any,
    road: Road,
    *,
    dialog: Dialog | None = None,
    scripts: str = "",
    path: str = "/",
    clock: bool = False,
    **options: Any,
) -> Buyer:
    """A buyer in front of the shop, on a device whose WeChat, if any, is `dialog`; `clock`: which a test puts on."""
    window: Window = await open_window(None, **options)
    if dialog is not None:
        await dialog.attach(window)
    if scripts:
        await window.page.add_init_script(scripts)
    if clock:
        await window.page.clock.install()
    await window.go(path)
    return Buyer(window, road)


class Mishap:
    """What happens on the line to one endpoint: `await page.route("**/orders", mishap)`."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.lose_answers = 0  # the server hears it and acts; the answer does not come back
        self.cut = False

    async def __call__(self, route: Any) -> None:
        """One request."""
        self.requests.append(route.request)
        if self.cut:
            await route.abort()
        elif self.lose_answers:
            self.lose_answers -= 1
            await route.fetch()
            await route.abort()
        else:
            await route.continue_()
