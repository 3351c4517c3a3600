"""The lanes of the sale: POST /orders by many buyers, and POST /payments/notify for the orders that were made so."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from bench.lanes import Lane, Load, body_of, checked
from bench.load_http import HttpLoad
from bench.requests import post
from bench.run import Run, Work
from server.config import Config
from server.domain.payments import CURRENCY
from server.hosted import signing
from server.hosted.gateway import GATEWAY
from server.web.auth import Audience, Tokens

BUYERS: Final = 5_000  # each with a token of their own: fewer than the server remembers
ORDER_CONNECTIONS: Final = 64
NOTIFY_CONNECTIONS: Final = 16  # a gateway's; more would only wait for the server's Postgres pool
ORDERED: Final = b'"status":"PENDING_PAYMENT"'
SETTLED: Final = b'"result":"PAID"'
_TOKEN_S: Final = 12 * 3600


class MadeOrder(NamedTuple):
    """An order that waits for its payment."""

    order_id: str
    total_fen: int


class Orders(Lane):
    """POST /orders: one unit each, to be paid at the hosted gateway, whose page's address is made without asking it."""

    guess_rate = 1_000.0

    def __init__(self, config: Config, address: str, product_id: int) -> None:
        super().__init__("orders")
        tokens = Tokens(config.jwt_keys)
        self._address = address
        self._bearers = [
            tokens.issue(Audience.BUYER, f"demo:bench{number}", seconds=_TOKEN_S) for number in range(BUYERS)
        ]
        self._body = f'{{"items":[{{"product_id":{product_id},"qty":1}}],"gateway":"hosted"}}'.encode()
        self._asked = 0
        self.made: deque[MadeOrder] = deque()

    @property
    def over(self) -> str:
        return f"{ORDER_CONNECTIONS} connections"

    def connect(self) -> AbstractAsyncContextManager[Load]:
        return HttpLoad(self._address, ORDER_CONNECTIONS)

    def prepare(self, requests: int) -> Work:
        host, prefix = urlsplit(self._address).netloc, secrets.token_hex(12)
        asked = []
        for number in range(requests):
            bearer = self._bearers[(self._asked + number) % BUYERS]
            key = f"Idempotency-Key: {prefix}{number:08d}\r\n"
            asked.append(post("/orders", host, bearer, self._body, key))
        self._asked += requests
        return Work(asked, ORDERED, keep_every=1)

    def settle(self, run: Run) -> None:
        checked(self.name, run, wanted=run.asked, status=201)
        self.remember(run)

    def remember(self, run: Run) -> None:
        """The orders that were made wait for their payment."""
        for index, answer in run.kept.items():
            if run.passed[index]:
                said = body_of(answer)
                self.made.append(MadeOrder(said["order_id"], said["total_fen"]))


class Settlement(Lane):
    """POST /payments/notify: the gateway tells that an order was paid."""

    guess_rate = 300.0

    def __init__(self, config: Config, address: str, made: deque[MadeOrder], *, told: int = 1) -> None:
        """`told`: how often each payment is told, at once; every time the answer must be the same."""
        super().__init__("settlement")
        self._secrets = config.gateway_secrets
        self._address = address
        self._made = made
        self._told = told
        self._taken: list[MadeOrder] = []

    @property
    def over(self) -> str:
        return f"{NOTIFY_CONNECTIONS} connections"

    def connect(self) -> AbstractAsyncContextManager[Load]:
        return HttpLoad(self._address, NOTIFY_CONNECTIONS)

    def prepare(self, requests: int) -> Work:
        number = min(-(-requests // self._told), len(self._made))
        self._taken = [self._made.popleft() for _ in range(number)]
        told = [self._notification(order) for order in self._taken]
        return Work([each for each in told for _ in range(self._told)], SETTLED)

    def settle(self, run: Run) -> None:
        unpaid = [order for at, order in enumerate(self._taken) if not any(self._sent(run, at))]
        self._made.extendleft(unpaid)
        checked(self.name, run, wanted=run.asked)

    def _sent(self, run: Run, at: int) -> Sequence[float]:
        return run.sent[at * self._told : (at + 1) * self._told]

    def _notification(self, order: MadeOrder) -> bytes:
        body = msgspec.json.encode(
            {
                "gateway": GATEWAY,
                "gateway_txn_id": f"bench-{order.order_id}",
                "order_id": order.order_id,
                "status": "SUCCESS",
                "amount_fen": order.total_fen,
                "currency": CURRENCY,
                "paid_at": datetime.now(UTC),
            }
        )
        signed = signing.headers(self._secrets, body, int(time.time()))
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        return post("/payments/notify", urlsplit(self._address).netloc, None, body, lines)
