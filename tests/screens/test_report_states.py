"""Who may see the report, and what it says when the session, the network or the server is gone: the figures stay."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Page, Route, expect

from server.domain.catalog import Role
from server.store import catalog
from tests.road import PASSWORD, Road
from tests.screens.conftest import OpenWindow
from tests.screens.reporting import SUCCESS, Day, later, log_in, open_report, shown, tile

FIGURES = "**/reports/figures?*"
REFUSED = "Failed to load resource"


@pytest.fixture
async def day(road: Road, pg: asyncpg.Connection[Any]) -> Day:
    """Scans of this moment."""
    return await Day(road, pg).scanned()


def just_now() -> datetime:
    """Before the second that the server's answer tells a page whose own clock stands."""
    return datetime.now(UTC) - timedelta(seconds=2)


class Counted:
    """Counts the questions for figures that a page sends."""

    def __init__(self, page: Page) -> None:
        self.count = 0
        page.on("request", lambda request: self._asked(request.url))

    def _asked(self, url: str) -> None:
        self.count += "/reports/figures" in url


# --- Logging in ---------------------------------------------------------------------------------------------


async def test_a_gate_account_is_told_kindly_that_this_is_for_analysts(
    open_window: OpenWindow, road: Road
) -> None:
    await road.staff("gina", Role.GATE)
    window = await open_window("/report")
    window.expected = [REFUSED]
    await log_in(window, "gina")
    notice = window.page.locator(".notice")
    await expect(notice).to_contain_text("This page is for analysts")
    await expect(notice).to_contain_text("gina is a gate account")
    await expect(notice.get_by_role("link", name="Open the gate")).to_have_attribute("href", "/gate")
    await expect(window.page.locator(".figures")).to_have_count(0)
    await road.staff("amy", Role.ANALYST)
    await log_in(window)
    await shown(window.page)


async def test_a_wrong_password_is_said_and_the_figures_stay_closed(
    open_window: OpenWindow, road: Road
) -> None:
    await road.staff("amy", Role.ANALYST)
    window = await open_window("/report")
    window.expected = [REFUSED]
    page = window.page
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_have_text("Fill in user name and password.")
    await expect(page.get_by_label("User name")).to_be_focused()
    await page.get_by_label("User name").fill("amy")
    await page.get_by_label("Password").fill("not the password")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("User name or password is wrong")
    await expect(page.get_by_label("Password")).to_be_focused()
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await shown(page)
    await expect(page.get_by_role("heading", name="Redemptions")).to_be_focused()


async def test_a_reload_stays_logged_in_and_logging_out_does_not(open_window: OpenWindow, road: Road) -> None:
    page = (await open_report(open_window, road)).page
    await page.reload()
    await shown(page)
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_role("heading", name="Analyst login")).to_be_focused()
    await page.reload()
    await expect(page.get_by_role("heading", name="Analyst login")).to_be_visible()


# --- The session ends ---------------------------------------------------------------------------------------


async def test_when_the_session_ends_the_figures_stay_as_of_when_and_a_login_goes_on(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    window = await open_report(open_window, road, "?window=day&function=ferry", still=True)
    window.expected = [REFUSED]
    page = window.page
    assert await tile(page, "success") == "2"
    await page.route(FIGURES, lambda route: _refuse(route, 401, "TOKEN_EXPIRED"))
    await later(page)
    notice = page.locator(".door .notice")
    await expect(notice).to_contain_text("Your session is over.")
    assert re.search(r"as of \d\d:\d\d:\d\d and is not updated", await notice.inner_text())
    assert await tile(page, "success") == "2"
    await expect(page.locator(".freshness .when")).to_contain_text("As of")
    await expect(page.locator("#said")).to_contain_text("Please log in again")
    asked = Counted(page)
    await day.write(just_now(), function_code="ferry", **SUCCESS)
    await page.evaluate("window.dispatchEvent(new Event('online'))")
    await page.locator("#filter-location").select_option("pier-1")
    await later(page)  # nobody is logged in: nothing is asked
    assert asked.count == 0 and await tile(page, "success") == "2"

    await page.unroute(FIGURES)
    await log_in(window)
    await expect(page.locator("#filter-location")).to_have_value("pier-1")
    await page.locator("#filter-location").select_option("")
    await expect(page.locator("#tile-success .value")).to_have_text("3")
    await expect(page.locator(".door")).to_be_empty()
    await expect(page.locator(".freshness .tag")).to_have_text("Live")
    assert "function=ferry" in page.url


async def test_an_analyst_who_is_disabled_is_told_so(open_window: OpenWindow, road: Road, day: Day) -> None:
    window = await open_report(open_window, road, still=True)
    window.expected = [REFUSED]
    async with road.parts.database.transaction() as connection:
        assert await catalog.disable_operator(connection, "amy")
    await road.parts.directory.refresh()
    await later(window.page)
    notice = window.page.locator(".door .notice")
    await expect(notice).to_contain_text("This account was disabled or has a new password.")
    await log_in(window)
    await expect(window.page.locator("#login-fault")).to_contain_text("the account is disabled")


async def test_a_token_that_is_over_at_the_beginning_leads_to_the_login(
    open_window: OpenWindow, road: Road
) -> None:
    window = await open_window("/report")
    window.expected = [REFUSED]
    await window.page.evaluate("localStorage.setItem('gateline.report.token', JSON.stringify('x.y.z'))")
    await window.page.reload()
    await expect(window.page.locator(".notice")).to_have_text("Your session is over. Please log in again.")
    await expect(window.page.locator(".figures")).to_have_count(0)


# --- The network and the server -----------------------------------------------------------------------------


async def test_without_a_network_the_figures_stay_as_of_when_and_go_on_by_themselves(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    window = await open_report(open_window, road)
    window.expected = [REFUSED]
    page = window.page
    before = await tile(page, "success")
    await window.context.set_offline(True)
    notice = page.locator(".place-of-notice .notice")
    await expect(notice).to_contain_text("No network")
    assert re.search(r"Figures are as of \d\d:\d\d:\d\d\.", await notice.inner_text())
    await expect(page.locator(".freshness .tag")).to_have_text("No network")
    await expect(page.locator("#said")).to_contain_text("No network")
    assert await tile(page, "success") == before
    await day.write(just_now(), **SUCCESS)

    await window.context.set_offline(False)
    await expect(page.locator("#tile-success .value")).to_have_text(str(int(before) + 1))
    await expect(notice).to_have_count(0)
    await expect(page.locator(".freshness .tag")).to_have_text("Live")


async def test_a_filter_chosen_without_a_network_is_shown_once_it_is_back(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    window = await open_report(open_window, road)
    window.expected = [REFUSED]
    page = window.page
    await window.context.set_offline(True)
    await page.locator("#filter-function").select_option("bus")
    await expect(page.locator(".figures")).to_have_attribute("aria-busy", "true")
    assert await tile(page, "success") == "4"  # still those of before
    await window.context.set_offline(False)
    await expect(page.locator("#tile-success .value")).to_have_text("1")


async def test_a_server_that_fails_is_asked_again_until_it_answers(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    window = await open_report(open_window, road, still=True)
    window.expected = [REFUSED]
    page = window.page

    await page.route(FIGURES, lambda route: _refuse(route, 503, "POSTGRES_UNAVAILABLE"))
    await later(page)
    notice = page.locator(".place-of-notice .notice")
    await expect(notice).to_contain_text("The server does not answer just now")
    assert await tile(page, "success") == "4"
    await page.unroute(FIGURES)
    await page.get_by_role("button", name="Refresh").click()
    await expect(notice).to_have_count(0)
    await expect(page.locator(".freshness .tag")).to_have_text("Live")


async def test_what_is_too_much_asks_for_a_shorter_window(
    open_window: OpenWindow, road: Road, day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = await open_report(open_window, road)
    window.expected = [REFUSED]
    monkeypatch.setattr("server.web.figures.REPORT_FIGURES_ROWS_MAX", 3)
    await window.page.locator("[data-window=month]").click()
    notice = window.page.locator(".place-of-notice .notice")
    await expect(notice).to_have_text("That is too much at once. Choose a shorter window.")


# --- Live, and not -------------------------------------------------------------------------------------------


async def test_pausing_stops_the_questions_and_resuming_asks_at_once(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road, still=True)).page
    await page.get_by_role("button", name="Pause").click()
    await expect(page.locator(".freshness .tag")).to_have_text("Paused")
    asked = Counted(page)
    await day.write(just_now(), **SUCCESS)
    await later(page)
    assert asked.count == 0 and await tile(page, "success") == "4"
    await page.get_by_role("button", name="Resume").click()
    await expect(page.locator("#tile-success .value")).to_have_text("5")
    await expect(page.locator(".freshness .tag")).to_have_text("Live")


async def test_a_page_that_nobody_sees_asks_for_nothing_and_asks_at_once_when_it_is_seen(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road, still=True)).page
    see = """(hidden) => {
      Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    await page.evaluate(see, True)
    asked = Counted(page)
    await later(page)
    assert asked.count == 0
    await day.write(just_now(), **SUCCESS)
    await page.evaluate(see, False)
    await expect(page.locator("#tile-success .value")).to_have_text("5")


async def test_after_logging_out_no_question_is_left_behind(
    open_window: OpenWindow, road: Road, day: Day
) -> None:
    page = (await open_report(open_window, road, still=True)).page
    await page.get_by_role("button", name="Log out").click()
    asked = Counted(page)
    await later(page)
    await page.evaluate("window.dispatchEvent(new Event('online'))")
    await page.wait_for_timeout(200)
    assert asked.count == 0


async def _refuse(route: Route, status: int, code: str) -> None:
    await route.fulfill(status=status, json={"code": code, "message": "no", "request_id": "0"})
