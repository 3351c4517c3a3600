"""Who buys: codes of WeChat's logins, sessions that run out, and pages that are opened where nobody can log in."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from playwright.async_api import Route, expect

from server.config import WeChatAccount
from server.web.auth import Audience, Tokens
from tests.conftest import Serve
from tests.road import Road
from tests.screens.buying import (
    BRIDGE,
    DESKTOP,
    INSIDE,
    MINIPROGRAM,
    SHELL,
    WECHAT,
    Buyer,
    Dialog,
    Mishap,
    at_the_shop,
)
from tests.screens.conftest import OpenWindow
from tests.screens.looking import Window

REFUSED = ["Failed to load resource"]
GOOD_SHELL = "bridgeSupported=1&bridgeVersion=1.4.0"


async def kept(window: Window, name: str) -> Any:
    """What the page keeps on the device."""
    return await window.page.evaluate("(name) => JSON.parse(localStorage.getItem(`gateline.${name}`))", name)


async def run_out(window: Window, road: Road) -> None:
    """The buyer's token runs out at the server, while the device believes in it."""
    held = await kept(window, "buyer.token")
    over = Tokens(road.config.jwt_keys).issue(Audience.BUYER, held["buyer_id"], seconds=-1)
    await window.page.evaluate(
        "(held) => localStorage.setItem('gateline.buyer.token', JSON.stringify(held))", held | {"token": over}
    )


class Authorisation:
    """WeChat's login page: notes what it is asked, and sends the buyer back with a code, or does not answer."""

    def __init__(self, dialog: Dialog) -> None:
        self.dialog = dialog
        self.asked: list[dict[str, list[str]]] = []
        self.answers = True
        self.state: str | None = None  # another one than it was asked with

    async def __call__(self, route: Route) -> None:
        """One visit."""
        asked = parse_qs(urlsplit(route.request.url).query)
        self.asked.append(asked)
        if not self.answers:
            await route.fulfill(body="<title>WeChat</title>", content_type="text/html")
            return
        code, state = await self.dialog.code(mini=False), self.state or asked["state"][0]
        back = f"{asked['redirect_uri'][0]}?code={code}&state={state}"
        await route.fulfill(status=302, headers={"Location": back})

    async def open(self, open_window: OpenWindow, path: str = "/") -> Buyer:
        """The WeChat browser, with this page behind its address."""
        window: Window = await open_window(None, agent=WECHAT)
        window.visits = ["https://open.weixin.qq.com/connect/oauth2/authorize?"]
        window.expected = REFUSED
        await self.dialog.attach(window)
        await window.page.add_init_script(BRIDGE)
        await window.context.route("https://open.weixin.qq.com/**", self)
        await window.go(path)
        return Buyer(window, self.dialog.road)


# --- the WeChat browser ----------------------------------------------------------------------------------------------


async def test_the_wechat_browser_logs_in_by_wechats_page_and_goes_on_with_the_order(
    road: Road, open_window: OpenWindow, dialog: Dialog, pg: asyncpg.Connection[Any]
) -> None:
    await road.product()
    page = Authorisation(dialog)
    buyer = await page.open(open_window)
    await buyer.order()
    assert "code=" not in buyer.page.url
    assert "state=" not in buyer.page.url

    (asked,) = page.asked
    assert asked["appid"] == [dialog.wechat.keys.appid]
    assert asked["redirect_uri"] == [road.url]
    assert (asked["response_type"], asked["scope"]) == (["code"], ["snsapi_base"])
    assert len(asked["state"][0]) == 32
    assert (await kept(buyer.window, "buyer.token"))["buyer_id"].startswith("wx:")
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await buyer.is_paid()
    assert await pg.fetchval("SELECT count(*) FROM orders") == 1


async def test_a_login_comes_back_to_the_view_that_it_left(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    buyer = await Authorisation(dialog).open(open_window, "/#/tickets")

    await expect(buyer.title).to_have_text("My tickets")
    await expect(buyer.page.get_by_text("No tickets yet")).to_be_visible()
    assert buyer.page.url.endswith("/#/tickets")


async def test_a_code_that_this_device_did_not_send_for_logs_nobody_in(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    page = Authorisation(dialog)
    page.state = "somebody-elses"
    buyer = await page.open(open_window, "/#/tickets")
    await expect(buyer.page.get_by_role("heading", name="Logging in by WeChat did not work")).to_be_visible()
    await buyer.window.picture("buyer-login-failed-phone-en", whole=False)
    assert await kept(buyer.window, "buyer.token") is None
    for tab, title in (("Orders", "My orders"), ("My tickets", "My tickets")):
        await buyer.tab(tab)
        await expect(buyer.title).to_have_text(title)
        await expect(
            buyer.page.get_by_role("heading", name="Logging in by WeChat did not work")
        ).to_be_visible()
    assert len(page.asked) == 1  # and not in a circle

    page.state = None
    await buyer.page.get_by_role("button", name="Log in again").click()
    await expect(buyer.page.get_by_text("No tickets yet")).to_be_visible()


async def test_a_spent_code_is_told_and_a_new_one_is_got_by_a_button(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    page = Authorisation(dialog)
    spent = await dialog.code(mini=True)
    buyer = await at_the_shop(
        open_window,
        road,
        dialog=dialog,
        scripts=SHELL,
        path=f"/?code={spent}&{GOOD_SHELL}#/tickets",
        agent=MINIPROGRAM,
    )
    await expect(buyer.page.get_by_text("No tickets yet")).to_be_visible()
    buyer.window.expected = REFUSED
    await buyer.page.evaluate("localStorage.clear()")
    await buyer.window.go("/static/icon.svg")
    await buyer.window.go(f"/?code={spent}&{GOOD_SHELL}#/tickets")
    await expect(buyer.page.get_by_role("heading", name="Logging in by WeChat did not work")).to_be_visible()
    await buyer.page.get_by_role("button", name="Log in again").click()

    assert await dialog.hears() == [("reLaunch", "/pages/web/web?to=%23%2Ftickets")]
    assert page.asked == []


# --- codes of the shell ----------------------------------------------------------------------------------------------


async def test_the_shells_code_is_exchanged_once_and_taken_out_of_the_address_at_once(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    code = await dialog.code(mini=True)
    exchanges = Mishap()
    window = await open_window(None, agent=MINIPROGRAM)
    await window.page.add_init_script(INSIDE)
    await window.page.route("**/auth/wechat/login", exchanges)
    await window.go(f"/?code={code}&{GOOD_SHELL}#/tickets")
    await expect(window.page.get_by_text("No tickets yet")).to_be_visible()

    assert window.page.url == f"{road.url}?{GOOD_SHELL}#/tickets"
    assert [each.post_data_json for each in exchanges.requests] == [
        {"code": code, "environment": "miniprogram"}
    ]
    await window.page.reload()
    await expect(window.page.get_by_text("No tickets yet")).to_be_visible()
    assert len(exchanges.requests) == 1


# --- sessions that run out -------------------------------------------------------------------------------------------


async def test_in_a_demo_a_token_that_ran_out_is_renewed_without_a_word_and_the_order_goes_on(
    road: Road, open_window: OpenWindow, pg: asyncpg.Connection[Any]
) -> None:
    await road.product()
    buyer = await at_the_shop(open_window, road, path="/#/tickets", agent=DESKTOP, phone=False)
    buyer.window.expected = REFUSED
    await expect(buyer.page.get_by_text("No tickets yet")).to_be_visible()
    before = await kept(buyer.window, "buyer.token")
    await buyer.tab("Buy")
    await buyer.choose()
    await run_out(buyer.window, road)
    await buyer.order(0)
    await expect(buyer.page.locator(".scan img")).to_be_visible()
    await road.flushed()

    after = await kept(buyer.window, "buyer.token")
    assert after["buyer_id"] == before["buyer_id"]
    assert await pg.fetchval("SELECT count(*) FROM orders") == 1


async def test_in_wechat_an_expired_session_is_told_and_what_was_chosen_survives_the_login(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    page = Authorisation(dialog)
    buyer = await page.open(open_window, "/#/tickets")
    await expect(buyer.page.get_by_text("No tickets yet")).to_be_visible()
    await buyer.tab("Buy")
    await buyer.choose(2)
    await run_out(buyer.window, road)
    await buyer.page.locator(".basket button").click()
    await expect(
        buyer.page.get_by_role("heading", name="Your session is over. Please log in again.")
    ).to_be_visible()
    await buyer.window.picture("buyer-session-over-phone-en", whole=False)
    await expect(buyer.page.get_by_role("status", name="Quantity")).to_have_text("2")
    assert len(page.asked) == 1
    await buyer.page.get_by_role("button", name="Log in again").click()
    await buyer.page.wait_for_url(re.compile("#/order/"))

    await expect(buyer.page.locator(".amount")).to_contain_text("¥20.00")


async def test_at_the_gate_an_expired_session_in_the_shell_leads_back_to_the_same_ticket(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    product = await road.product({"bus": 1}, price_fen=0)
    code = await dialog.code(mini=True)
    buyer = await at_the_shop(
        open_window, road, dialog=dialog, scripts=SHELL, path=f"/?code={code}&{GOOD_SHELL}", agent=MINIPROGRAM
    )
    buyer.window.expected = REFUSED
    await buyer.order()
    await buyer.is_paid()
    await buyer.page.get_by_role("link", name="Show the code").click()
    await expect(buyer.page.locator(".live img")).to_be_visible()
    ticket = buyer.page.url
    place = urlsplit(ticket).fragment
    await buyer.window.go("/static/icon.svg")  # while it is seen, the page itself may ask, and learn of it
    await run_out(buyer.window, road)
    await buyer.page.goto(ticket)
    await expect(buyer.page.get_by_role("heading", name="Your session is over")).to_be_visible()
    await buyer.page.get_by_role("button", name="Log in again").click()

    assert product
    assert [(name, parse_qs(urlsplit(url).query)["to"]) for name, url in await dialog.hears()] == [
        ("reLaunch", [f"#{place}"])
    ]


async def test_another_buyer_on_the_same_device_does_not_see_the_first_ones_tickets(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product({"bus": 1}, price_fen=0)
    code = await dialog.code(mini=True)
    buyer = await at_the_shop(
        open_window, road, dialog=dialog, scripts=SHELL, path=f"/?code={code}&{GOOD_SHELL}", agent=MINIPROGRAM
    )
    buyer.window.expected = REFUSED  # a picture has no icon of its own
    await buyer.order()
    await buyer.tab("My tickets")
    await expect(buyer.page.get_by_role("link", name=re.compile("Show the code"))).to_be_visible()
    assert (await kept(buyer.window, "buyer.tickets"))["tickets"]

    dialog.user = "zhang"
    await buyer.window.go("/static/icon.svg")
    await buyer.window.go(f"/?code={await dialog.code(mini=True)}&{GOOD_SHELL}#/tickets")
    await expect(buyer.page.get_by_text("No tickets yet")).to_be_visible()


# --- where nobody can log in -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", ["zh", "en"])
async def test_outside_wechat_without_a_demo_the_page_says_where_to_open_it(
    lang: str, serve: Serve, account: WeChatAccount, open_window: OpenWindow
) -> None:
    real = await serve(wechat=account, demo_login=False, guest_login=False)
    await real.product()
    window: Window = await open_window(None, lang=lang)
    window.origin = real.url.rstrip("/")
    await window.go("/")
    buyer = Buyer(window, real)
    await buyer.choose()
    await buyer.page.locator(".basket button").click()

    await expect(
        buyer.page.get_by_role("heading", name=re.compile("open this in WeChat|在微信中打开"))
    ).to_be_visible()
    await expect(buyer.page.get_by_text(real.url)).to_be_visible()
    await window.picture(f"buyer-wechat-only-phone-{lang}", whole=False)
