"""What every screen owes to whoever opens it."""

from __future__ import annotations

import pytest

from tests.screens.conftest import OpenWindow

SCREENS = ("/", "/gate", "/report")


@pytest.mark.parametrize("path", SCREENS)
async def test_a_screen_loads_strictly_and_within_100_kb(path: str, open_window: OpenWindow) -> None:
    window = await open_window(path)
    await window.page.wait_for_load_state("networkidle")

    assert 0 < await window.bytes_loaded() < 100_000
