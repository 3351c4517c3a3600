"""A market day: real `gateline` processes, a WeChat that misbehaves in every way at once, and 500 orders."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import secrets
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from aiohttp import ClientSession
from aiohttp.test_utils import unused_port
from redis.asyncio import Redis

from server import config as configuration
from server.app import open_parts
from server.dev import wechat_faults
from server.dev.embedded import EmbeddedServers
from server.dev.gateway import Gateway
from server.dev.serving import serving
from server.dev.wechat import WeChat
from server.dev.wechat_keys import WeChatKeys
from server.hot.backlog import Backlog
from tests.conftest import database_named, key
from tests.payment.eavesdrop import Eavesdropper
from tests.payment.ledger import Books, read_ours, unsettled
from tests.payment.people import AT_ONCE, Person
from tests.payment.shop import Shop
from tests.road import PATIENCE_S, Answer, Road

ROOT = Path(__file__).parents[2]
ORDERS = 500
BUYERS = 40
HOLD_S = 20
QUIET_S_MAX = 120.0
# Of 100 orders. The late ones come first: they are waited for.
PLANS = {
    "late": 8,
    "abandoned": 4,
    "plain": 18,
    "silent": 14,
    "resumed": 8,
    "switched": 10,
    "went back": 8,
    "both": 7,
    "while switching": 7,
    "two windows": 4,
    "double tap": 4,
    "cancelled": 5,
    "cancelled while switching": 3,
}


_SECRET = frozenset({"token", "paySign", "package", "codeUrl", "h5Url"})


class HeardRoad(Road):
    """The road, with every error that a client was told, and every secret that it was given."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.errors: list[str] = []
        self.told: Counter[str] = Counter()
        self.handed_out: defaultdict[str, set[str]] = defaultdict(set)

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        """One request."""
        answer = await super().call(method, path, **options)
        if answer.status >= 400:
            self.errors.append(answer.raw.decode())
            self.told[f"{answer.status} {answer.json['code']}"] += 1
        elif isinstance(answer.json, dict):
            payload = answer.json.get("payPayload") or {}
            for name in _SECRET & (answer.json.keys() | payload.keys()):
                self.handed_out[name].add(str(answer.json.get(name) or payload[name]))
        return answer


@dataclass
class Market:
    """The market while it is open, and what is left of the day."""

    environment: dict[str, str]
    shop: Shop
    road: HeardRoad
    wechat: WeChat
    heard: Eavesdropper
    pg: asyncpg.Connection[Any]
    folder: Path
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    tally: Counter[str] = field(default_factory=Counter)
    order_ids: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def log(self, name: str) -> str:
        """Everything that a process has written to standard error."""
        return (self.folder / f"{name}.log").read_text()

    def events(self) -> list[dict[str, Any]]:
        """The log lines of all processes; what is none fails."""
        return [json.loads(line) for name in self.processes for line in self.log(name).splitlines()]

    async def books(self) -> Books:
        """Both sides' books at this moment."""
        return Books(
            **await read_ours(self.pg),
            theirs=self.wechat.orders(),
            posted=self.heard.posted,
            alerts=[event for event in self.events() if event["event"] == "alert"],
        )

    async def start(self, name: str, *words: str) -> None:
        """Start `gateline WORDS`, and wait until it works."""
        foreign = ("GATELINE_", "REDIS_URL", "DATABASE_URL", "PROMETHEUS_")
        clean = {each: value for each, value in os.environ.items() if not each.startswith(foreign)}
        with (self.folder / f"{name}.log").open("wb") as log:
            process = self.processes[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.payment.impatient", *words),
                cwd=ROOT, env=clean | self.environment, stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(PATIENCE_S):
            while not any(f'"event": "{word}"' in self.log(name) for word in ("serving", "working")):
                assert process.returncode is None, self.log(name)
                await asyncio.sleep(0.05)

    async def stop(self) -> list[int | None]:
        """SIGTERM for all, and the exit statuses; what does not end within `PATIENCE_S` is killed."""
        for process in self.processes.values():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                await asyncio.wait_for(process.wait(), PATIENCE_S)
            except TimeoutError:
                process.kill()
                await process.wait()
        return [process.returncode for process in self.processes.values()]


async def trade(market: Market, seed: int, orders: int = ORDERS) -> None:
    """Everybody comes, and buys or does not."""
    began = time.monotonic()
    product = await market.road.product(sellable=orders * 3)
    await market.start("serve-2", "serve", "--reuse-port")  # the first one has to follow the catalog
    users = [f"buyer-{number}" for number in range(BUYERS)]
    await asyncio.gather(*(market.shop.headers(user) for user in users))
    await _until_on_sale(market.road, product)
    dice = random.Random(seed)  # noqa: S311
    plans = dice.choices(list(PLANS), list(PLANS.values()), k=orders)
    plans.sort(key=lambda plan: plan not in ("late", "abandoned"))
    busy = asyncio.Semaphore(AT_ONCE)
    people = [
        Person(
            market.shop,
            product,
            users[number % BUYERS],
            random.Random(f"{seed} {number}"),  # noqa: S311
            market.tally,
            busy,
        )
        for number in range(orders)
    ]
    market.order_ids = list(
        await asyncio.gather(*(who.buy(plan) for who, plan in zip(people, plans, strict=True)))
    )
    market.seconds["trading"] = time.monotonic() - began


async def _until_on_sale(road: Road, product: int) -> None:
    for _ in range(20):  # in a row, so that both servers have answered
        while not await _on_sale(road, product):
            await asyncio.sleep(0.05)


async def _on_sale(road: Road, product: int) -> bool:
    shown = await road.call("GET", "/catalog")  # 503 until the server's directory and stock are there
    return shown.status == 200 and product in [each["id"] for each in shown.json["products"]]


async def until_quiet(market: Market) -> None:
    """Wait until nothing is on its way any more, or for `QUIET_S_MAX`."""
    began = time.monotonic()
    while time.monotonic() - began < QUIET_S_MAX:
        if not market.wechat.still_telling and not unsettled(await market.books()):
            break
        await asyncio.sleep(0.25)
    market.seconds["until quiet"] = time.monotonic() - began
    await market.road.flushed()


async def checked(market: Market) -> tuple[int | None, dict[str, Any]]:
    """What `gateline check --json` says, and its exit status."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server.cli", "check", "--json"),
        cwd=ROOT, env={**os.environ, **market.environment},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode, json.loads(out)


@asynccontextmanager
async def open_market(
    servers: EmbeddedServers, template: str, keys: WeChatKeys, folder: Path, seed: int
) -> AsyncIterator[Market]:
    """A database of its own, both gateways, a worker, and the first of two servers that share one address."""
    assert servers.redis_url and servers.database_url and servers.owner_database_url
    async with AsyncExitStack() as stack:
        owner_url = await stack.enter_async_context(_database(servers.owner_database_url, template))
        database_url = database_named(servers.database_url, owner_url.rpartition("/")[2])
        async with Redis.from_url(servers.redis_url) as redis:
            await redis.flushall()
        heard = Eavesdropper()
        stack.enter_context(heard.seals())
        wechat = WeChat(keys, wechat_faults.everything(seed), time_scale=0.005)
        wechat_url = await stack.enter_async_context(serving(heard.watch(wechat.app())))
        secret = secrets.token_bytes(32)
        environment = {
            **_settings(servers.redis_url, database_url, folder),
            "GATELINE_GATEWAY_SECRETS": base64.b64encode(secret).decode(),
            "GATELINE_GATEWAY_URL": await stack.enter_async_context(serving(Gateway([secret]).app())),
            **keys.environment(wechat_url),
        }
        config = configuration.load(environment)
        parts = await stack.enter_async_context(open_parts(config))
        session = await stack.enter_async_context(ClientSession(base_url=config.public_url))
        phone = await stack.enter_async_context(ClientSession())
        backlog = Backlog(parts.streams, parts.epochs, parts.stream_names, entries_max=10**9, memory_mb_max=0)
        road = HeardRoad(session, config, parts, backlog, url=config.public_url)
        pg = await asyncpg.connect(owner_url)
        stack.push_async_callback(pg.close)
        market = Market(environment, Shop(road, wechat, wechat_url, phone), road, wechat, heard, pg, folder)
        stack.push_async_callback(market.stop)
        await market.start("work", "work")
        await market.start("serve-1", "serve", "--reuse-port")
        await road.until_ready()
        yield market


def _settings(redis_url: str, database_url: str, folder: Path) -> Mapping[str, str]:
    port = str(unused_port())
    return {
        "REDIS_URL": redis_url,
        "DATABASE_URL": database_url,
        "GATELINE_PORT": port,
        "GATELINE_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "GATELINE_DATA_DIR": str(folder / "data"),
        "GATELINE_HOLD_S": str(HOLD_S),
        "GATELINE_BUYER_ORDERS_MAX": "100",  # 500 orders of 40 buyers, within two of these
        "GATELINE_QR_KEYS": f"1:{key()}",
        "GATELINE_JWT_KEYS": f"k1:{key()}",
        "GATELINE_LOG_LEVEL": "debug",
    }


@asynccontextmanager
async def _database(url: str, template: str) -> AsyncIterator[str]:
    name = f"market_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(url)
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield database_named(url, name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()
