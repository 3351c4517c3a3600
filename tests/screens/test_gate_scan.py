"""A scan at the gate's screen, whichever way it comes: one verdict, large, and ready for the next."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from playwright.async_api import expect

from tests.road import Road
from tests.screens.at_the_gate import Line, on_duty
from tests.screens.conftest import OpenWindow


async def test_a_hand_scanner_needs_no_field_and_the_verdict_fills_the_screen(
    road: Road, open_window: OpenWindow
) -> None:
    product = await road.product({"ferry": 2, "bus": 1})
    [ticket] = await road.buy({product: 1})
    gate = await on_duty(open_window, road, still=True)

    await gate.present(await road.qr(ticket["ticket_code"]))

    await expect(gate.word).to_have_text("LET IN")
    face = gate.page.locator(".verdict.go")
    box = await face.bounding_box()
    assert box == {"x": 0, "y": 0, "width": 390, "height": 844}
    await expect(face).to_contain_text("Ferry crossing1 of 2")
    await expect(face).to_contain_text("Bus ride1 of 1")
    await expect(gate.page.locator("#said")).to_contain_text("LET IN")


async def test_a_verdict_makes_room_by_itself_and_leaves_a_line_behind(
    road: Road, open_window: OpenWindow
) -> None:
    product = await road.product({"ferry": 1})
    [ticket] = await road.buy({product: 1})
    gate = await on_duty(open_window, road, still=True)

    await gate.present(await road.qr(ticket["ticket_code"]))
    await expect(gate.word).to_have_text("LET IN")
    await gate.page.clock.fast_forward(5_000)

    await expect(gate.word).to_be_hidden()
    await expect(gate.page.locator(".strip.go")).to_contain_text("LET IN")


async def test_the_next_scan_takes_the_place_of_a_verdict_at_once(
    road: Road, open_window: OpenWindow
) -> None:
    product = await road.product({"ferry": 1})
    [ticket] = await road.buy({product: 1})
    gate = await on_duty(open_window, road, still=True)
    await gate.present(await road.qr(ticket["ticket_code"]))
    await expect(gate.word).to_have_text("LET IN")

    faces = await gate.watch_faces()
    await gate.present("NOT-A-TICKET-AT-ALL")

    await expect(gate.word).to_have_text("REFUSED")
    await expect(gate.page.locator(".verdict")).to_contain_text("This is not a ticket's code")
    assert await faces() == ["wait", "stop"]  # green ended before the answer came


async def test_a_code_shown_again_says_when_and_where_it_was_used(
    road: Road, open_window: OpenWindow
) -> None:
    product = await road.product({"ferry": 2})
    tickets = await road.buy({product: 2})
    here, there = [await road.qr(ticket["ticket_code"]) for ticket in tickets]
    gate = await on_duty(open_window, road, still=True)
    await road.scan(there, "ferry", venue_code="pier-north", terminal_device_id="turnstile-0042")
    now = datetime.now(ZoneInfo("Asia/Shanghai"))
    await gate.present(here)
    await expect(gate.word).to_have_text("LET IN")

    await gate.present(here)

    face = gate.page.locator(".verdict.stop")
    await expect(face).to_contain_text("This code was used already")
    await expect(face).to_contain_text("Venue pier-north · this device")
    await expect(face.locator(".first")).to_contain_text(re.compile(_minute(now)))
    await gate.present(there)
    await expect(face).to_contain_text("Venue pier-north · device …0042")
    await expect(face).to_contain_text("Uses are left: ask for the renewed code.")


async def test_a_refusal_says_what_the_ticket_is_good_for(road: Road, open_window: OpenWindow) -> None:
    product = await road.product({"bus": 3, "museum": 1})
    [ticket] = await road.buy({product: 1})
    gate = await on_duty(open_window, road)

    await gate.present(await road.qr(ticket["ticket_code"]))

    face = gate.page.locator(".verdict.stop")
    await expect(face).to_contain_text("This ticket does not include: Ferry crossing")
    await expect(face).to_contain_text("Bus ride3 of 3")


async def test_a_scanner_that_types_into_a_field_makes_one_scan_and_leaves_the_field_as_it_was(
    road: Road, open_window: OpenWindow
) -> None:
    product = await road.product({"ferry": 1})
    [ticket] = await road.buy({product: 1})
    gate = await on_duty(open_window, road, still=True)
    field = gate.page.locator("#code")
    await field.fill("ABC")
    await field.focus()

    await gate.present(await road.qr(ticket["ticket_code"]))

    await expect(gate.word).to_have_text("LET IN")
    await gate.page.get_by_role("button", name="Close").click()
    await expect(field).to_have_value("ABC")
    await expect(field).to_be_focused()
    assert await gate.tile("Let in") == 1
    assert await gate.tile("Refused") == 0


async def test_a_scanner_may_end_with_a_tab_but_a_person_who_types_and_tabs_scans_nothing(
    road: Road, open_window: OpenWindow
) -> None:
    gate = await on_duty(open_window, road)
    field = gate.page.locator("#code")
    await field.focus()

    await gate.present("ABCDEFGHIJ", gap_ms=120, end="Tab")

    await expect(field).to_have_value("ABCDEFGHIJ")
    await expect(gate.page.get_by_role("button", name="Check")).to_be_focused()
    await expect(gate.word).to_be_hidden()
    await gate.present("ABCDEFGHIJ", end="Tab")
    await expect(gate.word).to_have_text("REFUSED")


async def test_a_typed_code_may_be_written_as_people_write(road: Road, open_window: OpenWindow) -> None:
    product = await road.product({"ferry": 1})
    [ticket] = await road.buy({product: 1})
    gate = await on_duty(open_window, road, still=True)
    token = (await road.qr(ticket["ticket_code"])).lower()
    line = Line()
    await gate.page.route("**/venue/scan", line)
    await gate.page.locator("#code").fill(f" {token[:20]} {token[20:40]}-{token[40:]} ")

    await gate.page.get_by_role("button", name="Check").click()

    await expect(gate.word).to_have_text("LET IN")
    assert [sent["qr_token"] for sent in line.sent] == [
        token.upper()
    ]  # one spelling: the same code is the same scan
    await gate.page.keyboard.press("Escape")
    await expect(gate.page.locator("#code")).to_have_value("")


async def test_an_empty_field_is_no_scan(road: Road, open_window: OpenWindow) -> None:
    gate = await on_duty(open_window, road)

    await gate.page.get_by_role("button", name="Check").click()

    await expect(gate.page.get_by_text("Type the code first.")).to_be_visible()
    await expect(gate.page.locator("#code")).to_be_focused()
    await expect(gate.word).to_be_hidden()


def _minute(now: datetime) -> str:
    """This minute or the next, with any second: a verdict of just now."""
    return "|".join((now + timedelta(minutes=more)).strftime("%H:%M:\\d\\d") for more in (0, 1))
