"""The ticket at the gate: a code that lives, and a page that notices what becomes of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from playwright.async_api import expect

from server.config import WeChatAccount
from tests.conftest import Serve
from tests.road import Road
from tests.screens.buying import Buyer, Mishap, at_the_shop, read_off
from tests.screens.conftest import DEVICES, OpenWindow

NO_NETWORK = ["Failed to load resource"]
# Counts how often the code is covered, from `watch()` on.
UNCOVERED = """
window.covered = 0;
window.watch = () => {
  const image = document.querySelector(".live img");
  new MutationObserver(() => (window.covered += image.hidden ? 1 : 0)).observe(image, {attributes: true});
};
"""
# The page is put away, and looked at again, when the test says so.
TURN_AWAY = """
let hidden = false;
Object.defineProperty(document, "hidden", {get: () => hidden});
window.turn = (away) => { hidden = away; document.dispatchEvent(new Event("visibilitychange")); };
"""


@pytest.fixture
async def road(request: pytest.FixtureRequest, serve: Serve, account: WeChatAccount, cashier: str) -> Road:
    """A server whose codes are over after a minute, or as soon as a test wants."""
    return await serve(wechat=account, gateway_url=cashier, qr_ttl_s=getattr(request, "param", 60))


async def with_ticket(
    open_window: OpenWindow,
    road: Road,
    functions: dict[str, int],
    *,
    scripts: str = "",
    still: bool = False,
    **more: Any,
) -> tuple[Buyer, str]:
    """A buyer who has just got a ticket, on its page; and its code; `still`: the page's clock stands since it began."""
    options = {name: more.pop(name) for name in ("phone", "lang") if name in more}
    await road.product(functions, price_fen=0, **more)
    buyer = await at_the_shop(open_window, road, scripts=scripts, clock=still, **options)
    buyer.window.expected = NO_NETWORK
    await buyer.order()
    show = buyer.page.get_by_role("link", name=re.compile("Show the code|出示票码"))
    await expect(show).to_be_visible()
    if still:
        await buyer.window.stop_the_clock()
    await show.click()
    await buyer.page.wait_for_url(re.compile("#/ticket/"))
    if still:
        await buyer.begins(buyer.page.locator(".live img"))
    return buyer, buyer.page.url.rpartition("/")[2]


async def shown(buyer: Buyer) -> str:
    """The token on the screen, read off a picture of it."""
    return await read_off(buyer.page, ".live img")


async def passes(road: Road, token: str, function: str) -> str:
    """What a gate says."""
    told = await road.scan(token, function)
    return str(told.json.get("reason") or told.json["result"])


async def test_the_code_on_the_screen_passes_the_gate_and_the_page_turns_to_redeemed_by_itself(
    road: Road, open_window: OpenWindow
) -> None:
    for phone, lang in DEVICES:
        await redeemed_on_the_screen(road, open_window, phone=phone, lang=lang)


async def redeemed_on_the_screen(road: Road, open_window: OpenWindow, *, phone: bool, lang: str) -> None:
    """On a screen of this size, in this language."""
    size = "phone" if phone else "desktop"
    buyer, _ = await with_ticket(open_window, road, {"ferry": 2, "bus": 1}, phone=phone, lang=lang)
    window = buyer.window
    token = await shown(buyer)
    await window.picture(f"buyer-ticket-{size}-{lang}", whole=False)
    assert await window.contrast_faults() == []
    assert await window.unlabelled() == []
    assert await window.small_targets() == []
    assert await window.focus_is_visible() == []
    assert await buyer.page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    assert await passes(road, token, "ferry") == "success"
    redeemed = buyer.page.locator(".stamp")
    await expect(redeemed).to_contain_text({"en": "Redeemed", "zh": "已核销"}[lang])
    await expect(buyer.page.locator(".live")).to_contain_text("Ferry crossing")
    await expect(buyer.page.locator(".live img")).to_be_hidden()
    await window.picture(f"buyer-redeemed-{size}-{lang}", whole=False)
    assert await window.contrast_faults() == []

    await buyer.page.get_by_role("button", name=re.compile("Show the next code|下一次")).click()
    second = await shown(buyer)
    assert second != token
    assert await passes(road, second, "ferry") == "success"


async def test_when_the_last_use_is_spent_the_ticket_is_stamped(road: Road, open_window: OpenWindow) -> None:
    buyer, _ = await with_ticket(open_window, road, {"bus": 1})
    await passes(road, await shown(buyer), "bus")

    await expect(buyer.page.locator(".stamped")).to_contain_text("All used")
    await expect(buyer.page.locator(".live")).to_have_count(0)
    await buyer.window.picture("buyer-all-used-phone-en", whole=False)
    await buyer.tab("My tickets")
    await expect(buyer.page.locator("main .tag")).to_have_text("Used up")
    await buyer.window.picture("buyer-tickets-used-phone-en", whole=False)
    await buyer.page.get_by_role("link", name="Details").click()
    await expect(buyer.page.locator(".stamped")).to_contain_text("All used")


@pytest.mark.parametrize("road", [24], indirect=True)
async def test_the_code_is_renewed_before_it_is_over_and_is_never_a_dead_one(
    road: Road, open_window: OpenWindow
) -> None:
    buyer, _ = await with_ticket(open_window, road, {"bus": 9}, scripts=UNCOVERED, still=True)
    image = buyer.page.locator(".live img")
    old = await shown(buyer)
    assert await passes(road, old, "museum") == "WRONG_FUNCTION"  # and not QR_EXPIRED
    await buyer.page.evaluate("watch()")
    src = await image.get_attribute("src")
    await buyer.page.clock.run_for(17_000)  # a third of its time is left
    await expect(image).not_to_have_attribute("src", src or "")

    new = await shown(buyer)
    assert new != old
    assert await passes(road, new, "museum") == "WRONG_FUNCTION"
    await expect(buyer.page.locator(".live")).to_contain_text(re.compile(r"Good for 2\d s"))
    assert await buyer.page.evaluate("window.covered") == 0


async def test_the_code_is_renewed_again_and_again_and_its_seconds_are_counted(
    road: Road, open_window: OpenWindow
) -> None:
    buyer, _ = await with_ticket(open_window, road, {"bus": 9}, still=True)
    image = buyer.page.locator(".live img")
    for _ in range(3):
        await expect(buyer.page.locator(".live")).to_contain_text(re.compile(r"Good for (60|5\d) s"))
        old = await image.get_attribute("src")
        await buyer.page.clock.fast_forward(30_000)
        await expect(buyer.page.locator(".live")).to_contain_text(re.compile(r"Good for (30|2\d) s"))
        assert await image.get_attribute("src") == old
        await buyer.page.clock.fast_forward(21_000)
        await expect(image).not_to_have_attribute("src", old or "")
    assert await passes(road, await shown(buyer), "bus") == "success"


async def test_without_network_the_code_is_shown_to_its_last_second_then_covered_and_comes_back_by_itself(
    road: Road, open_window: OpenWindow
) -> None:
    buyer, _ = await with_ticket(open_window, road, {"bus": 1}, still=True)
    await shown(buyer)
    await buyer.window.context.set_offline(True)
    await buyer.page.clock.fast_forward(55_000)
    await expect(buyer.page.locator(".live")).to_contain_text("No network: 5 s left")
    await expect(buyer.page.locator(".live img")).to_be_visible()
    await buyer.window.picture("buyer-offline-phone-en", whole=False)
    await buyer.page.clock.fast_forward(10_000)
    await expect(buyer.page.locator(".veil")).to_contain_text("No network: this code is over")
    await expect(buyer.page.locator(".live img")).to_be_hidden()
    await buyer.window.picture("buyer-over-phone-en", whole=False)
    assert await buyer.window.contrast_faults() == []

    await buyer.window.context.set_offline(False)
    await buyer.page.clock.resume()
    assert await passes(road, await shown(buyer), "bus") == "success"


async def test_a_ticket_that_the_device_knows_shows_its_code_though_the_record_is_away(
    road: Road, open_window: OpenWindow
) -> None:
    buyer, _ = await with_ticket(open_window, road, {"bus": 1})
    await shown(buyer)
    away = Mishap()
    away.cut = True
    await buyer.page.route("**/my/tickets", away)
    await buyer.page.reload()

    assert await passes(road, await shown(buyer), "bus") == "success"
    await expect(buyer.page.get_by_text("Shown from this device")).to_be_visible()


async def test_a_page_that_is_seen_again_has_a_fresh_code_at_once(
    road: Road, open_window: OpenWindow
) -> None:
    buyer, _ = await with_ticket(open_window, road, {"bus": 1}, scripts=TURN_AWAY, still=True)
    image = buyer.page.locator(".live img")
    before, dead = await shown(buyer), await image.get_attribute("src")
    asked = Mishap()
    await buyer.page.evaluate("turn(true)")
    await buyer.page.route(re.compile("/(qr|my)/"), asked)
    await buyer.page.clock.fast_forward(61_000)
    await buyer.page.wait_for_timeout(300)
    assert asked.requests == []  # nothing is asked for while nobody looks
    await buyer.page.clock.resume()
    await buyer.page.evaluate("turn(false)")
    await expect(image).not_to_have_attribute("src", dead or "")

    after = await shown(buyer)
    assert after != before
    assert await passes(road, after, "bus") == "success"


async def test_a_page_that_was_away_for_a_moment_does_not_wait_for_the_old_code_to_end(
    road: Road, open_window: OpenWindow
) -> None:
    buyer, _ = await with_ticket(open_window, road, {"bus": 1}, scripts=TURN_AWAY)
    image = buyer.page.locator(".live img")
    await expect(image).to_be_visible()
    young = await image.get_attribute("src")  # by itself it is renewed in 50 s
    await buyer.page.evaluate("turn(true); turn(false)")

    await expect(image).not_to_have_attribute("src", young or "")


async def test_a_server_that_does_not_answer_for_a_while_is_asked_again(
    road: Road, open_window: OpenWindow
) -> None:
    buyer, _ = await with_ticket(open_window, road, {"bus": 1}, still=True)
    await shown(buyer)
    mishap = Mishap()
    mishap.cut = True
    await buyer.page.route("**/qr/**", mishap)
    await buyer.page.clock.fast_forward(61_000)
    await expect(buyer.page.locator(".veil")).to_contain_text("this code is over")
    mishap.cut = False
    await buyer.page.clock.resume()

    assert await passes(road, await shown(buyer), "bus") == "success"


async def test_the_screen_stays_on_while_the_code_is_shown_and_no_longer(
    road: Road, open_window: OpenWindow
) -> None:
    lock = """
      window.locks = 0;
      Object.defineProperty(navigator, "wakeLock", {value: {request: async (kind) => {
        window.locks += kind === "screen" ? 1 : 100;
        return {released: false, release: async function () { this.released = true; window.locks -= 1; }};
      }}});
    """
    buyer, _ = await with_ticket(open_window, road, {"bus": 1}, scripts=lock)
    await expect(buyer.page.get_by_text("The screen stays on")).to_be_visible()
    assert await buyer.page.evaluate("window.locks") == 1
    await buyer.tab("My tickets")
    await expect(buyer.title).to_have_text("My tickets")

    await buyer.page.wait_for_function("window.locks === 0")


async def test_a_code_that_nobody_needs_is_put_away_after_half_an_hour(
    road: Road, open_window: OpenWindow
) -> None:
    await road.product({"bus": 1}, price_fen=0)
    window = await open_window(None)
    await window.page.clock.install()
    await window.go("/")
    buyer = Buyer(window, road)
    await buyer.order()
    await buyer.page.get_by_role("link", name="Show the code").click()
    await expect(buyer.page.locator(".live img")).to_be_visible()
    await window.page.clock.fast_forward("31:00")
    await expect(buyer.page.locator(".veil")).to_contain_text("put away")
    await window.page.clock.resume()
    await buyer.page.get_by_role("button", name="Show the code").click()

    await expect(buyer.page.locator(".live img")).to_be_visible()


async def test_a_void_ticket_says_so_while_it_is_looked_at(
    road: Road, open_window: OpenWindow, pg: asyncpg.Connection[Any]
) -> None:
    buyer, code = await with_ticket(open_window, road, {"bus": 1})
    await shown(buyer)
    await road.flushed()
    await pg.execute("UPDATE tickets SET status = 'VOID' WHERE code = $1", code)
    await road.parts.redis.delete(f"{{s00}}:t:{code}")

    await expect(buyer.page.get_by_role("heading", name="This ticket is void")).to_be_visible()
    await expect(buyer.page.locator(".live")).to_have_count(0)
    await buyer.window.picture("buyer-void-phone-en", whole=False)
    assert await buyer.window.contrast_faults() == []


async def test_a_refused_code_is_explained(
    road: Road, open_window: OpenWindow, pg: asyncpg.Connection[Any]
) -> None:
    buyer, code = await with_ticket(open_window, road, {"bus": 1}, still=True)
    await shown(buyer)
    frozen = await buyer.page.evaluate("localStorage.getItem('gateline.buyer.tickets')")
    await buyer.page.route("**/my/tickets", lambda route: route.abort())
    await road.flushed()
    await pg.execute("UPDATE tickets SET status = 'VOID' WHERE code = $1", code)
    await road.parts.redis.delete(f"{{s00}}:t:{code}")

    await buyer.page.clock.fast_forward(51_000)
    assert frozen
    await expect(buyer.page.locator(".veil")).to_contain_text("This ticket cannot be used")


async def test_a_ticket_whose_validity_ends_says_so_by_itself(
    road: Road, open_window: OpenWindow, pg: asyncpg.Connection[Any]
) -> None:
    now = datetime.now(UTC)
    buyer, _ = await with_ticket(open_window, road, {"bus": 1}, valid_until=now + timedelta(hours=1))
    await shown(buyer)
    await road.flushed()
    await pg.execute("UPDATE tickets SET valid_until = now() + interval '4 seconds'")
    await expect(buyer.page.get_by_role("heading", name="This ticket has expired")).to_be_visible()
    await expect(buyer.page.locator(".live")).to_have_count(0)


async def test_a_ticket_before_its_validity_says_from_when(road: Road, open_window: OpenWindow) -> None:
    buyer, _ = await with_ticket(
        open_window, road, {"bus": 1}, valid_from=datetime.now(UTC) + timedelta(days=1)
    )
    await expect(buyer.page.locator("main .notice")).to_contain_text(
        re.compile("Gates let you in from .*, not before")
    )
    await buyer.window.picture("buyer-soon-phone-en", whole=False)
    await buyer.tab("My tickets")
    await expect(buyer.page.locator("main .tag")).to_have_text("Not valid yet")


async def test_the_wallet_shows_what_can_be_used_first_and_what_is_left(
    road: Road, open_window: OpenWindow
) -> None:
    buyer, _ = await with_ticket(open_window, road, {"bus": 1})
    await passes(road, await shown(buyer), "bus")
    await buyer.tab("Buy")
    await buyer.order()
    await buyer.tab("My tickets")

    await expect(buyer.page.locator("main li.card")).to_have_count(2)
    await expect(buyer.page.locator("main li.card").nth(0)).to_contain_text("1 of 1 left")
    await expect(buyer.page.locator("main li.card").nth(1)).to_contain_text("Used up")
    await buyer.window.picture("buyer-tickets-phone-en", whole=False)
    assert await buyer.window.contrast_faults() == []
    assert await buyer.window.unlabelled() == []
    assert await buyer.window.small_targets() == []
    await buyer.window.context.set_offline(True)
    await expect(buyer.page.get_by_text("Shown from this device")).to_be_visible()
