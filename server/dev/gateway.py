"""A simulator of the generic payment gateway: a cashier page, signed notifications, and an answer to queries.

For the demo and for trying things out: it takes no money. It keeps its transactions in memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode
from uuid import uuid4

import aiohttp
import msgspec
from aiohttp import web

from server.dev import page
from server.domain.payments import CURRENCY
from server.hosted import signing
from server.hosted.gateway import GATEWAY
from server.limits import BODY_BYTES_MAX, CASHIER_SESSIONS_MAX, GATEWAY_CALL_S_MAX

NOTIFY_RETRIES_S: Final = (
    0.2,
    1.0,
    5.0,
    15.0,
)  # a lost answer is told again; the query is there for the rest
_SIGNED: Final = ("order_id", "amount_fen", "currency", "expires_at", "notify_url")

_FORM: Final = """<form method="post"><button name="outcome" value="SUCCESS">Pay · 支付</button>
<button class="no" name="outcome" value="FAILED">Let it fail · 支付失败</button></form>
<p><small>No money moves here: this page stands in for a real gateway.</small></p>"""


class Gateway:
    """One merchant's gateway: what was paid, and the sender of notifications."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = secrets
        self._paid: dict[str, dict[str, Any]] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    def app(self) -> web.Application:
        """The simulator's HTTP application."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/pay", self.cashier)
        app.router.add_post("/pay", self.pay)
        app.router.add_get("/transactions/{order_id}", self.transaction)
        app.cleanup_ctx.append(self._open)
        return app

    async def _open(self, app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=GATEWAY_CALL_S_MAX)) as session:
            self._session = session
            yield
            for task in self._sending:
                task.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)

    async def cashier(self, request: web.Request) -> web.Response:
        """The page that payUrl leads to."""
        asked = self._asked(request)
        done = asked["order_id"] in self._paid
        return _page(asked, "<p><strong>Paid · 已支付</strong></p>" if done else _FORM)

    async def pay(self, request: web.Request) -> web.Response:
        """A button of the page: the payment succeeds or fails, and the merchant is told."""
        asked = self._asked(request)
        outcome = str((await request.post()).get("outcome", ""))
        if outcome not in ("SUCCESS", "FAILED"):
            raise web.HTTPBadRequest(text="outcome is SUCCESS or FAILED")
        if int(asked["expires_at"]) < time.time():
            raise web.HTTPConflict(text="the order has expired")
        told = self._paid.get(asked["order_id"])
        if told is None:
            told = {
                "gateway": GATEWAY,
                "gateway_txn_id": f"sim-{uuid4().hex}",
                "order_id": asked["order_id"],
                "status": outcome,
                "amount_fen": int(asked["amount_fen"]),
                "currency": CURRENCY,
                "paid_at": datetime.now(UTC),
            }
            if outcome == "SUCCESS":
                if len(self._paid) >= CASHIER_SESSIONS_MAX:
                    self._paid.pop(next(iter(self._paid)))
                self._paid[asked["order_id"]] = told
            task = asyncio.create_task(self._notify(asked["notify_url"], told))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        text = "Paid · 已支付" if told["status"] == "SUCCESS" else "Failed · 支付失败"
        return _page(asked, f"<p><strong>{text}</strong></p>")

    async def transaction(self, request: web.Request) -> web.Response:
        """What the merchant may ask: the finished payment of an order, signed; 404 when there is none."""
        if not signing.holds(self._secrets, request.headers, request.path.encode(), int(time.time())):
            raise web.HTTPUnauthorized
        told = self._paid.get(request.match_info["order_id"])
        if told is None:
            raise web.HTTPNotFound
        body = msgspec.json.encode(told)
        signed = signing.headers(self._secrets, body, int(time.time()))
        return web.Response(body=body, content_type="application/json", headers=signed)

    def _asked(self, request: web.Request) -> dict[str, str]:
        """What is to be paid; the signature of the address must hold."""
        asked = {name: request.query.get(name, "") for name in _SIGNED}
        expected = signing.digest(self._secrets[0], "pay", urlencode(asked).encode())
        if request.query.get("signature") != expected:
            raise web.HTTPForbidden(text="this payment address was changed")
        return asked

    async def _notify(self, url: str, told: dict[str, Any]) -> None:
        body = msgspec.json.encode(told)
        for wait_s in (0.0, *NOTIFY_RETRIES_S):
            await asyncio.sleep(wait_s)
            signed = signing.headers(self._secrets, body, int(time.time()))
            try:
                assert self._session is not None  # noqa: S101  (opened with the application)
                async with self._session.post(
                    url, data=body, headers={**signed, "Content-Type": "application/json"}
                ) as answer:
                    if answer.status < 500:
                        return
            except (aiohttp.ClientError, TimeoutError):
                continue


def _page(asked: dict[str, str], body: str) -> web.Response:
    what = page.order(int(asked["amount_fen"]), asked["order_id"])
    return page.page("Cashier", "Gateway simulator · 收银台", what + body)
