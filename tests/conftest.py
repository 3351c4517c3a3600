"""What the tests stand on: a real Valkey and a real Postgres, a fresh database for each test, and real HTTP."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer, unused_port
from redis.asyncio import Redis

from server import app as application
from server import config as configuration
from server.app import Parts, build_app, build_jobs, open_parts
from server.config import Config
from server.config.wechat import NOTIFY_PATH
from server.dev.embedded import EmbeddedPostgres, EmbeddedServers, embedded
from server.dev.wechat_keys import WeChatKeys
from server.flows import checkout, lookup, staff
from server.hot import batcher, connection
from server.jobs import flusher
from server.jobs.check import check
from server.store import pool
from server.store.migrate import migrate_by_owner
from server.web import appkeys, wechat
from server.web.connection import ExpressRunner
from tests.road import PATIENCE_S, Road

TESTS = Path(__file__).parent
TEMPLATE = "gateline_template"
SERVER_PATIENCE_S = 15.0  # far above a stall, and told long before a test gives up
# Files of a minute and more, the longest first: begun last, one of them would keep all other processes waiting.
LONG_FILES = (
    "bench/test_bench_run.py",
    "chaos/test_storm.py",
    "payment/test_misbehaviour.py",
    "screens/test_buyer_ticket.py",
    "screens/test_gate_network.py",
    "screens/test_gate_kept.py",
    "screens/test_buyer_wechat.py",
    "screens/test_gate_looks.py",
    "outage/test_workers.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, each as a whole; the others as they are."""
    places = {TESTS / name: at for at, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def key() -> str:
    """A fresh secret of 32 bytes, as the environment spells it."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


# Where a server waits for its databases. The honest bounds pass in a stall of the machine that runs the tests.
BOUNDS_OF_DATABASES = (
    (connection, "REDIS_CALL_S_MAX"),
    (connection, "REDIS_CONNECT_S_MAX"),
    (batcher, "QUEUED_S_MAX"),
    (pool, "POSTGRES_CALL_S_MAX"),
    (pool, "POSTGRES_CONNECT_S_MAX"),
    (pool, "POSTGRES_ACQUIRE_S_MAX"),
    (application, "POSTGRES_USE_S_MAX"),
    (checkout, "READ_OWN_WRITE_S_MAX"),
    (lookup, "READ_OWN_WRITE_S_MAX"),
    (lookup, "TICKET_LOAD_S_MAX"),
    (staff, "PASSWORD_WAIT_S_MAX"),
    (wechat, "NOTIFY_ANSWER_S_MAX"),
)


@pytest.fixture(scope="session", autouse=True)
def _servers_of_this_process() -> Iterator[None]:
    """They wait longer for their databases; what is about such a bound sets it.

    An idle flusher looks up every 30 ms instead of 250, so that the server of each test stops at once.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module, name in BOUNDS_OF_DATABASES:
            patch.setattr(module, name, SERVER_PATIENCE_S)
        patch.setitem(connection.ask.__kwdefaults__, "seconds", SERVER_PATIENCE_S)
        patch.setitem(pool.Database.__init__.__kwdefaults__, "call_s", SERVER_PATIENCE_S)
        patch.setattr(flusher, "FLUSH_WAIT_S", 0.03)
        yield


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """One Valkey and one Postgres for all tests (without fsync: tests that need it start their own)."""
    with embedded(
        tmp_path_factory.mktemp("servers"),
        need_valkey=True,
        need_postgres=True,
        appendfsync="always",
        # Without autovacuum: its workers are not ours to end, and a test's database is dropped while they work.
        postgres_settings={"fsync": "off", "max_connections": "200", "autovacuum": "off"},
        erase=True,
    ) as running:
        yield running


@pytest.fixture(scope="session")
async def template(servers: EmbeddedServers) -> str:
    """A database with all migrations, cloned for each test."""
    assert servers.database_url is not None and servers.owner_database_url is not None
    admin = await asyncpg.connect(servers.owner_database_url)
    await admin.execute(f"CREATE DATABASE {TEMPLATE}")
    await admin.close()
    await migrate_by_owner(
        database_named(servers.database_url, TEMPLATE), database_named(servers.owner_database_url, TEMPLATE)
    )
    return TEMPLATE


def database_named(url: str, name: str) -> str:
    """The address of another database of the same server."""
    head, _, _ = url.rpartition("/")
    return f"{head}/{name}"


@pytest.fixture
async def database_url(servers: EmbeddedServers, template: str) -> AsyncIterator[str]:
    """A fresh, migrated, empty database, as the server's role: what works in a test works with those rights."""
    assert servers.database_url is not None and servers.owner_database_url is not None
    name = f"test_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(servers.owner_database_url)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield database_named(servers.database_url, name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
def owner_url(servers: EmbeddedServers, database_url: str) -> str:
    """The same database as its owner, who may do what the server may not."""
    assert servers.owner_database_url is not None
    return database_named(servers.owner_database_url, database_url.rpartition("/")[2])


@pytest.fixture
async def redis_url(servers: EmbeddedServers) -> str:
    """An empty Valkey."""
    assert servers.redis_url is not None
    async with Redis.from_url(servers.redis_url) as redis:
        await redis.flushall()
    return servers.redis_url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A plain client of the same Valkey, for looking behind the server's back."""
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def pg(owner_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A plain connection to the same database as its owner, for looking, and acting, behind the server's back."""
    connection = await asyncpg.connect(owner_url)
    yield connection
    await connection.close()


@pytest.fixture
def environment(redis_url: str, database_url: str, tmp_path: Path) -> dict[str, str]:
    """A complete environment of a server on the test's own databases."""
    return {
        "REDIS_URL": redis_url,
        "DATABASE_URL": database_url,
        "GATELINE_PORT": "0",
        "GATELINE_DATA_DIR": str(tmp_path / "data"),
        "GATELINE_QR_KEYS": f"1:{key()}",
        "GATELINE_JWT_KEYS": f"k1:{key()}",
        "GATELINE_GATEWAY_SECRETS": key(),
        "GATELINE_GATEWAY_URL": "http://127.0.0.1:9",
        "GATELINE_DEMO_LOGIN": "1",
        "GATELINE_GUEST_LOGIN": "1",
        # One buyer orders as often as a test needs; what is about this bound sets it.
        "GATELINE_BUYER_ORDERS_MAX": "0",
        "GATELINE_LOG_LEVEL": "error",
    }


@pytest.fixture
def config(environment: dict[str, str]) -> Config:
    """The same, validated."""
    return configuration.load(environment)


class ExpressServer(TestServer):
    """aiohttp's server for tests, with our connections."""

    async def _make_runner(self, **options: Any) -> ExpressRunner:
        return ExpressRunner(self.app, **options)


Serve = Callable[..., Awaitable[Road]]


@pytest.fixture
async def serve(config: Config) -> AsyncIterator[Serve]:
    """Starts servers in this process, with real HTTP on loopback: `await serve(jobs=True, hold_s=1)`."""
    async with AsyncExitStack() as all_servers:

        async def start(*, jobs: bool = True, **changes: Any) -> Road:
            server_stack = await all_servers.enter_async_context(AsyncExitStack())
            port = unused_port()
            url = f"http://127.0.0.1:{port}"
            account = changes.pop("wechat", config.wechat)
            if account is not None:  # WeChat is told where to notify us: the same, whichever server asks
                notify_url = changes.pop("notify_url", url + NOTIFY_PATH)
                account = msgspec.structs.replace(account, notify_url=notify_url)
            changed = msgspec.structs.replace(config, wechat=account, **changes)
            parts: Parts = await server_stack.enter_async_context(open_parts(changed))
            app: web.Application = build_app(parts, jobs=build_jobs(parts) if jobs else None)
            server = ExpressServer(app, port=port)
            await server.start_server()
            server_stack.push_async_callback(server.close)
            session = await server_stack.enter_async_context(ClientSession(base_url=url + "/"))
            road = Road(
                session,
                changed,
                parts,
                app[appkeys.BACKLOG],
                url=url + "/",
                app=app,
                stop=server_stack.aclose,
            )
            if jobs:
                await road.until_ready()
            return road

        yield start


@pytest.fixture
async def road(serve: Serve) -> Road:
    """A server with jobs, ready, on an empty database."""
    return await serve()


@pytest.fixture(scope="session")
def wechat_keys() -> WeChatKeys:
    """A merchant at the simulated WeChat. Made once: RSA keys take a while."""
    return WeChatKeys.fresh()


Audit = Callable[[Road], Awaitable[None]]


@pytest.fixture
def audit() -> Audit:
    """Once all is flushed: holds Redis and Postgres against every invariant, as `gateline check` does."""

    async def look(road: Road) -> None:
        await road.flushed()
        parts = road.parts
        findings = await check(
            parts.bulk_database, parts.redis, parts.streams, parts.epochs, parts.config.shards
        )
        assert [finding for finding in findings if finding.breaches or finding.undecided] == []

    return look


def embedded_postgres(servers: EmbeddedServers) -> EmbeddedPostgres:
    """The Postgres of the session."""
    assert servers.postgres is not None
    return servers.postgres


@contextmanager
def redis_given_up_after(seconds: float) -> Iterator[None]:
    """Each call to Redis, by the servers of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(connection.ask.__kwdefaults__, "seconds", seconds)
        yield


@asynccontextmanager
async def redis_held(redis: Redis) -> AsyncIterator[None]:
    """Redis takes every script and every write, and answers none of them until the end."""
    await redis.client_pause(600_000, all=False)
    try:
        yield
    finally:
        await redis.client_unpause()


async def eventually(probe: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the probe is true; fails after `PATIENCE_S`."""
    async with asyncio.timeout(PATIENCE_S):
        while not await probe():
            await asyncio.sleep(0.02)
