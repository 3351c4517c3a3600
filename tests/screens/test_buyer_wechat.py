"""Paying in the WeChat browser: what the phone reports changes words, and only the server's word makes a ticket."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import expect

from tests.road import Road
from tests.screens.buying import (
    BRIDGE,
    LATE_BRIDGE,
    WECHAT,
    Buyer,
    Dialog,
)
from tests.screens.conftest import OpenWindow

REFUSED = ["Failed to load resource"]
GOOD_SHELL = "bridgeSupported=1&bridgeVersion=1.4.0&shellVersion=2.1.0"


async def in_browser(
    open_window: OpenWindow, dialog: Dialog, scripts: str = BRIDGE, *, clock: bool = False, **options: Any
) -> Buyer:
    """In the WeChat browser, back from WeChat's login; `clock`: its clock is one that a test puts on."""
    window = await open_window(None, agent=WECHAT, **options)
    window.expected = REFUSED
    if clock:
        await window.page.clock.install()
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


@pytest.mark.parametrize("bridge", [BRIDGE, LATE_BRIDGE], ids=["at-once", "late"])
async def test_wechats_dialog_gets_the_very_payload_and_pays(
    bridge: str, road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product(price_fen=12_800)
    buyer = await in_browser(open_window, dialog, bridge, clock=True)
    await buyer.order()
    await buyer.window.picture("buyer-jsapi-phone-en", whole=False)
    assert dialog.heard == []
    pay = buyer.page.get_by_role("button", name="Pay ¥128.00")
    await expect(pay).to_be_visible()
    await buyer.window.stop_the_clock()  # the page gives its bridge 5 s
    await pay.click()
    if bridge == LATE_BRIDGE:
        await expect(buyer.page.get_by_text("Preparing the payment")).to_be_visible()
        await buyer.page.evaluate("arrive()")
    await dialog.hears()
    await buyer.page.clock.resume()
    await buyer.is_paid()

    ((name, payload),) = dialog.heard
    assert name == "getBrandWCPayRequest"
    assert set(payload) == {"appId", "timeStamp", "nonceStr", "package", "signType", "paySign"}


async def test_the_dialogs_success_shows_no_ticket_while_the_order_is_pending(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    dialog.pays = False  # and says that it did
    buyer = await in_browser(open_window, dialog, clock=True)
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await expect(buyer.page.get_by_role("heading", name="Confirming…")).to_be_visible()
    await buyer.window.picture("buyer-confirming-phone-en", whole=False)
    assert await buyer.window.contrast_faults() == []
    await buyer.page.get_by_role("button", name="I have paid: check again").click()
    await expect(buyer.page.locator("main").get_by_text("no payment has arrived yet")).to_be_visible()
    for path in ("**/orders/*", "**/orders/*/query"):  # the server says twice more that nothing is paid
        async with buyer.page.expect_response(path):
            await buyer.page.clock.fast_forward(7_000)
    await expect(buyer.title).to_have_text("Waiting for payment")
    await expect(buyer.page.get_by_role("link", name="Show the code")).to_have_count(0)
    await expect(buyer.page.get_by_role("button", name=re.compile("^Pay"))).to_have_count(0)

    assert await dialog.pay({"payPayload": dialog.heard[0][1]}) == "requestPayment:ok"
    await buyer.is_paid()


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("cancel", "You cancelled the payment"),
        ("fail", "The payment did not go through"),
        ("", "did not go through"),
    ],
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

    await buyer.is_paid(by_itself=True)


async def test_a_double_tap_on_pay_opens_one_dialog(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    dialog.pays, dialog.says = False, None
    buyer = await in_browser(open_window, dialog, clock=True)
    await buyer.order()
    await expect(buyer.page.get_by_role("button", name="Pay ¥10.00")).to_be_visible()
    await buyer.window.stop_the_clock()
    await buyer.page.locator("#pay").evaluate("(button) => { button.click(); button.click(); }")
    await buyer.page.clock.run_for(100)
    again = buyer.page.get_by_role("button", name="Pay again")
    await again.click()  # in the same second
    await buyer.page.wait_for_timeout(300)
    assert len(dialog.heard) == 1

    await buyer.page.clock.run_for(1_100)
    await again.click()
    await dialog.hears(2)


async def test_a_dialog_that_was_swiped_away_leaves_every_way_open(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    dialog.pays, dialog.says = False, None  # it never reports
    buyer = await in_browser(open_window, dialog, clock=True)
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await expect(buyer.page.get_by_role("button", name="I have paid: check again")).to_be_visible()
    await buyer.page.clock.fast_forward(1_100)
    dialog.pays, dialog.says = True, {"err_msg": "get_brand_wcpay_request:ok"}
    await buyer.page.get_by_role("button", name="Pay again").click()

    await buyer.is_paid()
    assert len(dialog.heard) == 2


async def test_without_wechats_bridge_the_page_says_so_and_keeps_the_order(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    buyer = await in_browser(open_window, dialog, "", clock=True)
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await buyer.page.clock.fast_forward(5_000)  # in which a bridge may still come

    await expect(buyer.page.get_by_role("heading", name="WeChat's payment did not open")).to_be_visible()
    await buyer.window.picture("buyer-missing-phone-en", whole=False)
    await expect(buyer.page.get_by_role("button", name="Pay again")).to_be_visible()
