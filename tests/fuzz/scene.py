"""Who attacks what: a real `gateline serve --with-jobs`, people with tokens, and honest requests that stay honest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any
from uuid import uuid4

import asyncpg
from aiohttp import ClientSession, web
from aiohttp.test_utils import unused_port
from redis.asyncio import Redis

from server import config as configuration
from server.app import open_parts
from server.config.settings import SERVER_SETTINGS
from server.dev.serving import serving
from server.dev.wechat import WeChat
from server.dev.wechat_keys import WeChatKeys
from server.hot.backlog import Backlog
from server.web.routes import ROUTES, Route
from server.web.stream import PATH as STREAM
from tests.conftest import eventually
from tests.fuzz.case import Breach, Case
from tests.fuzz.frames import Frames
from tests.fuzz.raw import RawBytes
from tests.fuzz.requests import Honest, Requests
from tests.road import Road
from tests.web.process import Process, gateline
from tests.web.stage import Ask, Stage

SERVER = "tests.fuzz.server"
# One buyer and one address ask for everything here: how often they may is not what is attacked.
UNBOUND = frozenset({"GATELINE_BUYER_ORDERS_MAX", "GATELINE_GUESTS_A_MINUTE_MAX"})
SELLABLE = 100_000_000
MIX = (
    ("any", 0.40),
    ("untouched", 0.06),
    ("token", 0.12),
    ("webhook", 0.10),
    ("upload", 0.05),
    ("raw", 0.16),
    ("frames", 0.11),
)


class FollowedRoad(Road):
    """A road to another process, which learns of products within a second: whoever makes one waits for that."""

    async def product(self, functions: dict[str, int] | None = None, **terms: Any) -> int:
        product = await super().product(functions, **terms)

        async def followed() -> bool:
            shown = (await self.call("GET", "/catalog")).json["products"]
            return product in {each["id"] for each in shown}

        await eventually(followed)
        return product


class Scene:
    """The stage, and the cases that can be made on it now."""

    def __init__(self, stage: Stage, process: Process, seed: int) -> None:
        self.stage = stage
        self.process = process
        self.facts: dict[str, str] = {}
        self.walked = 0
        self._seed = seed
        self._requests: Requests
        self._raw: RawBytes
        self._frames: Frames

    async def set(self) -> None:
        """People, products, tickets; the process follows them within a second."""
        await self.stage.set()
        self.stage.product = await self.stage.road.product({"bus": 1_000, "ferry": 1}, sellable=SELLABLE)
        await self.refresh()

    async def refresh(self) -> None:
        """Honest requests of now: QR tokens live for a minute, and what is cancelled cannot be paid."""
        stage = self.stage
        (ticket,) = await stage.road.buy({stage.product: 1}, buyer="ann")
        stage.ticket = ticket["ticket_code"]
        await stage.set_again()
        honest = [Honest(route, await stage.honest(route)) for route in ROUTES]
        tokens = {
            kind: stage.headers(kind)["Authorization"].removeprefix("Bearer ")
            for kind in ("buyer", "gate", "analyst")
        }
        (scan,) = [each.ask.body or b"" for each in honest if each.route.path == "/venue/scan"]
        qr = scan.split(b'"qr_token":"')[1].split(b'"')[0].decode()
        self.facts = {**tokens, "order": stage.order_id, "ticket": stage.ticket, "qr": qr}
        self._requests = Requests(honest, tokens, self._sign)
        self._raw = RawBytes([_whole(each.ask) for each in honest if each.route.path != STREAM])
        self._frames = Frames(tokens["gate"], scan)

    def _sign(self, route: Route, body: bytes) -> Mapping[str, str]:
        return self.stage.signed(route, body)

    def case(self, index: int) -> Case:
        """The case of this number: the dice are the seed's, the tokens and tickets those of now."""
        dice = Random(f"{self._seed}/{index}")  # noqa: S311
        (kind,) = dice.choices([kind for kind, _ in MIX], [share for _, share in MIX])
        if kind == "raw":
            return self._raw.any(dice)
        if kind == "frames":
            return self._frames.any(dice)
        made: Case = getattr(self._requests, kind)(dice)
        return made

    async def walk(self) -> None:
        """The whole road, honestly: every answer must be the right one, in the middle of it all. Raises Breach."""
        road = self.stage.road
        buyer = f"bea{self.walked % 50}"
        try:
            (ticket,) = await road.buy({self.stage.product: 1}, buyer=buyer)
            token = await road.qr(ticket["ticket_code"], buyer=buyer)
            scan_id = uuid4().hex
            first = await road.scan(token, "ferry", scan_id=scan_id, venue_code="pier-1")
            again = await road.scan(token, "ferry", scan_id=scan_id, venue_code="pier-1")
            other = await road.scan(token, "ferry", venue_code="pier-1")
            shown = await road.call("GET", f"/qr/{ticket['ticket_code']}/info", headers=road.buyer(buyer))
        except AssertionError as fault:
            raise Breach(f"an honest road broke off: {fault}") from None
        left = {each["function_code"]: each["remaining_uses"] for each in shown.json.get("entitlements", [])}
        told = [each.json.get("reason") or each.json.get("result") for each in (first, again, other)]
        if (
            told != ["success", "success", "ALREADY_REDEEMED"]
            or first.raw != again.raw
            or left != {"bus": 1_000, "ferry": 0}
        ):
            raise Breach(f"an honest road ended elsewhere: {told}, {left}", first.raw + again.raw + other.raw)
        self.walked += 1


def _whole(ask: Ask) -> bytes:
    body = ask.body or b""
    headers = {"Host": "x", **ask.headers} | (
        {"Content-Length": str(len(body))} if ask.body is not None else {}
    )
    lines = [f"{ask.method} {ask.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def _gateway() -> AsyncIterator[str]:
    """A payment gateway that knows of no payment; its address."""

    async def no_payment(request: web.Request) -> web.Response:
        return web.Response(status=404)

    app = web.Application()
    app.router.add_get("/transactions/{order_id}", no_payment)
    async with serving(app) as url:
        yield url


@asynccontextmanager
async def opened(
    environment: dict[str, str], wechat_keys: WeChatKeys, *, seed: int, plant: str | None = None
) -> AsyncIterator[Scene]:
    """A process on these databases, and the stage around it. `plant`: faults of `tests.fuzz.server`, commas between."""
    wechat = WeChat(wechat_keys)
    async with _gateway() as gateway_url, serving(wechat.app()) as wechat_url:
        environment |= {"GATELINE_LOG_LEVEL": "warning", "GATELINE_GATEWAY_URL": gateway_url}
        environment |= wechat_keys.environment(wechat_url)
        environment |= {"GATELINE_PORT": str(unused_port())}  # WeChat is told where to notify
        environment |= {each.env: "0" for each in SERVER_SETTINGS if each.env in UNBOUND}
        config = configuration.load(environment)
        words = () if plant is None else ("--plant", plant)
        pg = await asyncpg.connect(environment["DATABASE_URL"])
        async with (
            gateline(environment, "--with-jobs", module=(SERVER, *words)) as process,
            open_parts(config) as parts,
            Redis.from_url(environment["REDIS_URL"]) as redis,
            ClientSession(base_url=process.address) as session,
        ):
            backlog = Backlog(
                parts.streams, parts.epochs, parts.stream_names, entries_max=10**9, memory_mb_max=0
            )
            road = FollowedRoad(session, config, parts, backlog, url=process.address)
            await road.until_ready()
            scene = Scene(Stage(road, redis, pg, wechat), process, seed)
            await scene.set()
            yield scene
        await pg.close()
