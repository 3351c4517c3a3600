"""Shops that are paid by WeChat."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import msgspec
import pytest
from aiohttp import ClientSession

from server import config as configuration
from server.config import WeChatAccount
from server.dev.embedded import EmbeddedServers
from server.dev.serving import serving
from server.dev.wechat import WeChat
from server.dev.wechat_faults import Faults
from server.dev.wechat_keys import WeChatKeys
from tests.conftest import Serve, key
from tests.payment.market_day import Day, hold_market
from tests.payment.shop import Shop
from tests.road import PATIENCE_S

OpenShop = Callable[..., Awaitable[Shop]]
AnotherServer = Callable[[Shop], Awaitable[Shop]]
PostgresAway = Callable[[], AbstractAsyncContextManager[None]]


@pytest.fixture(scope="session")
def merchant_account(wechat_keys: WeChatKeys) -> WeChatAccount:
    """The merchant as the configuration reads it. Read once: a private key is checked for 50 ms."""
    databases = {"REDIS_URL": "redis://127.0.0.1", "DATABASE_URL": "postgresql://127.0.0.1/nowhere"}
    secrets = {f"GATELINE_{name}": f"1:{key()}" for name in ("QR_KEYS", "JWT_KEYS")}
    merchant = wechat_keys.environment("http://127.0.0.1:9")
    account = configuration.load({**databases, **secrets, **merchant}).wechat
    assert account is not None
    return account


@pytest.fixture
async def open_shop(
    serve: Serve, merchant_account: WeChatAccount, wechat_keys: WeChatKeys
) -> AsyncIterator[OpenShop]:
    """Opens shops: `await open_shop(faults=Faults(...), merchant={"h5": False}, jobs=True, hold_s=900)`."""
    async with AsyncExitStack() as stack:

        async def start(
            *,
            faults: Faults | None = None,
            time_scale: float = 0.01,
            wechat: WeChat | None = None,
            merchant: dict[str, Any] | None = None,
            **changes: Any,
        ) -> Shop:
            wechat = wechat or WeChat(wechat_keys, faults, time_scale=time_scale)
            url = await stack.enter_async_context(serving(wechat.app()))
            account = msgspec.structs.replace(
                merchant_account, api_urls=(url,), login_url=url, **merchant or {}
            )
            road = await serve(wechat=account, **changes)
            phone = await stack.enter_async_context(ClientSession())
            return Shop(road, wechat, url, phone)

        yield start


@pytest.fixture
async def shop(open_shop: OpenShop) -> Shop:
    """A shop whose WeChat behaves."""
    return await open_shop()


@pytest.fixture
def another_server(serve: Serve) -> AnotherServer:
    """Starts one more server on the same databases, with the same merchant, for the same people."""

    async def start(shop: Shop) -> Shop:
        config = shop.road.config
        assert config.wechat is not None
        road = await serve(
            wechat=config.wechat, notify_url=config.wechat.notify_url, gateway_url=config.gateway_url
        )
        return shop.at(road)

    return start


@pytest.fixture
def postgres_away(servers: EmbeddedServers, database_url: str) -> PostgresAway:
    """`async with postgres_away():` the database is out of reach; what is connected is cut off."""
    _, _, name = database_url.rpartition("/")

    @asynccontextmanager
    async def away() -> AsyncIterator[None]:
        assert servers.owner_database_url is not None
        admin = await asyncpg.connect(servers.owner_database_url)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await _renamed(admin, name, f"{name}_away")
            try:
                yield
            finally:
                await admin.execute(f"ALTER DATABASE {name}_away RENAME TO {name}")
        finally:
            await admin.close()

    return away


async def _renamed(admin: asyncpg.Connection[Any], name: str, new_name: str) -> None:
    while True:  # jobs connect again at once
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        try:
            await admin.execute(f"ALTER DATABASE {name} RENAME TO {new_name}")
        except asyncpg.ObjectInUseError:
            continue
        return


@pytest.fixture(scope="session", params=os.environ.get("MARKET_SEEDS", "1").split(","))
async def market_day(
    request: pytest.FixtureRequest,
    servers: EmbeddedServers,
    template: str,
    wechat_keys: WeChatKeys,
    tmp_path_factory: pytest.TempPathFactory,
) -> Day:
    """500 orders on a day on which WeChat misbehaves in every way at once; the same day for all tests."""
    folder = tmp_path_factory.mktemp(f"market-{request.param}-")
    return await hold_market(servers, template, wechat_keys, folder, int(request.param))
