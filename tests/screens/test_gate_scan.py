"""A scan at the gate's screen, whichever way it comes: one verdict, large, and ready for the next."""

from __future__ import annotations

from playwright.async_api import expect

from tests.road import Road
from tests.screens.at_the_gate import on_duty
from tests.screens.conftest import OpenWindow


async def test_a_hand_scanner_needs_no_field_and_the_verdict_fills_the_screen(
    road: Road, open_window: OpenWindow
) -> None:
    product = await road.product({"ferry": 2, "bus": 1})
    [ticket] = await road.buy({product: 1})
    gate = await on_duty(open_window, road)

    await gate.present(await road.qr(ticket["ticket_code"]))

    await expect(gate.word).to_have_text("LET IN")
    face = gate.page.locator(".verdict.go")
    box = await face.bounding_box()
    assert box == {"x": 0, "y": 0, "width": 390, "height": 844}
    await expect(face).to_contain_text("Ferry crossing1 of 2")
    await expect(face).to_contain_text("Bus ride1 of 1")
    await gate.window.picture("gate-let-in-phone-en")
    await expect(face).to_be_hidden(timeout=7_000)
    await expect(gate.page.locator(".strip.go")).to_contain_text("LET IN")
    await gate.window.picture("gate-scanning-phone-en")
