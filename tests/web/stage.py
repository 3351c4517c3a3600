"""A server with a buyer, a gate and an analyst in the middle of their day, and an honest request for each route.

The tests of this folder take an honest request, spoil one thing about it, and look at the answer and at everything
that Postgres and Redis hold. They walk over `ROUTES`, so a new route is attacked from the day it is added: it needs a
line in `_BODIES` only when it takes a body.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
from multidict import CIMultiDict
from redis.asyncio import Redis
from yarl import URL

from server.dev import wechat_seals
from server.dev.wechat import WeChat
from server.hosted import signing
from server.web.routes import ROUTES, Access, Route
from tests.road import PASSWORD, Answer, Road

KINDS = ("nobody", "buyer", "gate", "analyst")
# Whom each route serves, written by hand: a slip in the server's own table shows here, and a new route needs a row.
_ALL = "nobody buyer gate analyst"
MATRIX = {
    "GET /catalog": _ALL,
    "POST /auth/demo/login": _ALL,
    "POST /auth/guest/login": _ALL,
    "POST /auth/wechat/login": _ALL,
    "POST /orders": "buyer",
    "GET /orders/{order_id}": "buyer",
    "POST /orders/{order_id}/pay": "buyer",
    "POST /orders/{order_id}/query": "buyer",
    "POST /orders/{order_id}/cancel": "buyer",
    "GET /my/orders": "buyer",
    "GET /my/tickets": "buyer",
    "POST /payments/notify": _ALL,  # whoever signs; a token changes nothing
    "POST /payments/wechat/notify": _ALL,
    "POST /qr/decrypt": "gate",
    "POST /qr/{code}": "buyer",
    "GET /qr/{code}/info": "buyer gate",
    "POST /operators/login": _ALL,
    "GET /venue": "gate",
    "POST /venue/scan": "gate",
    "POST /venue/scans": "gate",
    "GET /venue/stream": "gate",
    "GET /reports/redemptions": "analyst",
    "GET /reports/summary": "analyst",
    "GET /reports/figures": "analyst",
    "GET /client": _ALL,
    "GET /": _ALL,
    "GET /gate": _ALL,
    "GET /report": _ALL,
    "GET /healthz": _ALL,
    "GET /readyz": _ALL,
    "GET /metrics": _ALL,
    "GET /openapi/openapi.json": _ALL,
    "GET /docs": _ALL,
}


def name(route: Route) -> str:
    """How a route is called in the names of tests."""
    return f"{route.method} {route.path}"


def may_call(route: Route) -> frozenset[str]:
    """The kinds of callers that the route is for."""
    assert name(route) in MATRIX, f"say in MATRIX whom {name(route)} serves"
    return frozenset(MATRIX[name(route)].split())


SIGNED = [route for route in ROUTES if route.signed_body is not None]
SECURED = [route for route in ROUTES if "nobody" not in may_call(route)]
WITH_BODY = [route for route in ROUTES if route.body is not None or route in SIGNED]
WITH_PLACE = [route for route in ROUTES if "{" in route.path]
# What plain HTTP hears at a WebSocket's address, whoever may come in.
PLAINLY = {route.path: 426 for route in ROUTES if route.status == 101}
WITH_QUERY = [route for route in ROUTES if route.query is not None]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request, to be sent as it is or with something changed (`msgspec.structs.replace`)."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None = None


class Stage:
    """The server, who is about, and what they hold. `ann` owns the order and the ticket, `bob` owns others."""

    def __init__(self, road: Road, redis: Redis, pg: asyncpg.Connection[Any], wechat: WeChat) -> None:
        self.road = road
        self.wechat = wechat
        self.product = 0
        self.order_id = self.ticket = ""  # ann's: the order waits for payment
        self.bobs_order_id = self.bobs_ticket = ""
        self.document: dict[str, Any] = {}
        self._redis = redis
        self.pg = pg
        self._headers: dict[str, dict[str, str]] = {}
        self._digest_all = ""

    async def set(self) -> None:
        """People, products, tickets."""
        road = self.road
        await road.venue("pier-1", ["bus", "ferry"])
        self.product = await road.product({"bus": 50, "ferry": 1}, sellable=1_000)
        (ticket,) = await road.buy({self.product: 1}, buyer="ann")
        (bobs,) = await road.buy({self.product: 1}, buyer="bob")
        self.ticket, self.bobs_ticket = ticket["ticket_code"], bobs["ticket_code"]
        await self.set_again()
        self.bobs_order_id = (await road.order({self.product: 1}, buyer="bob")).json["order_id"]
        self._headers = {
            "nobody": {},
            "buyer": road.buyer("ann"),
            "gate": await road.gate(),
            "analyst": await road.analyst(),
        }
        self.document = (await road.call("GET", "/openapi/openapi.json")).json
        await road.flushed()

    async def set_again(self) -> None:
        """Another order of ann's that waits for payment, after a test has ended the one before."""
        self.order_id = (await self.road.order({self.product: 1}, buyer="ann")).json["order_id"]

    def headers(self, kind: str) -> dict[str, str]:
        """The Authorization header of this kind of caller."""
        return dict(self._headers[kind])

    async def honest(self, route: Route, kind: str | None = None) -> Ask:
        """A request that the route answers with success; by default from someone who may call it."""
        who = kind if kind is not None else min(may_call(route) - {"nobody"})
        body = await self._body(route)
        headers = self.headers(who)
        if body is not None:
            headers["Content-Type"] = "application/json"
        if route.path == "/orders" and route.method == "POST":
            headers["Idempotency-Key"] = uuid4().hex
        headers |= self.signed(route, body or b"")
        path = route.path.format(order_id=self.order_id, code=self.ticket)
        return Ask(method=route.method, path=path, headers=headers, body=body)

    def signed(self, route: Route, body: bytes, at_s: int | None = None) -> dict[str, str]:
        """The headers by which the gateway of this route signs these bytes, by default now; none where none does."""
        now = int(time.time()) if at_s is None else at_s
        if route.access is Access.WECHAT:
            keys = self.wechat.keys
            return wechat_seals.signed(keys, keys.public_key_id, body, now)
        if route.access is Access.GATEWAY:
            return signing.headers(self.road.config.gateway_secrets, body, now)
        return {}

    def sealed(self, **changes: Any) -> bytes:
        """A notification of WeChat's: by default of a payment under a number that we never took."""
        transaction = {
            "appid": self.wechat.keys.appid,
            "mchid": self.wechat.keys.mchid,
            "out_trade_no": f"nobody-{uuid4().hex[:20]}",
            "transaction_id": uuid4().hex[:28],
            "trade_type": "NATIVE",
            "trade_state": "SUCCESS",
            "success_time": "2026-11-22T16:00:00+08:00",
            "amount": {"total": 1000, "currency": "CNY"},
            "payer": {"openid": "o-nobody"},
        } | changes
        return msgspec.json.encode(
            {
                "id": str(uuid4()),
                "create_time": "2026-11-22T16:00:00+08:00",
                "event_type": "TRANSACTION.SUCCESS",
                "resource_type": "encrypt-resource",
                "summary": "支付成功",
                "resource": wechat_seals.encrypted(
                    self.wechat.keys.api_v3_key, msgspec.json.encode(transaction), "transaction"
                )
                | {"original_type": "transaction"},
            }
        )

    async def _body(self, route: Route) -> bytes | None:
        if route not in WITH_BODY:
            return None
        if route.access is Access.WECHAT:
            return self.sealed()
        bodies: dict[str, Any] = {
            "/auth/demo/login": {"buyer": "ann"},
            "/auth/wechat/login": {
                "code": self.wechat.code("ann", self.wechat.keys.miniprogram_appid),
                "environment": "miniprogram",
            },
            "/orders": {"items": [{"product_id": self.product, "qty": 1}], "gateway": "hosted"},
            "/orders/{order_id}/pay": {"clientContext": {"environmentType": "none"}, "gateway": "hosted"},
            "/operators/login": {"username": "gina", "password": PASSWORD},
            "/payments/notify": {
                "gateway": "hosted",
                "gateway_txn_id": uuid4().hex,
                "order_id": self.order_id,
                "status": "FAILED",
                "amount_fen": 1000,
                "currency": "CNY",
                "paid_at": datetime.now(UTC),
            },
        }
        if route.path in ("/qr/decrypt", "/venue/scan", "/venue/scans"):
            token = self.road.sealed(self.ticket)
            bodies["/qr/decrypt"] = {"qr_token": token}
            bodies["/venue/scan"] = {
                "qr_token": token,
                "function_code": "bus",
                "scan_id": uuid4().hex,
                "venue_code": "pier-1",
                "terminal_device_id": "gate-7",
            }
            bodies["/venue/scans"] = {"scans": [{**bodies["/venue/scan"], "scanned_at": datetime.now(UTC)}]}
        assert route.path in bodies, f"add an honest body for {name(route)}"
        return msgspec.json.encode(bodies[route.path])

    async def send(self, ask: Ask, **changes: Any) -> Answer:
        """Send a request; keywords replace its parts, `data` its body."""
        data = changes.pop("data", None)
        ask = msgspec.structs.replace(ask, **changes)
        return await self.road.call(
            ask.method,
            URL(ask.path, encoded=True),  # type: ignore[arg-type]
            headers=ask.headers,
            data=ask.body if data is None else data,
            skip_auto_headers=("Content-Type",),
            allow_redirects=False,
        )

    async def snapshot(self) -> dict[str, str]:
        """A digest of every table and of every key: equal before and after, when nothing was done."""
        if not self._digest_all:
            tables = await self.pg.fetch(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            )
            self._digest_all = " UNION ALL ".join(
                f"SELECT '{table}', count(*) || ' rows ' || md5(coalesce(string_agg(r::text, '' ORDER BY r::text), ''))"  # noqa: S608
                f" FROM {table} AS r"
                for (table,) in tables
            )
        seen = {f"postgres {table}": digest for table, digest in await self.pg.fetch(self._digest_all)}
        keys = [  # what counts how often something is tried is meant to change
            key async for key in self._redis.scan_iter(count=1_000) if not key.startswith(b"{limits}:")
        ]
        async with self._redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.dump(key)
            dumps = await pipe.execute()
        for key, dump in zip(keys, dumps, strict=True):
            seen[f"redis {key.decode()}"] = hashlib.sha256(dump or b"").hexdigest()
        return seen

    @asynccontextmanager
    async def unchanged(self) -> AsyncIterator[None]:
        """Fails when anything in Postgres or Redis is not what it was."""
        await self.road.flushed()
        before = await self.snapshot()
        assert any(key.startswith("redis {s00}:t:") for key in before)
        assert before["postgres tickets"].startswith("2 rows")
        yield
        await self.road.flushed()
        assert await self.snapshot() == before


def refused(answer: Answer, status: int, code: str | tuple[str, ...]) -> dict[str, Any]:
    """Checks that this is a refusal in the one shape of all errors; returns its body."""
    codes = (code,) if isinstance(code, str) else code
    assert (answer.status, answer.json and answer.json.get("code") in codes) == (status, True), answer
    headers = CIMultiDict(answer.headers)
    assert headers["Content-Type"] == "application/json"
    body: dict[str, Any] = answer.json
    assert isinstance(body["message"], str) and body["message"]
    assert body["request_id"] == headers["X-Request-Id"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    for trace in (b"Traceback", b'File "', b".py", b"asyncpg", b"redis.", b"msgspec"):
        assert trace not in answer.raw, answer
    return body
