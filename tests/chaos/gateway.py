"""The payment gateway: it tells of payments, signed, until it is heard; also twice, late, again, and wrongly."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

from server.hosted import signing
from tests.chaos.client import Client, Day, Told


class PayingGateway(Client):
    """One merchant's gateway. Its clock is right, whatever the servers' say."""

    def __init__(self, day: Day, name: str, secret: bytes) -> None:
        super().__init__(day, name)
        self._secret = secret
        self._later: set[asyncio.Task[Any]] = set()

    async def pay(self, order_id: str, amount_fen: int) -> Told | None:
        """A buyer has paid: the merchant hears of it, in one of the ways in which merchants do."""
        txn = self.next_id("txn")
        turn = self.dice.random()
        if turn < 0.10:  # a payment of another amount comes first, and must pay nothing
            wrong = self.next_id("wrong")
            await self._notify(order_id, amount_fen + 1, wrong, wrong=True)
        if turn < 0.30:  # told twice at once, by two of the gateway's own machines
            doors = self.day.doors
            first, _ = await asyncio.gather(
                self._notify(order_id, amount_fen, txn, door=doors[0]),
                self._notify(order_id, amount_fen, txn, door=doors[-1]),
            )
            return first
        told = await self._notify(order_id, amount_fen, txn)
        if turn < 0.50:
            self._afterwards(self._again(order_id, amount_fen, txn))
        elif turn < 0.55:  # the buyer paid twice: the second one is to be given back
            await self._notify(order_id, amount_fen, self.next_id("second"))
        return told

    async def settle(self) -> None:
        """Wait for what is told later."""
        await asyncio.gather(*self._later)

    def _afterwards(self, telling: Any) -> None:
        task = asyncio.create_task(telling)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _again(self, order_id: str, amount_fen: int, txn: str) -> None:
        await self.linger(0.5, 4.0)
        await self._notify(order_id, amount_fen, txn)

    async def _notify(
        self, order_id: str, amount_fen: int, txn: str, *, wrong: bool = False, door: str = ""
    ) -> Told | None:
        body = json.dumps(
            {
                "gateway": "hosted",
                "gateway_txn_id": txn,
                "order_id": order_id,
                "status": "SUCCESS",
                "amount_fen": amount_fen,
                "currency": "CNY",
                "paid_at": datetime.now(UTC).isoformat(),
            }
        ).encode()
        headers = signing.headers([self._secret], body, int(time.time()))
        what = {"order_id": order_id, "amount_fen": amount_fen, "wrong": wrong}
        return await self.insist(
            "notify", txn, "POST", "/payments/notify", door=door, what=what,
            data=body, headers={**headers, "Content-Type": "application/json"},
        )  # fmt: skip
