"""One server under test, spoken to over HTTP as its clients do: buyers, gateways, gates, analysts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

import msgspec
from aiohttp import ClientSession, web

from server.app import Parts
from server.config import Config
from server.domain import qr
from server.domain.catalog import Entitlement, Product, ProductStatus, Role, Terms, Venue
from server.domain.passwords import hash_password
from server.hosted import signing
from server.hot.backlog import Backlog
from server.store import catalog, outbox
from server.store.outbox import Kind, Message
from server.web.auth import Audience

T = TypeVar("T")
# For what must come. A stalled machine is slower than any honest bound, and what never comes is no sooner told by less.
PATIENCE_S = 60.0
PASSWORD = "a long enough password"
_HASH = hash_password(PASSWORD)
LABELS = {"bus": "Bus ride", "ferry": "Ferry crossing", "museum": "博物馆 Museum"}


@dataclass(frozen=True)
class Answer:
    """What came back: status, parsed body (None when it is not JSON), raw bytes, headers."""

    status: int
    json: Any
    raw: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Road:
    """A server and the ways of using it."""

    def __init__(
        self,
        session: ClientSession,
        config: Config,
        parts: Parts,
        backlog: Backlog,
        *,
        url: str = "",
        app: web.Application | None = None,
        stop: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.session = session
        self.config = config
        self.parts = parts
        self.backlog = backlog
        self.url = url
        self._app = app
        self._stop = stop
        self._tokens: dict[str, str] = {}

    async def stop(self) -> None:
        """Stop the server behind the address as SIGTERM would, when it runs in this process."""
        assert self._stop is not None
        await self._stop()

    @property
    def app(self) -> web.Application:
        """The application behind the address, when it runs in this process."""
        assert self._app is not None
        return self._app

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        """One request."""
        async with self.session.request(method, path, **options) as answer:
            raw = await answer.read()
            parsed = msgspec.json.decode(raw) if answer.content_type == "application/json" and raw else None
            return Answer(answer.status, parsed, raw, dict(answer.headers))

    async def until_ready(self) -> None:
        """Wait until the gates are open."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.call("GET", "/readyz")).status != 200:
                await asyncio.sleep(0.02)
                await self.backlog.look()

    async def jobs_by_hand(self, making: Awaitable[T]) -> T:
        """Await `making` on a server without jobs: the gates are opened and the outbox is published, nothing else."""
        await self.parts.rehydration.guard()
        await self.backlog.look()
        task = asyncio.ensure_future(making)
        while not task.done():
            await self.parts.publisher.publish()
            await asyncio.wait([task], timeout=0.01)
        return task.result()

    # --- setting the scene, straight in the record ---------------------------------------------------------

    async def product(
        self,
        functions: dict[str, int] | None = None,
        *,
        sku: str | None = None,
        price_fen: int = 1000,
        sellable: int = 100,
        status: ProductStatus = ProductStatus.ACTIVE,
        **window: Any,
    ) -> int:
        """A product for sale with its functions (default: one use of each), followed by server and stock; its id."""
        parts = functions or {"bus": 1, "ferry": 1, "museum": 1}
        valid = {name: window.pop(name, None) for name in ("valid_from", "valid_until", "valid_days")}
        async with self.parts.database.transaction() as connection:
            for code in parts:
                await catalog.put_function(connection, code, LABELS.get(code, code.title()))
            product_id = await catalog.put_product(
                connection,
                Product(
                    id=0,
                    sku=sku or f"SKU-{uuid4().hex[:8]}",
                    price_fen=price_fen,
                    status=status,
                    sale_start_at=window.pop("sale_start_at", None),
                    sale_end_at=window.pop("sale_end_at", None),
                    sellable=sellable,
                    terms=Terms(
                        name="Island day 海岛一日",
                        functions=tuple(
                            Entitlement(c, LABELS.get(c, c.title()), q) for c, q in parts.items()
                        ),
                        **valid,
                    ),
                ),
            )
            await outbox.send(connection, [Message(Kind.CAP, str(product_id))])
        assert not window
        await self.parts.directory.refresh()
        async with asyncio.timeout(PATIENCE_S):
            while not await self.parts.stock.levels([product_id]):
                await asyncio.sleep(0.01)
        return product_id

    async def venue(self, code: str, functions: list[str]) -> None:
        """A venue that serves these functions."""
        async with self.parts.database.transaction() as connection:
            for function in functions:
                await catalog.put_function(connection, function, LABELS.get(function, function.title()))
            await catalog.put_venue(connection, Venue(code, f"Venue {code}", frozenset(functions)))
        await self.parts.directory.refresh()

    async def staff(self, username: str, role: Role, venue: str | None = None) -> None:
        """An operator or analyst with PASSWORD, unless there is one already."""
        async with self.parts.database.transaction() as connection:
            await catalog.add_operator(connection, username, role, venue, _HASH)
        await self.parts.directory.refresh()

    # --- tokens --------------------------------------------------------------------------------------------

    def buyer(self, name: str = "ann") -> dict[str, str]:
        """Headers of a buyer, with a token as the demo login makes it."""
        token = self._tokens.get(name)
        if token is None:
            tokens = _tokens(self.config)
            token = self._tokens[name] = tokens.issue(Audience.BUYER, f"demo:{name}", seconds=3600)
        return {"Authorization": f"Bearer {token}"}

    async def gate(self, username: str = "gina", venue: str | None = None) -> dict[str, str]:
        """Headers of a gate operator, made and logged in when first asked for."""
        return await self._staff_headers(username, Role.GATE, venue)

    async def analyst(self, username: str = "amy") -> dict[str, str]:
        """Headers of an analyst, made and logged in when first asked for."""
        return await self._staff_headers(username, Role.ANALYST, None)

    async def _staff_headers(self, username: str, role: Role, venue: str | None) -> dict[str, str]:
        if username not in self._tokens:
            await self.staff(username, role, venue)
            login = {"username": username, "password": PASSWORD}
            answer = await self.call("POST", "/operators/login", json=login)
            assert answer.status == 200, answer
            self._tokens[username] = answer.json["operator_token"]
        return {"Authorization": f"Bearer {self._tokens[username]}"}

    # --- the road ------------------------------------------------------------------------------------------

    async def order(
        self, items: dict[int, int], *, buyer: str = "ann", idempotency_key: str | None = None
    ) -> Answer:
        """Order units of products, to be paid at the hosted gateway, which `notify` speaks for."""
        return await self.call(
            "POST",
            "/orders",
            headers=self.buyer(buyer) | {"Idempotency-Key": idempotency_key or uuid4().hex},
            json={
                "items": [{"product_id": product, "qty": qty} for product, qty in items.items()],
                "gateway": "hosted",
            },
        )

    async def notify(
        self,
        order_id: str,
        amount_fen: int,
        *,
        txn: str | None = None,
        secret: bytes | None = None,
        at: int | None = None,
        **changes: Any,
    ) -> Answer:
        """The gateway's notification of a payment, signed."""
        body = msgspec.json.encode(
            {
                "gateway": "hosted",
                "gateway_txn_id": txn or f"txn-{order_id}",
                "order_id": order_id,
                "status": "SUCCESS",
                "amount_fen": amount_fen,
                "currency": "CNY",
                "paid_at": datetime.now(UTC),
                **changes,
            }
        )
        secrets = [secret] if secret else self.config.gateway_secrets
        signed = signing.headers(secrets, body, at if at is not None else int(time.time()))
        return await self.call(
            "POST", "/payments/notify", data=body, headers={**signed, "Content-Type": "application/json"}
        )

    async def buy(self, items: dict[int, int], *, buyer: str = "ann") -> list[dict[str, Any]]:
        """Order, pay, and return the buyer's tickets of that order."""
        made = await self.order(items, buyer=buyer)
        assert made.status == 201, made
        if made.json["total_fen"]:
            paid = await self.notify(made.json["order_id"], made.json["total_fen"])
            assert paid.status == 200, paid
        owned = await self.call("GET", "/my/tickets", headers=self.buyer(buyer))
        return [t for t in owned.json["tickets"] if t["order_id"] == made.json["order_id"]]

    async def qr(self, code: str, *, buyer: str = "ann", image: str = "none") -> str:
        """A fresh QR token of the buyer's ticket, however often it was shown already."""
        answer = await self.call("POST", f"/qr/{code}?image={image}", headers=self.buyer(buyer))
        if answer.status == 429:
            return self.sealed(code)
        assert answer.status == 200, answer
        token: str = answer.json["qr_token"]
        return token

    def sealed(self, code: str) -> str:
        """The same without asking the server."""
        now_ms = int(time.time() * 1000)
        return qr.issue(qr.QrKeys(dict(self.config.qr_keys)), code, now_ms=now_ms, ttl_ms=60_000).token

    async def scan(
        self, token: str, function: str, *, gate: str = "gina", scan_id: str | None = None, **more: Any
    ) -> Answer:
        """Present a QR at a gate."""
        return await self.call(
            "POST",
            "/venue/scan",
            headers=await self.gate(gate),
            json={"qr_token": token, "function_code": function, "scan_id": scan_id or uuid4().hex, **more},
        )

    async def alerts(self, name: str) -> float:
        """How often this alert was raised so far, according to /metrics."""
        text = (await self.call("GET", "/metrics")).raw.decode()
        prefix = f'gateline_alerts_total{{alert="{name}"}} '
        return sum(float(line.removeprefix(prefix)) for line in text.splitlines() if line.startswith(prefix))

    async def flushed(self) -> None:
        """Wait until everything that Redis decided is in Postgres, and the other way round."""
        async with asyncio.timeout(PATIENCE_S):
            while any([await self.parts.streams.length(name) for name in self.parts.stream_names]):
                await asyncio.sleep(0.01)
            while True:
                async with self.parts.database.connection() as connection:
                    waiting, _ = await outbox.backlog(connection)
                if not waiting:
                    return
                await asyncio.sleep(0.01)


def _tokens(config: Config) -> Any:
    from server.web.auth import Tokens

    return Tokens(config.jwt_keys)
