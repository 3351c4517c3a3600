"""One server for a whole file of attacks: nothing that they do may change anything, so they can share it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import unused_port
from redis.asyncio import Redis

from server import config as configuration
from server.app import build_app, build_jobs, open_parts
from server.dev.embedded import EmbeddedServers
from server.dev.serving import serving
from server.dev.wechat import WeChat
from server.dev.wechat_keys import WeChatKeys
from server.service import CONNECTION
from server.web import appkeys
from server.web.connection import ExpressRunner
from tests.conftest import database_named, key
from tests.road import Road
from tests.web.stage import Stage


@pytest.fixture(scope="module")
async def stage(servers: EmbeddedServers, template: str, wechat_keys: WeChatKeys) -> AsyncIterator[Stage]:
    """A stage on a database of its own and an emptied Valkey. Not together with `road` in one file: it empties too."""
    assert servers.redis_url is not None and servers.database_url is not None
    database = f"stage_{secrets.token_hex(6)}"
    database_url = database_named(servers.database_url, database)
    admin = await asyncpg.connect(servers.database_url)
    await admin.execute(f"CREATE DATABASE {database} TEMPLATE {template}")
    redis = Redis.from_url(servers.redis_url)
    await redis.flushall()
    pg = await asyncpg.connect(database_url)
    wechat = WeChat(wechat_keys)
    stack = AsyncExitStack()
    config = configuration.load(
        {
            **wechat_keys.environment(await stack.enter_async_context(serving(wechat.app()))),
            "REDIS_URL": servers.redis_url,
            "DATABASE_URL": database_url,
            "GATELINE_PORT": str(unused_port()),
            "GATELINE_QR_KEYS": f"1:{key()}",
            "GATELINE_JWT_KEYS": f"k1:{key()},old:{key()}",
            "GATELINE_GATEWAY_SECRETS": key(),
            "GATELINE_GATEWAY_URL": "http://127.0.0.1:9",
            "GATELINE_DEMO_LOGIN": "1",
            "GATELINE_GUEST_LOGIN": "1",
            "GATELINE_LOG_LEVEL": "error",
        }
    )
    async with open_parts(config) as parts:
        app = build_app(parts, jobs=build_jobs(parts))
        runner = ExpressRunner(app, **CONNECTION)  # as the command line does, down to the connection
        await runner.setup()
        await web.TCPSite(runner, config.host, config.port).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with ClientSession(base_url=url) as session:
            stage = Stage(
                Road(session, config, parts, app[appkeys.BACKLOG], url=url, app=app), redis, pg, wechat
            )
            await stage.road.until_ready()
            await stage.set()
            yield stage
        await runner.cleanup()
    await stack.aclose()
    await pg.close()
    await redis.aclose()
    await admin.execute(f"DROP DATABASE {database} WITH (FORCE)")
    await admin.close()
