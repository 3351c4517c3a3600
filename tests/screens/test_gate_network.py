"""Answers that are lost, networks that are gone, servers that cannot decide: the gate never says yes by itself."""

from __future__ import annotations

from aiohttp import web
from playwright.async_api import Route, expect

from tests.conftest import Audit
from tests.road import Road
from tests.screens.at_the_gate import NO_NETWORK, Line, on_duty, successes, tokens
from tests.screens.conftest import OpenWindow


async def test_a_lost_answer_is_asked_for_again_and_one_use_is_spent(
    road: Road, open_window: OpenWindow, audit: Audit
) -> None:
    [token] = await tokens(road, 1)
    gate = await on_duty(open_window, road, still=True)
    gate.window.expected = [*NO_NETWORK]
    line = Line()
    line.lose_answers = 2
    await gate.page.route("**/venue/scan", line)
    faces = await gate.watch_faces()

    async with gate.page.expect_event("requestfailed"):
        await gate.present(token)
    await gate.step_until(lambda: len(line.sent) == 2)
    await expect(gate.word).to_have_text("NOT DECIDED")
    await gate.step_until(lambda: len(line.sent) == 3)

    await expect(gate.word).to_have_text("LET IN")
    assert len(line.sent) == 3
    assert len({sent["scan_id"] for sent in line.sent}) == 1
    assert set(await faces()) == {"wait", "go"}  # a refusal was never shown
    [row] = await successes(road)
    assert row["scan_id"] == line.sent[0]["scan_id"]
    assert await gate.waiting() == []
    assert await gate.tile("Let in") == 1
    await audit(road)


async def test_an_answer_that_does_not_come_is_not_decided_after_three_seconds(
    road: Road, open_window: OpenWindow
) -> None:
    [token] = await tokens(road, 1)
    gate = await on_duty(open_window, road, still=True)
    gate.window.expected = [*NO_NETWORK]

    async def hang(route: Route) -> None:
        """Neither goes out nor fails."""

    await gate.page.route("**/venue/scan", hang)

    await gate.present(token)

    await expect(gate.word).to_have_text("CHECKING")
    await gate.page.clock.fast_forward(3_000)
    await expect(gate.word).to_have_text("NOT DECIDED")
    await expect(gate.page.locator(".verdict")).to_contain_text("Do not let in yet")
    await gate.page.unroute("**/venue/scan")
    await gate.page.clock.resume()
    await expect(gate.word).to_have_text("LET IN")


async def test_without_network_nobody_overlooks_it_and_nothing_turns_green(
    road: Road, open_window: OpenWindow
) -> None:
    [token] = await tokens(road, 1)
    gate = await on_duty(open_window, road)
    gate.window.expected = [*NO_NETWORK]
    faces = await gate.watch_faces()

    await gate.window.context.set_offline(True)

    await expect(gate.banner).to_contain_text("No network")
    assert await gate.banner.get_attribute("aria-live") == "assertive"
    box = await gate.banner.bounding_box()
    assert box is not None
    assert box["width"] == 390
    await gate.present(token)
    await expect(gate.word).to_have_text("NOT DECIDED")
    await expect(gate.banner).to_contain_text("1 waiting")
    await expect(gate.banner).to_be_in_viewport()
    assert await gate.on_top(gate.banner)
    assert set(await faces()) == {"wait"}


async def test_the_scan_of_who_still_stands_there_is_shown_large_when_the_network_is_back(
    road: Road, open_window: OpenWindow
) -> None:
    [token] = await tokens(road, 1)
    gate = await on_duty(open_window, road, still=True)
    gate.window.expected = [*NO_NETWORK]
    await gate.window.context.set_offline(True)
    await gate.present(token)
    await expect(gate.word).to_have_text("NOT DECIDED")

    await gate.window.context.set_offline(False)

    await expect(gate.word).to_have_text("LET IN")
    await expect(gate.banner).to_be_hidden()
    assert len(await successes(road)) == 1


async def test_scans_that_waited_go_out_in_order_and_are_listed_not_shown(
    road: Road, open_window: OpenWindow
) -> None:
    first, second, third = await tokens(road, 3)
    [short] = await tokens(road, 1, over=True)
    gate = await on_duty(open_window, road, still=True)
    gate.window.expected = [*NO_NETWORK]
    line = Line()
    line.cut = True
    await gate.page.route("**/venue/scan", line)
    for token in (first, short, second, third):
        await gate.present(token)
    await expect(gate.banner).to_contain_text("4 waiting")

    line.sent.clear()
    await line.mend(gate.page)

    await expect(gate.late).to_have_count(3)  # the last one still stands there
    await expect(gate.word).to_have_text("LET IN")
    assert [sent["qr_token"] for sent in line.sent] == [first, short, second, third]
    await gate.page.keyboard.press("Escape")
    await expect(gate.page.locator(".late.go")).to_have_count(2)
    refused = gate.page.locator(".late.stop")
    await expect(refused).to_contain_text("REFUSED")
    await expect(refused).to_contain_text("That is expected")
    assert await gate.tile("Let in") == 3
    assert await gate.tile("Refused") == 1
    await gate.page.get_by_role("button", name="Got it, clear").click()
    await expect(gate.late).to_have_count(0)
    assert len(await successes(road)) == 3


async def test_what_waits_survives_a_reload_with_its_number(road: Road, open_window: OpenWindow) -> None:
    [token] = await tokens(road, 1)
    gate = await on_duty(open_window, road)
    gate.window.expected = [*NO_NETWORK]
    line = Line()
    line.lose_answers = 99
    await gate.page.route("**/venue/scan", line)
    await gate.present(token)
    await expect(gate.word).to_have_text("NOT DECIDED")
    [kept] = await gate.waiting()

    await gate.page.reload()
    await expect(gate.banner).to_contain_text("1 waiting")
    await line.mend(gate.page)

    await expect(gate.page.locator(".late.go")).to_contain_text("LET IN")
    assert {sent["scan_id"] for sent in line.sent} == {kept["scan_id"]}
    assert len(await successes(road)) == 1
    await expect(gate.word).to_be_hidden()  # nobody knows who stands there now


async def test_the_same_code_held_up_again_while_it_waits_is_the_same_scan(
    road: Road, open_window: OpenWindow
) -> None:
    [token] = await tokens(road, 1)
    gate = await on_duty(open_window, road)
    gate.window.expected = [*NO_NETWORK]
    line = Line()
    line.lose_answers = 99
    await gate.page.route("**/venue/scan", line)
    await gate.present(token)
    await expect(gate.word).to_have_text("NOT DECIDED")

    await gate.present(token)
    await expect(gate.word).to_have_text("NOT DECIDED")  # of the second look too
    assert len(await gate.waiting()) == 1
    await gate.stop_the_watch()
    line.lose_answers = 0

    await expect(gate.word).to_have_text("LET IN")
    await gate.present(token)  # a moment too late: its answer is there
    await expect(gate.word).to_have_text("LET IN")
    assert len({sent["scan_id"] for sent in line.sent}) == 1
    assert await gate.tile("Let in") == 1


async def test_a_server_that_cannot_decide_is_told_and_asked_again(
    road: Road, open_window: OpenWindow
) -> None:
    [token] = await tokens(road, 1)
    gate = await on_duty(open_window, road)
    gate.window.expected = [*NO_NETWORK]
    away = True

    async def closed(route: Route) -> None:
        if away:
            await route.fulfill(
                status=503, json={"code": "GATE_CLOSED", "message": "", "request_id": "0" * 32}
            )
        else:
            await route.continue_()

    await gate.page.route("**/venue/scan", closed)

    await gate.present(token)

    await expect(gate.banner).to_contain_text("The server cannot decide")
    await expect(gate.banner).to_contain_text("The server is loading its tickets.")
    await expect(gate.word).to_have_text("NOT DECIDED")
    await gate.stop_the_watch()
    away = False
    await expect(gate.word).to_have_text("LET IN")
    await expect(gate.banner).to_be_hidden()


async def test_what_another_machine_answers_is_no_verdict(road: Road, open_window: OpenWindow) -> None:
    [token] = await tokens(road, 1)
    gate = await on_duty(open_window, road)
    faces = await gate.watch_faces()

    async def portal(route: Route) -> None:
        await route.fulfill(status=200, json={"result": "success"})

    await gate.page.route("**/venue/scan", portal)

    await gate.present(token)

    await expect(gate.word).to_have_text("NOT DECIDED")
    assert set(await faces()) == {"wait"}
    assert len(await gate.waiting()) == 1


async def test_an_answer_that_is_nothing_at_all_is_asked_for_again(
    road: Road, open_window: OpenWindow
) -> None:
    [token] = await tokens(road, 1)
    gate = await on_duty(open_window, road)
    portals = 3

    async def portal(route: Route) -> None:
        nonlocal portals
        portals -= 1
        if portals >= 0:
            await route.fulfill(status=200, body="null", content_type="application/json")
        else:
            await route.continue_()

    await gate.page.route("**/venue/scan", portal)

    await gate.present(token)

    await expect(gate.word).to_have_text("LET IN")
    assert await gate.waiting() == []


async def test_a_scan_that_the_server_will_not_judge_is_neither_yes_nor_no(
    road: Road, open_window: OpenWindow
) -> None:
    gate = await on_duty(open_window, road)
    gate.window.expected = [*NO_NETWORK]

    async def conflict(route: Route) -> None:
        await route.fulfill(
            status=web.HTTPConflict.status_code,
            json={"code": "SCAN_ID_CONFLICT", "message": "", "request_id": "0"},
        )

    await gate.page.route("**/venue/scan", conflict)

    await gate.present("ANYTHING-AT-ALL")

    await expect(gate.page.locator(".verdict.wait")).to_contain_text("Scan again")
    assert await gate.waiting() == []
    assert await gate.tile("Refused") == 0
