"""The simulator's keys are slow to make: one set for all tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from server.dev.wechat import WeChat
from server.dev.wechat_keys import WeChatKeys
from tests.dev.wechat_scene import Scene, scene


@pytest.fixture(scope="session")
def keys() -> WeChatKeys:
    """A merchant and their WeChat."""
    return WeChatKeys.fresh()


@pytest.fixture
async def stage(keys: WeChatKeys) -> AsyncIterator[Scene]:
    """A WeChat that behaves and whose retries come after milliseconds, and a merchant's server."""
    async with scene(WeChat(keys, time_scale=0.0005)) as running:
        yield running
