"""What every screen owes to whoever opens it."""

from __future__ import annotations

from playwright.async_api import expect

from tests.screens.conftest import OpenWindow

SCREENS = ("/", "/gate", "/report")


async def test_a_screen_loads_strictly_and_within_100_kb(open_window: OpenWindow) -> None:
    for path in SCREENS:
        window = await open_window(path)
        await expect(window.page.locator("h1")).to_be_visible()
        await window.page.wait_for_load_state("networkidle")

        assert 10_000 < await window.bytes_loaded() < 100_000, path


async def test_every_module_is_asked_for_at_once_and_not_one_after_the_other(open_window: OpenWindow) -> None:
    for path in SCREENS:
        window = await open_window(path)
        await expect(window.page.locator("h1")).to_be_visible()
        named = await window.page.locator("link[rel=modulepreload], script[type=module]").evaluate_all(
            "(links) => links.map((link) => new URL(link.href || link.src).pathname)"
        )
        loaded = await window.page.evaluate(
            "() => performance.getEntriesByType('resource').map((each) => new URL(each.name).pathname)"
        )
        assert set(named) == {each for each in loaded if each.endswith(".js")}, path
