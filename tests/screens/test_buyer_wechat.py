"""Paying inside WeChat: what the phone reports changes words, and only the server's word makes a ticket."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import expect

from server.dev.wechat import WeChat
from tests.road import Road
from tests.screens.buying import (
    BRIDGE,
    INSIDE,
    LATE_BRIDGE,
    MINIPROGRAM,
    SHELL,
    UNMARKED,
    WECHAT,
    Buyer,
    Dialog,
    at_the_shop,
    handed_to_pay_page,
)
from tests.screens.conftest import OpenWindow

REFUSED = ["Failed to load resource"]
GOOD_SHELL = "bridgeSupported=1&bridgeVersion=1.4.0&shellVersion=2.1.0"


@pytest.fixture
def dialog(wechat: tuple[WeChat, str], road: Road) -> Dialog:
    """Somebody's WeChat."""
    return Dialog(*wechat, road)


async def in_browser(open_window: OpenWindow, dialog: Dialog, scripts: str = BRIDGE, **options: Any) -> Buyer:
    """In the WeChat browser, back from WeChat's login."""
    window = await open_window(None, agent=WECHAT, **options)
    window.expected = REFUSED
    if scripts:
        await dialog.attach(window)
        await window.page.add_init_script(scripts)
    state = "0123456789abcdef"
    await window.go("/static/icon.svg")
    await window.page.evaluate(
        "(left) => localStorage.setItem('gateline.buyer.login', JSON.stringify(left))",
        {"state": state, "place": "#/", "at_ms": 0},
    )
    await window.go(f"/?code={await dialog.code(mini=False)}&state={state}")
    return Buyer(window, dialog.road)


async def in_miniprogram(
    open_window: OpenWindow, dialog: Dialog, *, shell: str = GOOD_SHELL, scripts: str = SHELL, agent: str = MINIPROGRAM, **options: Any
) -> Buyer:
    """In the web-view of the shell, which has just opened the page."""
    code = await dialog.code(mini=True)
    return await at_the_shop(
        open_window, dialog.road, dialog=dialog, scripts=scripts, path=f"/?code={code}&{shell}", agent=agent, **options
    )


# --- the WeChat browser ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bridge", [BRIDGE, LATE_BRIDGE], ids=["at-once", "late"])
async def test_wechats_dialog_gets_the_very_payload_and_pays(
    bridge: str, road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product(price_fen=12_800)
    buyer = await in_browser(open_window, dialog, bridge)
    await buyer.order()
    await buyer.window.picture("buyer-jsapi-phone-en", whole=False)
    assert dialog.heard == []
    await buyer.page.get_by_role("button", name="Pay ¥128.00").click()
    await buyer.is_paid()

    ((name, payload),) = dialog.heard
    assert name == "getBrandWCPayRequest"
    assert set(payload) == {"appId", "timeStamp", "nonceStr", "package", "signType", "paySign"}


async def test_the_dialogs_success_shows_no_ticket_while_the_order_is_pending(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    dialog.pays = False  # and says that it did
    buyer = await in_browser(open_window, dialog)
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await expect(buyer.page.get_by_role("heading", name="Confirming…")).to_be_visible()
    await buyer.window.picture("buyer-confirming-phone-en", whole=False)
    assert await buyer.window.contrast_faults() == []
    await buyer.page.get_by_role("button", name="I have paid: check again").click()
    await expect(buyer.page.locator("main").get_by_text("no payment has arrived yet")).to_be_visible()
    await buyer.page.wait_for_timeout(7_000)
    await expect(buyer.title).to_have_text("Waiting for payment")
    await expect(buyer.page.get_by_role("link", name="Show the code")).to_have_count(0)
    await expect(buyer.page.get_by_role("button", name=re.compile("^Pay"))).to_have_count(0)

    assert await dialog.pay({"payPayload": dialog.heard[0][1]}) == "requestPayment:ok"
    await buyer.is_paid()


@pytest.mark.parametrize(
    ("says", "words"),
    [("cancel", "You cancelled the payment"), ("fail", "The payment did not go through"), ("", "did not go through")],
)
async def test_after_a_cancelled_or_failed_payment_the_order_can_be_paid_again(
    says: str, words: str, road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    dialog.pays = False
    dialog.says = {"err_msg": f"get_brand_wcpay_request:{says}"} if says else {}
    buyer = await in_browser(open_window, dialog)
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await expect(buyer.page.get_by_role("heading", name=words)).to_be_visible()
    await buyer.window.picture(f"buyer-report-{says or 'odd'}-phone-en", whole=False)
    assert await buyer.window.contrast_faults() == []

    dialog.pays = True
    dialog.says = {"err_msg": "get_brand_wcpay_request:ok"}
    await buyer.page.get_by_role("button", name="Pay again").click()
    await buyer.is_paid()


async def test_a_payment_whose_dialog_never_answers_is_seen_all_the_same(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    dialog.says = None
    buyer = await in_browser(open_window, dialog)
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()

    await buyer.is_paid()


async def test_a_double_tap_on_pay_opens_one_dialog(road: Road, open_window: OpenWindow, dialog: Dialog) -> None:
    await road.product()
    dialog.pays, dialog.says = False, None
    buyer = await in_browser(open_window, dialog)
    await buyer.order()
    await buyer.page.locator("#pay").evaluate("(button) => { button.click(); button.click(); }")
    await buyer.page.wait_for_timeout(500)

    assert len(dialog.heard) == 1


async def test_without_wechats_bridge_the_page_says_so_and_keeps_the_order(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    buyer = await in_browser(open_window, dialog, "")
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()

    await expect(buyer.page.get_by_role("heading", name="WeChat's payment did not open")).to_be_visible(timeout=8_000)
    await buyer.window.picture("buyer-missing-phone-en", whole=False)
    await expect(buyer.page.get_by_role("button", name="Pay again")).to_be_visible()


# --- the Mini Program ------------------------------------------------------------------------------------------------


async def test_the_shells_pay_page_is_opened_with_the_payload_and_the_order_is_looked_at(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    buyer = await in_miniprogram(open_window, dialog)
    order = await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await expect(buyer.page.get_by_role("heading", name="Finish paying in the window that opened")).to_be_visible()
    ((name, url),) = dialog.heard
    payload = handed_to_pay_page(url)
    assert name == "navigateTo"
    assert set(payload) == {"appId", "timeStamp", "nonceStr", "package", "signType", "paySign", "orderNo"}
    await buyer.window.picture("buyer-bridge-launched-phone-en", whole=False)

    assert await dialog.pay({"payPayload": payload}) == "requestPayment:ok"
    await buyer.is_paid()
    assert order == buyer.page.url.rpartition("/")[2]


async def test_without_wechats_script_its_bridge_opens_the_pay_page(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    buyer = await in_miniprogram(open_window, dialog, scripts=BRIDGE + INSIDE)
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await expect(buyer.page.get_by_role("heading", name="Finish paying in the window that opened")).to_be_visible()

    ((name, payload),) = dialog.heard
    assert (name, payload["name"]) == ("invokeMiniProgramAPI", "navigateTo")
    assert handed_to_pay_page(payload["arg"]["url"])["signType"] == "RSA"


async def test_a_payment_given_up_in_the_shell_can_be_launched_again(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    buyer = await in_miniprogram(open_window, dialog)
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await buyer.page.get_by_role("button", name="Pay again").click()
    await expect(buyer.page.get_by_role("heading", name="Finish paying in the window that opened")).to_be_visible()
    assert len(dialog.heard) == 2

    assert await dialog.pay({"payPayload": handed_to_pay_page(dialog.heard[1][1])}) == "requestPayment:ok"
    await buyer.is_paid()


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize(
    "shell", ["", "bridgeSupported=1&bridgeVersion=1.1.9", "bridgeSupported=0&bridgeVersion=1.4.0", "bridgeSupported=1"]
)
async def test_a_shell_that_cannot_pay_gets_the_upgrade_prompt_and_nothing_else(
    shell: str, lang: str, road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    buyer = await in_miniprogram(open_window, dialog, shell=shell, lang=lang)
    buyer.window.expected = REFUSED
    await buyer.choose()
    await buyer.page.locator(".basket button").click()

    await expect(buyer.title).to_have_text({"zh": "请更新小程序", "en": "Please update the Mini Program"}[lang])
    await expect(buyer.page.locator("main")).to_contain_text("1.2.0")
    await expect(buyer.page.locator("main").locator("a, button, img")).to_have_count(0)
    await expect(buyer.page.get_by_role("navigation")).to_have_count(0)
    await buyer.window.picture(f"buyer-upgrade-phone-{lang}", whole=False)
    assert await buyer.window.contrast_faults() == []
    assert await road.parts.redis.keys("{stock}:o:*") == []


async def test_a_mini_program_without_its_marker_is_known_by_its_own_word(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    late = f"{INSIDE} {SHELL} {LATE_BRIDGE}"
    buyer = await in_miniprogram(open_window, dialog, agent=UNMARKED, scripts=late)
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await expect(buyer.page.get_by_role("heading", name="Finish paying in the window that opened")).to_be_visible()

    assert dialog.heard[0][0] == "navigateTo"


async def test_what_the_shell_said_is_known_after_a_reload(road: Road, open_window: OpenWindow, dialog: Dialog) -> None:
    await road.product()
    buyer = await in_miniprogram(open_window, dialog)
    await expect(buyer.page.locator(".product")).to_be_visible()
    await buyer.window.go("/")
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await expect(buyer.page.get_by_role("heading", name="Finish paying in the window that opened")).to_be_visible()


async def test_whoever_is_not_known_to_the_app_logs_in_anew_and_finds_the_order_again(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    buyer = await at_the_shop(
        open_window, road, dialog=dialog, scripts=SHELL, path="/?bridgeSupported=1&bridgeVersion=1.4.0", agent=MINIPROGRAM
    )
    buyer.window.expected = REFUSED
    token = await road.call("POST", "/auth/demo/login", json={"buyer": "nobody"})
    await buyer.page.evaluate(
        "(token) => localStorage.setItem('gateline.buyer.token', JSON.stringify({token, buyer_id: 'x', until_ms: 9e15}))",
        token.json["token"],
    )
    order = await buyer.order()
    await expect(buyer.page.get_by_role("heading", name="Log in by WeChat once more before you pay")).to_be_visible()
    await buyer.window.picture("buyer-openid-phone-en", whole=False)
    await buyer.page.get_by_role("button", name="Log in again").click()
    await buyer.page.wait_for_timeout(200)

    assert dialog.heard == [("reLaunch", f"/pages/web/web?to=%23%2Forder%2F{order}")]
