"""What no one expected: names of one endless word, small and flat screens, and states that a newer server knows."""

from __future__ import annotations

import re
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Route, expect

from tests.road import Road
from tests.screens.buying import Buyer
from tests.screens.conftest import OpenWindow

WORD = "Sonnenuntergangsfahrtmitabendessenundfeuerwerk"


@pytest.mark.parametrize("size", [(320, 568), (844, 390)], ids=["smallest", "flat"])
async def test_however_long_a_name_is_everything_can_be_reached(
    size: tuple[int, int], road: Road, open_window: OpenWindow, pg: asyncpg.Connection[Any]
) -> None:
    width, height = size
    await road.product({"ferry": 2, "bus": 4}, price_fen=0)
    await pg.execute("UPDATE products SET name = $1", f"{WORD}{WORD} " * 2 + "海岛一日" * 9)
    await road.parts.directory.refresh()
    buyer = Buyer(await open_window(None), road)
    await buyer.page.set_viewport_size({"width": width, "height": height})
    await buyer.window.go("/")

    async def fits() -> None:
        assert await buyer.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert await buyer.window.small_targets() == []

    await buyer.choose()
    await fits()
    await buyer.window.picture(f"buyer-long-name-{width}-en", whole=False)
    await buyer.order(0)
    await buyer.is_paid()
    await fits()
    await buyer.tab("My tickets")
    await expect(buyer.page.get_by_role("link", name=re.compile("Show the code"))).to_be_visible()
    await fits()
    await buyer.page.get_by_role("link", name=re.compile("Show the code")).click()
    await expect(buyer.page.locator(".live img")).to_be_visible()
    await fits()
    title = await buyer.title.bounding_box()
    assert title is not None
    assert title["height"] < 80  # the code is what is wanted at a gate
    await buyer.window.picture(f"buyer-long-name-ticket-{width}-en", whole=False)


def newer(place: str, status: str) -> Any:
    """Answers in which `place` (a list, or "" for the answer itself) has a status of tomorrow."""

    async def answer(route: Route) -> None:
        told = await route.fetch()
        body = await told.json()
        for each in body[place] if place else [body]:
            each["status"] = status
        await route.fulfill(response=told, json=body)

    return answer


async def test_an_order_in_a_state_of_tomorrow_is_told_as_it_is(road: Road, open_window: OpenWindow) -> None:
    await road.product(price_fen=0)
    buyer = Buyer(await open_window("/"), road)
    await buyer.page.route("**/orders/*", newer("", "PARTLY_REFUNDED"))
    await buyer.order()

    await expect(buyer.title).to_have_text("This order has changed")
    await expect(buyer.page.locator("main .notice")).to_contain_text("PARTLY_REFUNDED")
    await expect(buyer.page.get_by_text("No payment arrived in time")).to_have_count(0)
    await buyer.window.picture("buyer-order-of-tomorrow-phone-en", whole=False)


async def test_a_ticket_in_a_state_of_tomorrow_shows_no_code(road: Road, open_window: OpenWindow) -> None:
    await road.product(price_fen=0)
    buyer = Buyer(await open_window("/"), road)
    await buyer.order()
    await buyer.is_paid()
    await buyer.page.route("**/my/tickets", newer("tickets", "SUSPENDED"))
    await buyer.tab("My tickets")
    await expect(buyer.page.locator("main .tag")).to_have_text("SUSPENDED")
    await buyer.page.get_by_role("link", name="Details").click()

    await expect(buyer.page.get_by_role("heading", name="This ticket cannot be used")).to_be_visible()
    await expect(buyer.page.locator("main .notice")).to_contain_text("SUSPENDED")
    await expect(buyer.page.locator(".live")).to_have_count(0)
    await buyer.window.picture("buyer-ticket-of-tomorrow-phone-en", whole=False)
