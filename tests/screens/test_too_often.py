"""What comes too often, on the screens: they say how long to wait, and go on by themselves where they can."""

from __future__ import annotations

import re
import time

import pytest
from playwright.async_api import expect

from server.domain.catalog import Role
from server.hot import keys
from server.limits import QR_SHOWN_FREE
from tests.conftest import Serve
from tests.road import PASSWORD, Road
from tests.screens.at_the_gate import Gate
from tests.screens.buying import at_the_shop
from tests.screens.conftest import OpenWindow

REFUSED = ["Failed to load resource"]


@pytest.fixture
async def road(serve: Serve) -> Road:
    """A server where a buyer makes one order in the time of a hold."""
    return await serve(buyer_orders_max=1)


async def test_too_many_wrong_passwords_are_told_the_seconds_to_wait(
    road: Road, open_window: OpenWindow
) -> None:
    await road.staff("gina", Role.GATE)
    await road.staff("amy", Role.ANALYST)
    for username in ("gina", "amy"):  # as after nine failures: a slow machine has time to look
        bucket = keys.tries(username, "127.0.0.1")
        await road.parts.redis.hset(bucket, mapping={"n": 9, "t": int(time.time() * 1000)})  # type: ignore[misc]
    held = re.compile(r"Too many attempts. Wait \d+ s, then log in.")

    window = await open_window("/gate")
    window.expected = REFUSED
    gate = Gate(window, "en")
    await gate.log_in()
    await expect(gate.page.get_by_role("alert")).to_contain_text(held)
    await road.parts.throttle.forgive("gina")
    road.parts.throttle._held.clear()  # else this process believes for a second what it told
    await gate.log_in()
    await expect(gate.page.get_by_role("heading", name="Where do you work?")).to_be_visible()

    report = await open_window("/report")
    report.expected = REFUSED
    await report.page.locator("input[name=username]").fill("amy")
    await report.page.locator("input[name=password]").fill(PASSWORD)
    await report.page.locator("button[type=submit]").click()
    await expect(report.page.get_by_role("alert")).to_contain_text(held)


async def test_too_many_orders_are_told_when_there_may_be_another_and_nothing_is_sent_again(
    road: Road, open_window: OpenWindow
) -> None:
    await road.product()
    buyer = await at_the_shop(open_window, road, clock=True)
    buyer.window.expected = REFUSED
    await buyer.order()
    await buyer.page.goto(road.url)
    asked = []
    buyer.page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    await buyer.choose()
    await buyer.page.locator(".basket button").click()
    await expect(buyer.page.get_by_role("heading", name="Too many orders for now")).to_be_visible()
    await expect(
        buyer.page.locator("#view").get_by_text("You can order again in about 15 min.")
    ).to_be_visible()
    await buyer.page.clock.run_for(5_000)  # an answer that was lost would have been asked for by now
    await buyer.page.wait_for_timeout(200)
    assert len([url for url in asked if url.endswith("/orders")]) == 1
    await buyer.page.reload()
    await buyer.choose()
    await expect(buyer.page.get_by_role("heading", name="Your last order was not answered")).to_be_hidden()


async def test_a_code_that_was_shown_too_often_comes_by_itself_when_it_may(
    road: Road, open_window: OpenWindow
) -> None:
    await road.product(price_fen=0)
    buyer = await at_the_shop(open_window, road, clock=True)
    buyer.window.expected = REFUSED
    await buyer.order()
    show = buyer.page.get_by_role("link", name="Show the code")
    await expect(show).to_be_visible()
    code = str(await show.get_attribute("href")).rpartition("/")[2]
    # As after so many looks at it, the last of them in the future: that is the moment in which the page asks, however
    # slow the machine, as after a clock that went back.
    looked = {"n": QR_SHOWN_FREE, "t": int((time.time() + 60) * 1000)}
    await road.parts.redis.hset(keys.shown(code), mapping=looked)  # type: ignore[misc]
    await buyer.window.stop_the_clock()
    await show.click()
    await buyer.begins(buyer.page.locator("#view").get_by_text("A new code is not to be had right now"))
    await buyer.page.clock.resume()
    await expect(buyer.page.locator(".live img")).to_be_visible()
