"""The shop window: what there is, how many, and one order however often a button is tapped or an answer is lost."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from playwright.async_api import expect

from tests.conftest import Audit
from tests.road import Road
from tests.screens.buying import Buyer, Mishap, at_the_shop
from tests.screens.conftest import DEVICES, OpenWindow

LOST = ["Failed to load resource"]


async def orders(pg: asyncpg.Connection[object]) -> int:
    return int(await pg.fetchval("SELECT count(*) FROM orders"))


async def fill_the_shop(road: Road) -> None:
    await road.product({"ferry": 2, "bus": 4, "museum": 1}, price_fen=12_800)
    await road.product({"ferry": 2}, price_fen=6_000, sellable=12)
    await road.product({"bus": 2}, price_fen=0)


async def test_the_shop_window_can_be_read_and_used_by_everyone(road: Road, open_window: OpenWindow) -> None:
    await fill_the_shop(road)
    await road.product({"museum": 1}, price_fen=4_500, sellable=0)
    for phone, lang in DEVICES:
        window = await open_window("/", phone=phone, lang=lang)
        buyer = Buyer(window, road)
        await buyer.choose(2)
        await window.picture(f"buyer-shop-{'phone' if phone else 'desktop'}-{lang}", whole=not phone)

        assert await window.contrast_faults() == []
        assert await window.unlabelled() == []
        assert await window.small_targets() == []
        assert await window.focus_is_visible() == []
        assert await window.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_a_card_says_what_is_in_the_package_what_it_costs_and_what_is_left(
    road: Road, open_window: OpenWindow
) -> None:
    await fill_the_shop(road)
    page = (await open_window("/")).page
    cards = page.locator(".product")

    await expect(cards).to_have_count(3)
    await expect(cards.nth(0)).to_contain_text(
        re.compile("¥128.00.*Ferry crossing2 ×.*Bus ride4 ×.*Plenty left")
    )
    await expect(cards.nth(1)).to_contain_text("Only 12 left")
    await expect(cards.nth(2)).to_contain_text("Free")


async def test_what_cannot_be_bought_now_says_why_and_has_no_stepper(
    road: Road, open_window: OpenWindow
) -> None:
    now = datetime.now(UTC)
    await road.product({"bus": 1}, sellable=0)
    await road.product({"bus": 1}, sale_start_at=now + timedelta(days=1))
    await road.product({"bus": 1}, sale_end_at=now - timedelta(days=1))
    page = (await open_window("/")).page

    for at, words in enumerate(["Sold out", "On sale from", "No longer on sale"]):
        await expect(page.locator(".product").nth(at)).to_contain_text(words)
    await expect(page.get_by_role("button", name=re.compile("One more"))).to_have_count(0)


async def test_a_devices_wrong_clock_does_not_close_the_shop(road: Road, open_window: OpenWindow) -> None:
    await road.product({"bus": 1}, sale_end_at=datetime.now(UTC) + timedelta(hours=1))
    window = await open_window(None)
    await window.page.clock.set_system_time(datetime.now(UTC) + timedelta(days=400))
    await window.go("/")

    await expect(window.page.get_by_role("button", name=re.compile("One more"))).to_be_visible()


async def test_an_empty_shop_says_so(road: Road, open_window: OpenWindow) -> None:
    window = await open_window("/")
    await expect(window.page.get_by_text("Nothing is on sale right now")).to_be_visible()
    await window.picture("buyer-shop-empty-phone-en", whole=False)


async def test_no_more_can_be_chosen_than_is_left_and_the_choice_outlives_a_reload(
    road: Road, open_window: OpenWindow
) -> None:
    await road.product({"bus": 1}, price_fen=1_000, sellable=2)
    buyer = Buyer(await open_window("/"), road)
    await buyer.choose(2)
    more = buyer.page.get_by_role("button", name=re.compile("One more"))
    await expect(more).to_be_disabled()
    await more.click(force=True)
    await expect(buyer.page.locator(".basket")).to_contain_text("2 tickets¥20.00")

    await buyer.page.reload()
    await expect(buyer.page.locator(".basket")).to_contain_text("2 tickets¥20.00")


async def test_products_are_ordered_together(
    road: Road, open_window: OpenWindow, pg: asyncpg.Connection[object]
) -> None:
    await fill_the_shop(road)
    buyer = Buyer(await open_window("/"), road)
    for at in (0, 1, 1):
        await buyer.page.get_by_role("button", name=re.compile("One more")).nth(at).click()
    await buyer.order(0)

    await expect(buyer.page.locator(".amount")).to_contain_text("¥248.00")
    await expect(buyer.title).to_be_focused()
    await road.flushed()
    assert [tuple(row) for row in await pg.fetch("SELECT qty FROM order_lines ORDER BY product_id")] == [
        (1,),
        (2,),
    ]


async def test_a_double_tap_makes_one_order(
    road: Road, open_window: OpenWindow, pg: asyncpg.Connection[object]
) -> None:
    await road.product()
    buyer = Buyer(await open_window("/"), road)
    await buyer.choose()
    await buyer.page.locator(".basket button").evaluate("(button) => { button.click(); button.click(); }")
    await buyer.page.wait_for_url(re.compile("#/order/"))
    await road.flushed()

    assert await orders(pg) == 1


async def test_a_lost_answer_is_asked_for_again_under_the_same_key(
    road: Road, open_window: OpenWindow, pg: asyncpg.Connection[object], audit: Audit
) -> None:
    await road.product()
    buyer = Buyer(await open_window("/"), road)
    buyer.window.expected = LOST
    mishap = Mishap()
    mishap.lose_answers = 1
    await buyer.page.route("**/orders", mishap)
    await buyer.order()

    assert len({request.headers["idempotency-key"] for request in mishap.requests}) == 1
    assert len(mishap.requests) == 2
    await road.flushed()
    assert await orders(pg) == 1
    await audit(road)


async def test_an_answer_that_is_lost_with_the_page_is_asked_for_by_the_next_one(
    road: Road, open_window: OpenWindow, pg: asyncpg.Connection[object]
) -> None:
    await road.product()
    buyer = Buyer(await open_window("/"), road)
    buyer.window.expected = LOST
    mishap = Mishap()
    mishap.lose_answers = 9
    await buyer.page.route("**/orders", mishap)
    await buyer.choose()
    await buyer.page.locator(".basket button").click()
    await expect(buyer.page.get_by_role("heading", name="No answer came")).to_be_visible()
    await buyer.window.picture("buyer-unanswered-phone-en", whole=False)

    await expect(buyer.page.locator(".basket")).to_be_hidden()  # no second order beside the first
    await buyer.page.unroute("**/orders")
    await buyer.page.reload()
    await expect(buyer.page.get_by_role("heading", name="Your last order was not answered")).to_be_visible()
    await buyer.page.get_by_role("button", name="Go on").click()
    await buyer.page.wait_for_url(re.compile("#/order/"))
    await road.flushed()

    assert await orders(pg) == 1


async def test_an_order_of_yesterday_is_not_asked_for_any_more(road: Road, open_window: OpenWindow) -> None:
    """By then the server has forgotten its key, and would make another order of it."""
    await road.product()
    buyer = Buyer(await open_window("/"), road)
    keep = """(hours) => localStorage.setItem("gateline.buyer.purchase", JSON.stringify(
        {key: "key-of-yesterday", items: [{product_id: 1, qty: 1}], at_ms: Date.now() - hours * 3600000}))"""
    missed = buyer.page.get_by_role("heading", name="Your last order was not answered")
    await buyer.page.evaluate(keep, 22)
    await buyer.page.reload()
    await expect(missed).to_be_visible()

    await buyer.page.evaluate(keep, 24)
    await buyer.page.reload()
    await buyer.choose()
    await expect(buyer.page.locator(".basket")).to_be_visible()
    await expect(missed).to_be_hidden()


async def test_what_was_sold_meanwhile_is_told_and_the_choice_is_made_smaller(
    road: Road, open_window: OpenWindow
) -> None:
    product = await road.product({"bus": 1}, sellable=3)
    buyer = await at_the_shop(open_window, road, clock=True)
    buyer.window.expected = LOST
    await buyer.choose(3)
    async with buyer.page.expect_response("**/catalog"):  # else the page may see by itself what was sold
        await buyer.window.stop_the_clock()
    await road.buy({product: 2}, buyer="somebody-else")
    await buyer.page.locator(".basket button").click()
    await buyer.page.clock.resume()

    await expect(buyer.page.locator(".notice")).to_contain_text("Not enough tickets are left")
    await expect(buyer.page.locator(".notice")).to_contain_text("1 left")
    await expect(buyer.page.locator(".basket")).to_contain_text("1 ticket")
    await buyer.window.picture("buyer-sold-out-phone-en", whole=False)
    await buyer.order(0)


async def test_without_network_the_shop_says_so_and_opens_by_itself_when_it_is_back(
    road: Road, open_window: OpenWindow
) -> None:
    await road.product()
    window = await open_window(None)
    window.expected = LOST
    mishap = Mishap()
    mishap.cut = True
    await window.page.route("**/catalog", mishap)
    await window.go("/")
    await expect(window.page.get_by_role("heading", name="No answer came")).to_be_visible()
    mishap.cut = False
    await window.page.get_by_role("button", name="Try again").click()

    await expect(window.page.locator(".product")).to_be_visible()


async def test_orders_are_listed_with_what_became_of_them_page_by_page(
    road: Road, open_window: OpenWindow
) -> None:
    product = await road.product(sellable=100)
    buyer = await at_the_shop(open_window, road)
    await buyer.tab("Orders")
    await expect(buyer.page.get_by_text("No orders yet")).to_be_visible()
    name = await buyer.page.evaluate("JSON.parse(localStorage.getItem('gateline.buyer.name'))")
    made = [await road.order({product: 1}, buyer=name) for _ in range(23)]
    assert [answer.status for answer in made] == [201] * 23
    await road.notify(made[0].json["order_id"], 1_000)
    await road.flushed()
    await buyer.page.reload()

    await expect(buyer.page.locator(".whole")).to_have_count(20)
    await buyer.page.get_by_role("button", name="Show more").click()
    await expect(buyer.page.locator(".whole")).to_have_count(23)
    await expect(buyer.page.get_by_text("Paid", exact=True)).to_have_count(1)
    await buyer.window.picture("buyer-orders-phone-en", whole=False)
    assert await buyer.window.contrast_faults() == []
    assert await buyer.window.small_targets() == []


@pytest.mark.parametrize("lang", ["zh", "en"])
async def test_on_the_smallest_phone_no_view_is_wider_than_the_screen(
    lang: str, road: Road, open_window: OpenWindow
) -> None:
    await road.product({"ferry": 2, "bus": 4, "museum": 1}, price_fen=0)
    await road.product({"ferry": 2}, price_fen=1_234_500)
    buyer = Buyer(await open_window("/", lang=lang), road)
    await buyer.page.set_viewport_size({"width": 360, "height": 640})
    wide = "document.documentElement.scrollWidth > innerWidth"
    await buyer.choose()
    assert not await buyer.page.evaluate(wide)
    await buyer.order(0)
    await buyer.is_paid()
    assert not await buyer.page.evaluate(wide)
    await buyer.page.get_by_role("link", name=re.compile("Show the code|出示票码")).click()
    await expect(buyer.page.locator(".live img")).to_be_visible()
    assert not await buyer.page.evaluate(wide)
    code = await buyer.page.locator(".live img").bounding_box()
    assert code is not None
    assert code["width"] >= 300
    assert code["y"] + code["height"] < 640 - 57  # above the tabs, without scrolling
    await buyer.window.picture(f"buyer-ticket-small-{lang}", whole=False)

    await buyer.page.get_by_role("link", name=re.compile("^(Buy|购票)$")).click()
    await buyer.page.get_by_role("button", name=re.compile("One more|增加")).nth(1).click()
    await buyer.order(0)
    await expect(buyer.page.locator(".amount")).to_contain_text("12,345")
    assert not await buyer.page.evaluate(wide)
