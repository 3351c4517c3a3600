"""The whole road through the screens: bought and paid, shown, let in, and counted."""

from __future__ import annotations

from playwright.async_api import expect

from server.dev.wechat import WeChat
from tests.conftest import Audit
from tests.road import Road
from tests.screens.at_the_gate import Gate, on_duty
from tests.screens.buying import (
    DESKTOP,
    MINIPROGRAM,
    SHELL,
    Buyer,
    Dialog,
    at_the_shop,
    handed_to_pay_page,
    read_off,
)
from tests.screens.conftest import OpenWindow
from tests.screens.reporting import bars_of, open_report, tile

FUNCTIONS = {"ferry": 2, "bus": 1}


async def bought_at_a_desktop(road: Road, open_window: OpenWindow, dialog: Dialog) -> Buyer:
    """Ordered at a desktop, and paid with the phone that reads the code off its screen."""
    buyer = await at_the_shop(open_window, road, agent=DESKTOP, phone=False)
    await buyer.order()
    code_url = await read_off(buyer.page, ".scan img")
    assert await dialog.pay({"code_url": code_url}) == "requestPayment:ok"
    await buyer.is_paid()
    return buyer


async def bought_in_the_mini_program(road: Road, open_window: OpenWindow, dialog: Dialog) -> Buyer:
    """Ordered in the Mini Program, and paid over its bridge."""
    path = f"/?code={await dialog.code(mini=True)}&bridgeSupported=1&bridgeVersion=1.2.0"
    buyer = await at_the_shop(open_window, road, dialog=dialog, scripts=SHELL, path=path, agent=MINIPROGRAM)
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay ¥128.00").click()
    await expect(
        buyer.page.get_by_role("heading", name="Finish paying in the window that opened")
    ).to_be_visible()
    ((_, url),) = await dialog.hears()
    assert await dialog.pay({"payPayload": handed_to_pay_page(url)}) == "requestPayment:ok"
    await buyer.is_paid()
    return buyer


async def let_in(buyer: Buyer, gate: Gate, *, left: str) -> str:
    """Shown on the buyer's screen, read off its picture, typed by the gate's scanner; both screens say so."""
    await buyer.page.bring_to_front()
    token = await read_off(buyer.page, ".live img")
    await gate.page.bring_to_front()
    await gate.present(token)
    await expect(gate.word).to_have_text("LET IN")
    await expect(gate.page.locator(".verdict.go")).to_contain_text(f"Ferry crossing{left}")
    await buyer.page.bring_to_front()
    await expect(buyer.page.locator(".stamp")).to_contain_text("Redeemed")
    await expect(buyer.page.locator(".live")).to_contain_text("Ferry crossing")
    return token


async def test_two_buyers_pay_show_their_codes_are_let_in_and_counted(
    road: Road, open_window: OpenWindow, wechat: tuple[WeChat, str], audit: Audit
) -> None:
    await road.product(FUNCTIONS, price_fen=12_800)
    gate = await on_duty(open_window, road, still=True)
    buyers = [
        await bought_at_a_desktop(road, open_window, Dialog(*wechat, road, user="wang")),
        await bought_in_the_mini_program(road, open_window, Dialog(*wechat, road, user="zhang")),
    ]
    for buyer in buyers:
        await buyer.page.get_by_role("link", name="Show the code").click()
        spent = await let_in(buyer, gate, left="1 of 2")

    # What was let in once is not let in again; a fresh code is.
    await gate.page.bring_to_front()
    await gate.present(spent)
    await expect(gate.word).to_have_text("REFUSED")
    await buyers[1].page.get_by_role("button", name="Show the next code").click()
    await let_in(buyers[1], gate, left="0 of 2")

    await road.flushed()
    report = await open_report(open_window, road)
    assert await tile(report.page, "success") == "3"
    assert await tile(report.page, "reject") == "1"
    assert set(await bars_of(report.page, "by_function")) == {"Ferry crossing"}
    await report.picture("whole-road-report-desktop-en")
    await audit(road)
