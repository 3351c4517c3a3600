"""The walked road of `check_scene`, walked once and put back for each test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable

import asyncpg
import msgspec
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis

from server import config as configuration
from server.app import build_app, build_jobs, open_parts
from server.dev.embedded import EmbeddedServers
from server.jobs import catch_up, check, check_record, check_stock, check_tickets, check_verdicts
from server.web import appkeys
from tests.conftest import database_named, key
from tests.jobs.check_scene import SHARDS, Scene, Walked, walk
from tests.road import Road


@pytest.fixture(scope="session")
async def walked(
    servers: EmbeddedServers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Walked]:
    assert servers.database_url and servers.owner_database_url and servers.redis_url
    name = "check_walked"
    admin = await asyncpg.connect(servers.owner_database_url)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    config = msgspec.structs.replace(
        configuration.load(
            {
                "REDIS_URL": servers.redis_url,
                "DATABASE_URL": database_named(servers.database_url, name),
                "GATELINE_DATA_DIR": str(tmp_path_factory.mktemp("check")),
                "GATELINE_QR_KEYS": f"1:{key()}",
                "GATELINE_JWT_KEYS": f"k1:{key()}",
                "GATELINE_GATEWAY_SECRETS": key(),
                "GATELINE_GATEWAY_URL": "http://127.0.0.1:9",
            }
        ),
        shards=SHARDS,
    )
    async with Redis.from_url(servers.redis_url) as redis:
        await redis.flushall()
        async with open_parts(config) as parts:
            app = build_app(parts, jobs=build_jobs(parts))
            async with TestServer(app) as server, ClientSession(base_url=server.make_url("/")) as session:
                road = Road(session, config, parts, app[appkeys.BACKLOG])
                await road.until_ready()
                places = await walk(road)
        dumps = {
            name.decode(): (await redis.dump(name), max(0, await redis.pttl(name)))
            for name in await redis.keys()
        }
    yield Walked(config, places, name, dumps)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
def pages_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the size of a page of the check; looks then follow in quick succession."""

    def resize(size: int) -> None:
        for module in (check, check_record, check_stock, check_tickets, check_verdicts):
            monkeypatch.setattr(module, "CHECK_PAGE", size)
        monkeypatch.setattr(catch_up, "CHECK_LOOK_PAUSE_S", 0.001)

    return resize


@pytest.fixture
async def scene(
    walked: Walked, servers: EmbeddedServers, redis_url: str, redis: Redis, pages_of: Callable[[int], None]
) -> AsyncIterator[Scene]:
    """The walked road, put back as it was; no server and no job runs on it. Two things a page, so that all is paged."""
    pages_of(2)
    assert walked.config.database_url and servers.owner_database_url
    name = f"test_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(servers.owner_database_url)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {walked.database}")
    url = database_named(walked.config.database_url, name)
    pg = await asyncpg.connect(database_named(servers.owner_database_url, name))
    async with Redis.from_url(redis_url) as raw, raw.pipeline() as pipe:
        for each, (dump, left_ms) in walked.dumps.items():
            pipe.restore(each, left_ms, dump)
        await pipe.execute()
    async with open_parts(msgspec.structs.replace(walked.config, database_url=url)) as parts:
        yield Scene(parts, redis, pg, walked.places)
    await pg.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()
