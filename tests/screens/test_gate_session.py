"""Who works at the gate, and where; and what becomes of waiting scans when a session ends in the middle of a shift."""

from __future__ import annotations

import asyncio
import time

import pytest
from playwright.async_api import Route, expect

from server.domain.catalog import Role
from server.store import catalog
from server.web import appkeys
from tests.road import PASSWORD, Road
from tests.screens.at_the_gate import NO_NETWORK, VENUE, Gate, Line, on_duty, successes, tokens
from tests.screens.conftest import OpenWindow


async def disable(road: Road, username: str) -> None:
    """As `gateline operator disable` does."""
    async with road.parts.database.transaction() as connection:
        assert await catalog.disable_operator(connection, username)
    await road.parts.directory.refresh()


async def test_a_wrong_password_is_told_and_nothing_else(road: Road, open_window: OpenWindow) -> None:
    await road.staff("gina", Role.GATE)
    window = await open_window("/gate")
    window.expected = [*NO_NETWORK]
    gate = Gate(window, "en")

    await gate.log_in(password="a wrong password")

    await expect(gate.page.get_by_role("alert")).to_contain_text("User name or password is wrong")
    await expect(gate.page.locator("#password")).to_be_focused()
    await gate.log_in()
    await expect(gate.page.get_by_role("heading", name="Where do you work?")).to_be_focused()


async def test_an_analysts_account_is_told_that_it_is_not_for_gates(
    road: Road, open_window: OpenWindow
) -> None:
    await road.staff("amy", Role.ANALYST)
    window = await open_window("/gate")
    window.expected = [*NO_NETWORK]
    gate = Gate(window, "en")

    await gate.log_in("amy")

    await expect(gate.page.get_by_text("This account is not for gates")).to_be_visible()


async def test_a_home_venue_with_one_function_is_not_asked_for_and_can_be_changed(
    road: Road, open_window: OpenWindow
) -> None:
    gate = await on_duty(open_window, road)
    await road.venue("museum-gate", ["museum", "bus"])

    await gate.page.get_by_role("button", name="Change venue or function").click()

    await expect(gate.page.get_by_role("radio", name="Venue pier-north Your venue")).to_be_checked()
    await gate.page.get_by_role("radio", name="Venue museum-gate").check()
    start = gate.page.get_by_role("button", name="Start scanning")
    await expect(start).to_be_disabled()  # two functions: nobody knows which
    await gate.page.get_by_role("radio", name="Bus ride").check()
    await start.click()
    await expect(gate.page.get_by_role("heading", name="Bus ride")).to_be_focused()


async def test_a_place_can_only_be_changed_with_network_and_scanning_goes_on_without(
    road: Road, open_window: OpenWindow
) -> None:
    gate = await on_duty(open_window, road)
    gate.window.expected = [*NO_NETWORK]
    await gate.page.route("**/venue", lambda route: route.abort())

    await gate.page.get_by_role("button", name="Change venue or function").click()

    await expect(gate.page.get_by_text("The list of venues did not load.")).to_be_visible()
    await gate.page.get_by_role("button", name="Back to scanning").click()
    await expect(gate.page.get_by_role("heading", name="Ferry crossing")).to_be_focused()
    await gate.page.reload()  # nor is the list needed to begin where one worked before
    await expect(gate.page.get_by_role("heading", name="Ferry crossing")).to_be_focused()


async def test_the_choice_is_remembered_on_the_device(road: Road, open_window: OpenWindow) -> None:
    gate = await on_duty(open_window, road, functions=("ferry", "bus"))
    await gate.page.get_by_role("radio", name="Bus ride").check()
    await gate.page.get_by_role("button", name="Start scanning").click()
    await expect(gate.page.get_by_role("heading", name="Bus ride")).to_be_focused()

    await gate.page.reload()

    await expect(gate.page.get_by_role("heading", name="Bus ride")).to_be_focused()


async def test_a_place_that_is_gone_is_asked_for_again(road: Road, open_window: OpenWindow) -> None:
    gate = await on_duty(open_window, road, functions=("ferry", "bus"))
    await gate.page.get_by_role("radio", name="Bus ride").check()
    await gate.page.get_by_role("button", name="Start scanning").click()
    await expect(gate.page.get_by_role("heading", name="Bus ride")).to_be_focused()
    await road.venue(VENUE, ["ferry", "museum"])

    await gate.page.reload()

    await expect(gate.page.get_by_role("heading", name="Where do you work?")).to_be_focused()


async def test_without_any_venue_it_says_who_can_help(road: Road, open_window: OpenWindow) -> None:
    await road.staff("gina", Role.GATE)
    gate = Gate(await open_window("/gate"), "en")

    await gate.log_in()

    await expect(gate.page.get_by_text("There are no venues yet")).to_be_visible()


async def test_an_operator_who_is_disabled_during_the_shift_is_out_at_the_next_scan(
    road: Road, open_window: OpenWindow
) -> None:
    [token] = await tokens(road, 1)
    gate = await on_duty(open_window, road)
    gate.window.expected = [*NO_NETWORK]
    await disable(road, "gina")

    await gate.present(token)

    await expect(gate.page.get_by_text("Your account was disabled")).to_be_visible()
    await expect(gate.page.get_by_text("Scans kept on this device: 1")).to_be_visible()
    await expect(gate.word).to_be_hidden()
    await gate.window.picture("gate-disabled-phone-en")
    await gate.present(token)  # nobody is on duty: nothing is scanned
    await expect(gate.word).to_be_hidden()
    await gate.page.reload()
    await expect(gate.page.locator("#username")).to_have_value("gina")
    assert await successes(road) == []


async def test_scans_kept_over_the_end_of_a_session_go_out_when_the_same_operator_is_back(
    road: Road, open_window: OpenWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    [token] = await tokens(road, 1)
    gate = await on_duty(open_window, road)
    gate.window.expected = [*NO_NETWORK]
    line = Line()
    await gate.page.route("**/venue/scan", line)
    hours = road.config.operator_token_s + 1
    monkeypatch.setattr(road.app[appkeys.TOKENS], "_now", lambda: time.time() + hours)

    await gate.present(token)

    await expect(gate.page.get_by_text("Your session is over. Log in again.")).to_be_visible()
    await expect(gate.page.get_by_text("Scans kept on this device: 1")).to_be_visible()
    await gate.window.picture("gate-session-over-phone-en")
    await gate.page.locator("#password").fill(PASSWORD)
    await gate.page.keyboard.press("Enter")
    await expect(gate.page.locator(".late.go")).to_contain_text("LET IN")
    assert len({sent["scan_id"] for sent in line.sent}) == 1
    assert await gate.tile("Let in") == 1
    assert len(await successes(road)) == 1


async def test_scans_of_one_operator_are_never_sent_in_the_name_of_another(
    road: Road, open_window: OpenWindow
) -> None:
    first, second = await tokens(road, 2)
    gate = await on_duty(open_window, road)
    gate.window.expected = [*NO_NETWORK]
    line = Line()
    line.cut = True
    await gate.page.route("**/venue/scan", line)
    await gate.present(first)
    await expect(gate.word).to_have_text("NOT DECIDED")
    await gate.page.keyboard.press("Escape")
    await gate.page.get_by_role("button", name="End shift").click()
    dialog = gate.page.locator("dialog")
    await expect(dialog).to_contain_text("Scans not sent yet: 1")
    await gate.window.picture("gate-end-shift-phone-en")
    await dialog.get_by_role("button", name="End shift").click()
    await road.staff("hugo", Role.GATE, VENUE)
    line.cut = False

    await gate.log_in("hugo")

    await expect(gate.page.get_by_text("Scans of gina kept here: 1")).to_be_visible()
    await gate.present(second)
    await expect(gate.word).to_have_text("LET IN")
    assert [row["operator"] for row in await successes(road)] == ["hugo"]
    assert [scan["qr_token"] for scan in await gate.waiting()] == [first]


async def test_an_operator_who_logs_out_in_another_window_while_this_one_loads_is_out_here_too(
    road: Road, open_window: OpenWindow
) -> None:
    gate = await on_duty(open_window, road)
    come = asyncio.Event()

    async def slow(route: Route) -> None:
        await come.wait()
        await route.continue_()

    await gate.page.route("**/venue", slow)
    await gate.page.get_by_role("button", name="Change venue or function").click()
    await expect(gate.page.get_by_role("heading", name="Loading")).to_be_visible()
    await gate.page.evaluate("() => localStorage.removeItem('gateline.gate.session')")
    come.set()
    await gate.page.get_by_role("button", name="Start scanning").click()

    await expect(gate.page.get_by_role("heading", name="Gate login")).to_be_visible()


async def test_a_list_of_venues_that_comes_late_does_not_open_a_gate_whose_session_is_over(
    road: Road, open_window: OpenWindow
) -> None:
    gate = await on_duty(open_window, road)
    gate.window.expected = [*NO_NETWORK]
    come = asyncio.Event()

    async def slow(route: Route) -> None:
        await come.wait()
        await route.continue_()

    async def over(route: Route) -> None:
        told = {"code": "TOKEN_EXPIRED", "message": "", "request_id": "0"}
        await route.fulfill(status=401, json=told)

    await gate.page.route("**/venue", slow)
    await gate.page.route("**/venue/scan", over)
    await gate.page.get_by_role("button", name="Change venue or function").click()
    await expect(gate.page.get_by_role("heading", name="Loading")).to_be_visible()
    await gate.keep([{"scan_id": "s-1", "qr_token": "T1"}])
    await gate.page.evaluate("() => { window.dispatchEvent(new Event('online')); }")
    await expect(gate.page.get_by_text("Your session is over. Log in again.")).to_be_visible()
    async with gate.page.expect_response("**/venue"):
        come.set()
    await gate.page.wait_for_timeout(200)

    await expect(gate.page.get_by_text("Your session is over. Log in again.")).to_be_visible()
