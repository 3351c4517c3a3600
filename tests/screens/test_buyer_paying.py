"""Paying outside WeChat: a code for another phone, WeChat's H5 page, the web cashier, and orders that end otherwise."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Route, expect

from server.dev.wechat import WeChat
from tests.road import Road
from tests.screens.buying import DESKTOP, PHONE, Buyer, Dialog, Mishap, at_the_shop
from tests.screens.conftest import DEVICES, OpenWindow

REFUSED = ["Failed to load resource"]
# Notes when the page asks about an order, and what it still waits for.
ASKED = """
window.asked = [];
window.open = 0;
const plain = window.fetch;
window.fetch = async (url, options) => {
  if (/^\\/orders\\/\\w+(\\/query)?$/.test(url)) window.asked.push([options.method, performance.now()]);
  window.open += 1;
  try {
    const answer = await plain(url, options);
    const text = answer.text.bind(answer);
    answer.text = () => text().finally(() => (window.open -= 1));
    return answer;
  } catch (fault) {
    window.open -= 1;
    throw fault;
  }
};
"""


async def test_an_order_at_a_desktop_is_paid_by_its_code_and_the_page_turns_by_itself(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product({"ferry": 2, "bus": 4}, price_fen=12_800)
    for phone, lang in DEVICES:
        await paid_by_its_code(road, open_window, dialog, phone=phone, lang=lang)


async def paid_by_its_code(
    road: Road, open_window: OpenWindow, dialog: Dialog, *, phone: bool, lang: str
) -> None:
    """On a screen of this size, in this language."""
    size = "phone" if phone else "desktop"
    buyer = await at_the_shop(open_window, road, agent=DESKTOP, phone=phone, lang=lang)
    window = buyer.window
    answers: list[dict[str, Any]] = []

    async def note(route: Route) -> None:
        answer = await route.fetch()
        answers.append(await answer.json())
        await route.fulfill(response=answer)

    await buyer.page.route("**/orders", note)
    await buyer.order(2)
    await expect(buyer.page.locator(".scan img")).to_be_visible()
    await expect(buyer.page.locator(".left")).to_contain_text(re.compile(r"14:\d\d"))
    await window.picture(f"buyer-native-{size}-{lang}", whole=False)
    assert await window.contrast_faults() == []
    assert await window.unlabelled() == []
    assert await window.small_targets() == []
    assert await window.focus_is_visible() == []

    assert await dialog.pay({"code_url": answers[0]["payPayload"]["codeUrl"]}) == "requestPayment:ok"
    await buyer.is_paid(by_itself=phone)
    await expect(buyer.page.get_by_role("link", name=re.compile("Show the code|出示票码"))).to_have_count(2)
    await expect(buyer.title).to_be_focused()
    await window.picture(f"buyer-paid-{size}-{lang}", whole=False)
    assert await window.contrast_faults() == []
    assert await window.small_targets() == []


async def test_a_code_that_is_looked_at_again_is_there_again(road: Road, open_window: OpenWindow) -> None:
    await road.product()
    buyer = await at_the_shop(open_window, road, agent=DESKTOP, phone=False)
    await buyer.order()
    await expect(buyer.page.locator(".scan img")).to_be_visible()
    await buyer.page.reload()

    await expect(buyer.page.locator(".scan img")).to_be_visible()


async def test_the_order_is_looked_at_every_3_s_and_wechat_asked_every_6_s_while_the_page_is_seen(
    road: Road, open_window: OpenWindow
) -> None:
    await road.product()
    buyer = await at_the_shop(open_window, road, agent=DESKTOP, phone=False, scripts=ASKED, clock=True)
    await buyer.order()
    await expect(buyer.page.locator(".scan img")).to_be_visible()
    await buyer.window.stop_the_clock()

    async def all_answered() -> None:
        while await buyer.page.evaluate("window.open"):
            await asyncio.sleep(0.01)

    async def passes(quarters: int) -> dict[str, list[float]]:
        """So many quarters of a second by the page's clock, and each answer has come; when it asked, by how."""
        for _ in range(quarters):
            await buyer.page.clock.run_for(250)
            await all_answered()
        asked = await buyer.page.evaluate("window.asked")
        return {how: [at for how_, at in asked if how_ == how] for how in ("GET", "POST")}

    await all_answered()
    await buyer.page.evaluate("window.asked = []")
    at = await passes(60)
    pauses = {how: [later - sooner for sooner, later in pairwise(at[how])] for how in ("GET", "POST")}
    assert len(pauses["GET"]) >= 3 and pauses["GET"] == [pytest.approx(3_000, abs=251)] * len(pauses["GET"])
    assert len(pauses["POST"]) >= 1 and pauses["POST"] == [pytest.approx(6_000, abs=251)] * len(
        pauses["POST"]
    )
    await buyer.tab("My tickets")
    assert await passes(60) == at


async def test_looking_ends_after_ten_minutes_and_goes_on_when_asked(
    road: Road, open_window: OpenWindow
) -> None:
    await road.product()
    window = await open_window(None, agent=DESKTOP, phone=False)
    await window.page.clock.install()
    await window.go("/")
    buyer = Buyer(window, road)
    await buyer.order()
    await expect(buyer.page.locator(".scan img")).to_be_visible()
    asked = Mishap()
    await buyer.page.clock.fast_forward("10:01")
    await expect(buyer.page.get_by_role("heading", name="No longer checking by itself")).to_be_visible()
    await buyer.page.route("**/orders/**", asked)
    await buyer.page.clock.fast_forward("01:00")
    assert asked.requests == []
    await buyer.page.get_by_role("button", name="I have paid: check again").click()

    await expect(buyer.page.locator("main").get_by_text("no payment has arrived yet")).to_be_visible()
    assert len(asked.requests) >= 1


async def test_a_phone_pays_on_wechats_page_which_learns_where_the_buyer_comes_from(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product(price_fen=12_800)
    buyer = await at_the_shop(open_window, road, agent=PHONE)
    buyer.window.visits = [dialog.url]
    buyer.window.expected = REFUSED  # WeChat's page has no icon
    await buyer.order()
    link = buyer.page.get_by_role("link", name="Open WeChat to pay ¥128.00")
    await expect(link).to_be_visible()
    await buyer.window.picture("buyer-h5-phone-en", whole=False)
    url = await link.get_attribute("href")
    async with buyer.page.expect_request(lambda request: request.url.startswith(dialog.url)) as visit:
        await link.click()

    assert (await (await visit.value).all_headers())["referer"] == road.url
    assert await dialog.pay({"h5_url": url}) == "requestPayment:ok"
    await buyer.page.go_back()
    await buyer.is_paid()


async def test_the_web_cashier_can_be_chosen_and_opens_beside_the_page(
    road: Road, open_window: OpenWindow
) -> None:
    await road.product()
    buyer = await at_the_shop(open_window, road, agent=DESKTOP, phone=False)
    await buyer.order()
    await buyer.page.get_by_role("button", name="Pay at the web cashier instead").click()
    link = buyer.page.get_by_role("link", name="Pay ¥10.00 at the cashier")
    await expect(link).to_be_visible()
    await buyer.window.picture("buyer-hosted-desktop-en", whole=False)
    await buyer.page.get_by_role("button", name="Pay with WeChat instead").click()
    await expect(buyer.page.locator(".scan img")).to_be_visible()
    await buyer.page.get_by_role("button", name="Pay at the web cashier instead").click()
    async with buyer.window.context.expect_page() as opened:
        await link.click()
    await expect(
        buyer.page.get_by_role("heading", name="Finish paying in the window that opened")
    ).to_be_visible()
    await buyer.window.picture("buyer-launched-desktop-en", whole=False)
    await (await opened.value).get_by_role("button", name="Pay").first.click()

    await buyer.page.bring_to_front()
    await buyer.is_paid()


async def test_what_is_free_is_a_ticket_at_once(road: Road, open_window: OpenWindow) -> None:
    await road.product({"bus": 2}, price_fen=0)
    buyer = await at_the_shop(open_window, road)
    await buyer.order()

    await buyer.is_paid()
    await expect(buyer.page.get_by_role("link", name="Show the code")).to_be_visible()


async def test_an_order_is_cancelled_only_after_a_second_thought(road: Road, open_window: OpenWindow) -> None:
    await road.product()
    buyer = await at_the_shop(open_window, road, agent=DESKTOP, phone=False)
    await buyer.order()
    await buyer.page.get_by_role("button", name="Cancel the order").click()
    await buyer.page.get_by_role("button", name="Keep it").click()
    await buyer.page.get_by_role("button", name="Cancel the order").click()
    await buyer.window.picture("buyer-cancel-desktop-en", whole=False)
    await buyer.page.get_by_role("button", name="Yes, cancel").click()

    await expect(buyer.title).to_have_text("This order is cancelled")
    await expect(buyer.page.locator("main").get_by_text("Nothing was charged")).to_be_visible()


async def test_a_cancellation_whose_answer_is_lost_is_tried_again_and_nothing_is_paid(
    road: Road, open_window: OpenWindow
) -> None:
    await road.product()
    buyer = await at_the_shop(open_window, road, agent=DESKTOP, phone=False)
    buyer.window.expected = REFUSED
    await buyer.order()
    mishap = Mishap()
    mishap.cut = True
    await buyer.page.route("**/cancel", mishap)
    await buyer.page.get_by_role("button", name="Cancel the order").click()
    await buyer.page.get_by_role("button", name="Yes, cancel").click()
    again = buyer.page.get_by_role("button", name="Try again")
    await expect(again).to_be_visible()
    mishap.cut = False
    await again.click()

    await expect(buyer.title).to_have_text("This order is cancelled")


async def test_an_order_that_ran_out_of_time_says_so_and_what_was_paid_too_late_is_told_honestly(
    road: Road, open_window: OpenWindow, pg: asyncpg.Connection[Any]
) -> None:
    await road.product()
    buyer = await at_the_shop(open_window, road)
    order = await buyer.order()
    await road.flushed()
    await pg.execute("UPDATE orders SET expires_at = now() - interval '1 second'")
    await expect(buyer.title).to_have_text("This order has timed out")
    await buyer.window.picture("buyer-expired-phone-en", whole=False)
    assert await buyer.window.contrast_faults() == []

    assert (await road.notify(order, 1_000)).status == 200
    await buyer.page.get_by_role("button", name="I have paid: check again").click()
    await expect(buyer.title).to_have_text("Your payment will be refunded")
    await expect(buyer.page.locator("main").get_by_text("no tickets were issued")).to_be_visible()
    await expect(buyer.page.get_by_text(order)).to_be_visible()
    await buyer.window.picture("buyer-refund-phone-en", whole=False)
    assert await buyer.window.contrast_faults() == []


async def test_a_payment_that_could_not_be_prepared_is_tried_again_for_the_same_order(
    road: Road, open_window: OpenWindow, wechat: tuple[WeChat, str]
) -> None:
    await road.product()
    buyer = await at_the_shop(open_window, road, agent=DESKTOP, phone=False)
    buyer.window.expected = REFUSED
    for _ in range(9):
        wechat[0].fail_next("native", "dropped")
    await buyer.order()
    await expect(buyer.page.get_by_role("heading", name="The payment system does not answer")).to_be_visible()
    await buyer.window.picture("buyer-unavailable-desktop-en", whole=False)
    again = buyer.page.get_by_role("button", name="Try again")
    await again.click()
    async with asyncio.timeout(60):
        while not await buyer.page.locator(".scan img").is_visible():
            if await again.is_visible():
                await again.click()
            await asyncio.sleep(0.1)

    await expect(buyer.page.locator(".scan img")).to_be_visible()


async def test_a_lost_network_while_paying_is_told_and_passes_by_itself(
    road: Road, open_window: OpenWindow, dialog: Dialog
) -> None:
    await road.product()
    buyer = await at_the_shop(open_window, road, agent=DESKTOP, phone=False)
    buyer.window.expected = REFUSED
    order = await buyer.order()
    mishap = Mishap()
    mishap.cut = True
    await buyer.page.route("**/orders/**", mishap)
    await expect(buyer.page.get_by_role("heading", name="No answer came")).to_be_visible()
    assert (await road.notify(order, 1_000)).status == 200
    mishap.cut = False

    await buyer.is_paid(by_itself=True)
    await expect(buyer.page.get_by_role("heading", name="No answer came")).to_have_count(0)


async def test_an_order_of_somebody_else_is_not_shown(road: Road, open_window: OpenWindow) -> None:
    made = await road.order({await road.product(): 1}, buyer="somebody-else")
    window = await open_window(None)
    window.expected = REFUSED
    await window.go(f"/#/order/{made.json['order_id']}")

    await expect(window.page.get_by_role("heading", name="There is no such order")).to_be_visible()
