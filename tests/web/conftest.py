"""One server for a whole file of attacks: nothing that they do may change anything, so they can share it."""

from __future__ import annotations

import asyncio
import secrets
import socket
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
from server.web.connection import ExpressRunner, ScanConnection
from tests.conftest import database_named, key
from tests.road import Road
from tests.web.stage import Stage
from tests.web.wire import NARROW_BYTES


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> list[ScanConnection]:
    """The server's sockets hold little of what is not read; every connection that was told to wait for its client."""
    stuck: list[ScanConnection] = []
    made, pause = ScanConnection.connection_made, ScanConnection.pause_writing

    def narrower(self: ScanConnection, transport: asyncio.BaseTransport) -> None:
        plug = transport.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NARROW_BYTES)
        made(self, transport)

    def note(self: ScanConnection) -> None:
        stuck.append(self)
        pause(self)

    monkeypatch.setattr(ScanConnection, "connection_made", narrower)
    monkeypatch.setattr(ScanConnection, "pause_writing", note)
    return stuck


@pytest.fixture(scope="module")
async def stage(servers: EmbeddedServers, template: str, wechat_keys: WeChatKeys) -> AsyncIterator[Stage]:
    """A stage on a database of its own and an emptied Valkey. Not together with `road` in one file: it empties too."""
    assert servers.redis_url and servers.database_url and servers.owner_database_url
    database = f"stage_{secrets.token_hex(6)}"
    database_url = database_named(servers.database_url, database)
    admin = await asyncpg.connect(servers.owner_database_url)
    await admin.execute(f"CREATE DATABASE {database} TEMPLATE {template}")
    redis = Redis.from_url(servers.redis_url)
    await redis.flushall()
    pg = await asyncpg.connect(database_named(servers.owner_database_url, database))
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
            "GATELINE_BUYER_ORDERS_MAX": "0",  # ann orders for every test of a file
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
