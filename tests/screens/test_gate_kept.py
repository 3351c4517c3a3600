"""What the gate keeps on its device: never too much, never for the wrong person, and never counted twice."""

from __future__ import annotations

import asyncio
import time

from playwright.async_api import expect

from tests.road import Road
from tests.screens.at_the_gate import NO_NETWORK, Gate, Line, on_duty, successes, tokens, tries_now
from tests.screens.buying import PATIENCE_S
from tests.screens.conftest import OpenWindow


async def test_an_answer_after_twenty_seconds_is_listed_since_somebody_else_may_stand_there(
    road: Road, open_window: OpenWindow
) -> None:
    [token] = await tokens(road, 1)
    gate = await on_duty(open_window, road, still=True)
    gate.window.expected = [*NO_NETWORK]
    line = Line()
    line.lose_answers = 99
    await gate.page.route("**/venue/scan", line)
    await gate.present(token)
    await gate.page.clock.fast_forward(4_000)
    await expect(gate.word).to_have_text("NOT DECIDED")
    faces = await gate.watch_faces()

    await gate.page.clock.fast_forward(17_000)
    line.lose_answers = 0
    await gate.page.clock.resume()

    await expect(gate.page.locator(".late.go")).to_contain_text("LET IN")
    await expect(gate.word).to_be_hidden()
    assert "go" not in await faces()


async def test_a_full_device_takes_no_more_scans_and_says_so(road: Road, open_window: OpenWindow) -> None:
    gate = await on_duty(open_window, road)
    gate.window.expected = [*NO_NETWORK]
    line = Line()
    line.cut = True
    await gate.page.route("**/venue/scan", line)
    await gate.keep([{"scan_id": f"s-{n}", "qr_token": f"T{n}"} for n in range(500)])
    line.sent.clear()

    await gate.present("ONE-TOO-MANY")

    await expect(gate.page.locator(".verdict.wait")).to_contain_text("Too many scans are waiting (500)")
    assert len(await gate.waiting()) == 500
    assert "ONETOOMANY" not in [sent["qr_token"] for sent in line.sent]


async def test_a_scan_of_yesterday_is_not_asked_for_any_more_and_that_is_told(
    road: Road, open_window: OpenWindow
) -> None:
    gate = await on_duty(open_window, road)
    line = Line()
    await gate.page.route("**/venue/scan", line)
    yesterday_ms = (time.time() - 25 * 3600) * 1000

    await gate.keep([{"scan_id": "s-1", "qr_token": "OLD", "at": yesterday_ms}])
    await gate.page.reload()

    await expect(gate.late).to_contain_text("not asked any more")
    assert await gate.waiting() == []
    assert line.sent == []


async def test_all_late_answers_are_counted_also_those_for_which_the_list_has_no_room(
    road: Road, open_window: OpenWindow
) -> None:
    codes = await tokens(road, 20)
    gate = await on_duty(open_window, road)
    gate.window.expected = [*NO_NETWORK]
    await gate.window.context.set_offline(True)
    await expect(gate.banner).to_be_visible()
    now = time.time() * 1000
    await gate.keep([{"scan_id": f"s-{n}", "qr_token": codes[n % 20], "at": now + n} for n in range(110)])

    await gate.window.context.set_offline(False)

    await gate.page.wait_for_function(
        "() => localStorage.getItem('gateline.gate.queue') === '[]'", timeout=60_000
    )
    await expect(gate.page.locator(".lates")).to_contain_text("20 let in · 90 refused")
    await expect(gate.late).to_have_count(100)
    assert [await gate.tile("Let in"), await gate.tile("Refused")] == [20, 90]
    await gate.page.get_by_role("button", name="Got it, clear").click()
    await expect(gate.late).to_have_count(0)
    assert await gate.page.evaluate("() => localStorage.getItem('gateline.gate.late.sum')") is None


async def test_two_windows_of_one_device_send_and_count_each_scan_once(
    road: Road, open_window: OpenWindow
) -> None:
    first, second = await tokens(road, 2)
    gate = await on_duty(
        open_window, road, still=True
    )  # of both windows: else the visitor may be gone meanwhile
    gate.window.expected = [*NO_NETWORK]
    line = Line()
    line.cut = True
    await gate.window.context.route("**/venue/scan", line)
    await gate.present(first)
    await gate.present(second)
    page = await gate.window.context.new_page()
    await page.goto(gate.window.origin + "/gate")
    await expect(page.locator(".where h1")).to_be_visible()
    async with asyncio.timeout(PATIENCE_S):
        while not await page.locator(".banner").is_visible():
            await tries_now(page)
    await expect(page.locator(".banner")).to_contain_text("2 waiting")

    await asyncio.gather(line.mend(gate.page), line.mend(page))

    await expect(page.locator(".late")).not_to_have_count(0)
    await expect(gate.word).to_have_text("LET IN")  # told again to the window where the visitor stands
    await gate.page.clock.resume()
    await expect(page.locator(".banner")).to_be_hidden()
    await gate.page.keyboard.press("Escape")
    await expect(gate.page.locator(".tile.go dd")).to_have_text("2")
    await expect(page.locator(".tile.go dd")).to_have_text("2")
    assert len(await successes(road)) == 2


async def test_a_window_that_saves_nothing_says_so_and_works(road: Road, open_window: OpenWindow) -> None:
    [token] = await tokens(road, 1)
    window = await open_window("/gate")
    await window.context.add_init_script(
        "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }"
    )
    await window.page.reload()
    gate = await on_duty(open_window, road, window=window)

    await expect(gate.page.get_by_text("This device saves nothing")).to_be_visible()
    await gate.present(token)

    await expect(gate.word).to_have_text("LET IN")
    assert await gate.tile("Let in") == 1


async def test_the_shift_is_counted_over_reloads_until_it_is_ended(
    road: Road, open_window: OpenWindow
) -> None:
    first, second = await tokens(road, 2)
    gate = await on_duty(open_window, road, still=True)
    for code in (first, second, first, first, "NO-TICKET-AT-ALL"):
        await gate.present(code)
        await expect(
            gate.page.locator(".verdict.go, .verdict.stop")
        ).to_be_visible()  # decided, and not "checking"

    await gate.page.reload()

    await expect(gate.page.locator(".tile.go dd")).to_have_text("2")
    await expect(gate.page.locator(".tile.stop dd")).to_have_text("3")
    assert [await gate.tile("Last minute"), await gate.tile("Per minute")] == [5, 5]
    reasons = gate.page.locator(".reasons > div")
    await expect(reasons).to_have_text(["This code was used already2", "This is not a ticket's code1"])
    await end_shift(gate)
    await expect(gate.page.get_by_role("heading", name="Gate login")).to_be_visible()
    await expect(gate.page.locator("#password")).to_be_focused()
    await gate.log_in()
    await expect(gate.page.locator(".where h1")).to_be_visible()
    assert [await gate.tile("Let in"), await gate.tile("Refused")] == [0, 0]


async def test_a_scan_during_a_question_is_not_hidden_by_it(road: Road, open_window: OpenWindow) -> None:
    [token] = await tokens(road, 1)
    gate = await on_duty(open_window, road, still=True)
    await gate.page.get_by_role("button", name="End shift").click()
    await expect(gate.page.locator("dialog")).to_be_visible()

    await gate.present(token)

    await expect(gate.word).to_have_text("LET IN")
    await expect(gate.page.locator("dialog")).to_be_hidden()
    assert await gate.on_top(gate.word)


async def end_shift(gate: Gate) -> None:
    """Presses it, and means it."""
    await gate.page.get_by_role("button", name="End shift").click()
    await gate.page.locator("dialog").get_by_role("button", name="End shift").click()
