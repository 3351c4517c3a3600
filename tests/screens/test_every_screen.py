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
