"""Shops that are paid by WeChat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import ClientSession

from server import config as configuration
from server.dev.serving import serving
from server.dev.wechat import WeChat
from server.dev.wechat_faults import Faults
from server.dev.wechat_keys import WeChatKeys
from tests.conftest import Serve
from tests.payment.shop import Shop

OpenShop = Callable[..., Awaitable[Shop]]


@pytest.fixture
async def open_shop(
    serve: Serve, environment: dict[str, str], wechat_keys: WeChatKeys
) -> AsyncIterator[OpenShop]:
    """Opens shops: `await open_shop(faults=Faults(...), time_scale=0.01, jobs=True, hold_s=900)`."""
    async with AsyncExitStack() as stack:

        async def start(
            *,
            faults: Faults | None = None,
            time_scale: float = 0.01,
            wechat: WeChat | None = None,
            **changes: Any,
        ) -> Shop:
            wechat = wechat or WeChat(wechat_keys, faults, time_scale=time_scale)
            url = await stack.enter_async_context(serving(wechat.app()))
            account = configuration.load({**environment, **wechat_keys.environment(url)}).wechat
            road = await serve(wechat=account, **changes)
            phone = await stack.enter_async_context(ClientSession())
            return Shop(road, wechat, url, phone)

        yield start


@pytest.fixture
async def shop(open_shop: OpenShop) -> Shop:
    """A shop whose WeChat behaves."""
    return await open_shop()
