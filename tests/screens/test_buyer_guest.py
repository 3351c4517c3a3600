"""Buyers outside WeChat and outside the demo: guests, who are told that their tickets live on this device."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from server.config import WeChatAccount
from tests.conftest import Serve
from tests.road import Road
from tests.screens.buying import DESKTOP, PHONE, Buyer, Dialog, Mishap, at_the_shop, read_off
from tests.screens.conftest import OpenWindow
from tests.screens.test_buyer_session import REFUSED, kept, run_out

FULL = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };"


@pytest.fixture
async def road(serve: Serve, account: WeChatAccount, cashier: str) -> Road:
    """A server that is no demo, and lets guests buy."""
    return await serve(wechat=account, gateway_url=cashier, demo_login=False, guest_login=True)


async def asked_who(buyer: Buyer) -> None:
    """Orders, and is told what it means to be a guest."""
    await buyer.choose()
    await buyer.page.locator(".basket button").click()
    await expect(buyer.page.get_by_role("heading", name=re.compile("Buy without|无需注册"))).to_be_visible()


async def test_a_guest_is_told_where_the_tickets_live_and_then_buys_and_shows_them(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    buyer = await at_the_shop(open_window, road, agent=DESKTOP, phone=False)
    sent = Mishap()
    await buyer.page.route(re.compile("/(orders|auth/guest/login)$"), sent)
    await asked_who(buyer)
    await expect(buyer.page.locator(".notice")).to_contain_text("in this browser on this device alone")
    assert sent.requests == []  # nobody is made a guest unasked
    await buyer.page.get_by_role("button", name="Go on as a guest").click()
    await buyer.page.wait_for_url(re.compile("#/order/"))  # what was chosen is ordered
    code_url = await read_off(buyer.page, ".scan img")
    assert await dialog.pay({"code_url": code_url}) == "requestPayment:ok"
    await buyer.is_paid()

    guest = await kept(buyer.window, "buyer.token")
    assert guest["buyer_id"].startswith("guest:")
    await buyer.tab("My tickets")
    await expect(buyer.page.get_by_text("Do not clear its data")).to_be_visible()
    await buyer.page.reload()
    await buyer.page.get_by_role("link", name="Show the code").click()
    told = await road.scan(await read_off(buyer.page, ".live img"), "bus")
    assert told.json["result"] == "success"
    assert await kept(buyer.window, "buyer.token") == guest
    assert [request.url.rpartition("/")[2] for request in sent.requests] == ["login", "orders"]


async def test_the_offer_can_be_read_and_used_by_everyone(road: Road, open_window: OpenWindow) -> None:
    await road.product()
    for lang in ("zh", "en"):
        buyer = await at_the_shop(open_window, road, agent=PHONE, lang=lang)
        await asked_who(buyer)
        window = buyer.window
        await window.picture(f"buyer-guest-phone-{lang}", whole=False)
        assert await window.contrast_faults() == []
        assert await window.unlabelled() == []
        assert await window.small_targets() == []
        assert await window.focus_is_visible() == []


async def test_a_guest_whom_the_server_does_not_know_is_not_forgotten_before_they_say_so(
    road: Road, open_window: OpenWindow
) -> None:
    await road.product(price_fen=0)
    buyer = await at_the_shop(open_window, road, agent=PHONE)
    buyer.window.expected = REFUSED
    await asked_who(buyer)
    await buyer.page.get_by_role("button", name="Go on as a guest").click()
    await buyer.is_paid()
    good = await kept(buyer.window, "buyer.token")
    await run_out(buyer.window, road)
    over = await kept(buyer.window, "buyer.token")
    await buyer.tab("Orders")
    await expect(buyer.page.get_by_role("heading", name="is not known any more")).to_be_visible()
    await expect(buyer.page.locator(".notice")).to_contain_text("this device forgets them")
    await buyer.window.picture("buyer-guest-over-phone-en", whole=False)
    await buyer.page.reload()
    await expect(buyer.page.get_by_role("heading", name="is not known any more")).to_be_visible()
    assert await kept(buyer.window, "buyer.token") == over

    await buyer.page.get_by_role("button", name="Begin anew as another guest").click()
    await expect(buyer.page.get_by_text("No orders yet")).to_be_visible()
    anew = await kept(buyer.window, "buyer.token")
    assert anew["buyer_id"].startswith("guest:")
    assert anew["buyer_id"] != good["buyer_id"]


async def test_where_the_device_keeps_nothing_nobody_buys_what_would_be_lost(
    road: Road, open_window: OpenWindow
) -> None:
    await road.product()
    buyer = await at_the_shop(open_window, road, agent=PHONE, scripts=FULL)
    sent = Mishap()
    await buyer.page.route(re.compile("/(orders|auth/guest/login)$"), sent)
    await asked_who(buyer)
    await buyer.page.get_by_role("button", name="Go on as a guest").click()

    await expect(buyer.page.get_by_role("heading", name="This browser keeps nothing")).to_be_visible()
    assert sent.requests == []


async def test_a_guest_login_whose_answer_is_lost_is_tried_again(road: Road, open_window: OpenWindow) -> None:
    await road.product()
    buyer = await at_the_shop(open_window, road, agent=PHONE)
    buyer.window.expected = REFUSED
    mishap = Mishap()
    mishap.cut = True
    await buyer.page.route("**/auth/guest/login", mishap)
    await asked_who(buyer)
    await buyer.page.get_by_role("button", name="Go on as a guest").click()
    await expect(buyer.page.get_by_role("heading", name="No answer came")).to_be_visible()
    mishap.cut = False
    await buyer.page.get_by_role("button", name="Try again").click()

    await buyer.page.wait_for_url(re.compile("#/order/"))
