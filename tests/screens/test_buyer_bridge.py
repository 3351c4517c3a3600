"""Paying in a Mini Program: over its bridge, or not at all."""

from __future__ import annotations

from typing import Any

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
    Buyer,
    Dialog,
    at_the_shop,
    handed_to_pay_page,
)
from tests.screens.conftest import OpenWindow

REFUSED = ["Failed to load resource"]
GOOD_SHELL = "bridgeSupported=1&bridgeVersion=1.4.0&shellVersion=2.1.0"


async def in_miniprogram(
    open_window: OpenWindow,
    dialog: Dialog,
    *,
    shell: str = GOOD_SHELL,
    scripts: str = SHELL,
    agent: str = MINIPROGRAM,
    **options: Any,
) -> Buyer:
    """In the web-view of the shell, which has just opened the page."""
    code = await dialog.code(mini=True)
    return await at_the_shop(
        open_window,
        dialog.road,
        dialog=dialog,
        scripts=scripts,
        path=f"/?code={code}&{shell}",
        agent=agent,
        **options,
    )


async def test_the_shells_pay_page_is_opened_with_the_payload_and_the_order_is_looked_at(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    buyer = await in_miniprogram(open_window, dialog)
    order = await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await expect(
        buyer.page.get_by_role("heading", name="Finish paying in the window that opened")
    ).to_be_visible()
    ((name, url),) = await dialog.hears()
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
    await expect(
        buyer.page.get_by_role("heading", name="Finish paying in the window that opened")
    ).to_be_visible()

    ((name, payload),) = await dialog.hears()
    assert (name, payload["name"]) == ("invokeMiniProgramAPI", "navigateTo")
    assert handed_to_pay_page(payload["arg"]["url"])["signType"] == "RSA"


async def test_a_payment_given_up_in_the_shell_can_be_launched_again(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    buyer = await in_miniprogram(open_window, dialog, clock=True)
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await expect(buyer.page.get_by_role("button", name="Pay again")).to_be_visible()
    await buyer.page.clock.fast_forward(1_100)  # a second tap would be one that trembles
    await buyer.page.get_by_role("button", name="Pay again").click()
    await expect(
        buyer.page.get_by_role("heading", name="Finish paying in the window that opened")
    ).to_be_visible()
    await dialog.hears(2)
    assert await dialog.pay({"payPayload": handed_to_pay_page(dialog.heard[1][1])}) == "requestPayment:ok"
    await buyer.is_paid()


async def test_a_shell_that_cannot_pay_gets_the_upgrade_prompt_and_nothing_else(
    road: Road, open_window: OpenWindow, wechat: tuple[WeChat, str]
) -> None:
    await road.product()
    for lang, shell in (
        ("zh", ""),
        ("en", "bridgeSupported=1&bridgeVersion=1.1.9"),
        ("zh", "bridgeSupported=0&bridgeVersion=1.4.0"),
        ("en", "bridgeSupported=1"),
    ):
        await is_told_to_upgrade(road, open_window, Dialog(*wechat, road), shell, lang)


async def is_told_to_upgrade(
    road: Road, open_window: OpenWindow, dialog: Dialog, shell: str, lang: str
) -> None:
    """Whoever orders in this shell, and offered nothing else."""
    buyer = await in_miniprogram(open_window, dialog, shell=shell, lang=lang)
    buyer.window.expected = REFUSED
    await buyer.choose()
    await buyer.page.locator(".basket button").click()

    await expect(buyer.title).to_have_text(
        {"zh": "请更新小程序", "en": "Please update the Mini Program"}[lang]
    )
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
    late = f"{INSIDE} {SHELL} {LATE_BRIDGE} setTimeout(arrive, 300);"
    buyer = await in_miniprogram(open_window, dialog, agent=UNMARKED, scripts=late)
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await expect(
        buyer.page.get_by_role("heading", name="Finish paying in the window that opened")
    ).to_be_visible()

    assert (await dialog.hears())[0][0] == "navigateTo"


async def test_what_the_shell_said_is_known_after_a_reload(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    buyer = await in_miniprogram(open_window, dialog)
    await expect(buyer.page.locator(".product")).to_be_visible()
    await buyer.page.wait_for_function(
        "localStorage.getItem('gateline.buyer.token') !== null"
    )  # the code is spent
    await buyer.window.go("/")
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥10.00").click()
    await expect(
        buyer.page.get_by_role("heading", name="Finish paying in the window that opened")
    ).to_be_visible()


async def test_whoever_is_not_known_to_the_app_logs_in_anew_and_finds_the_order_again(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    buyer = await at_the_shop(
        open_window,
        road,
        dialog=dialog,
        scripts=SHELL,
        path="/?bridgeSupported=1&bridgeVersion=1.4.0",
        agent=MINIPROGRAM,
    )
    buyer.window.expected = REFUSED
    token = await road.call("POST", "/auth/demo/login", json={"buyer": "nobody"})
    await buyer.page.evaluate(
        "(held) => localStorage.setItem('gateline.buyer.token', JSON.stringify(held))",
        {"token": token.json["token"], "buyer_id": "demo:nobody", "until_ms": 9e15},
    )
    order = await buyer.order()
    await expect(
        buyer.page.get_by_role("heading", name="Log in by WeChat once more before you pay")
    ).to_be_visible()
    await buyer.window.picture("buyer-openid-phone-en", whole=False)
    await buyer.page.get_by_role("button", name="Log in again").click()

    assert await dialog.hears() == [("reLaunch", f"/pages/web/web?to=%23%2Forder%2F{order}")]
