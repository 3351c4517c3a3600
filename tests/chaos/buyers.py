"""Buyers: they order, sometimes twice by one key, then pay, pay late, cancel, or let be; and show what they bought."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.chaos.client import Client, Day, Told
from tests.chaos.gateway import PayingGateway
from tests.chaos.installation import HOLD_S
from tests.chaos.scene import Product, Scene

PLANS = {"pay": 55, "late": 10, "cancel": 15, "abandon": 12, "walk off": 8}


@dataclass(frozen=True)
class Ticket:
    """What a buyer shows at gates."""

    code: str
    headers: dict[str, str]
    functions: tuple[str, ...]


class Buyer(Client):
    """One buyer; `bought` is told of every ticket."""

    def __init__(
        self, day: Day, name: str, scene: Scene, gateway: PayingGateway, bought: Callable[[Ticket], None]
    ) -> None:
        super().__init__(day, name)
        self._scene = scene
        self._gateway = gateway
        self._bought = bought
        self._headers = scene.buyers[name]

    async def work(self) -> None:
        """Until the day closes."""
        while not self.day.closing.is_set():
            product = self.dice.choices([self._scene.day, self._scene.rare, self._scene.free], [60, 30, 10])[
                0
            ]
            qty = self.dice.randint(1, 3)
            made = await self._order(product, qty, self.next_id("order"))
            if made is not None and made.status == 201:
                await self._go_on(product, made.body)
            await self.pause(0.05, 0.4)

    async def _order(self, product: Product, qty: int, key: str) -> Told | None:
        turn = self.dice.random()
        if turn < 0.15:  # a double tap: the same order by both servers at once
            doors = self.day.doors
            made, other = await asyncio.gather(
                self._ask(product, qty, key, doors[0]), self._ask(product, qty, key, doors[-1])
            )
            return made or other
        made = await self._ask(product, qty, key)
        if turn < 0.25:  # asked again after the answer: the same order
            await self._ask(product, qty, key)
        elif turn < 0.30:  # another order by the same key: a conflict, never a second order
            await self._ask(product, qty + 1, key, kind="conflict")
        return made

    async def _ask(
        self, product: Product, qty: int, key: str, door: str = "", kind: str = "order"
    ) -> Told | None:
        what = {"buyer": self.name, "product": product.id, "qty": qty, "total_fen": qty * product.price_fen}
        return await self.insist(
            kind, key, "POST", "/orders", door=door, what=what,
            headers={**self._headers, "Idempotency-Key": key},
            json={"items": [{"product_id": product.id, "qty": qty}], "gateway": "hosted"},
        )  # fmt: skip

    async def _go_on(self, product: Product, order: dict[str, Any]) -> None:
        order_id, total_fen = order["order_id"], order["total_fen"]
        if product.price_fen == 0:
            await self._fetch(product, order_id)
            return
        plan = self.dice.choices(list(PLANS), list(PLANS.values()))[0]
        if plan == "pay":
            await self.pause(0.0, 0.3)
            told = await self._gateway.pay(order_id, total_fen)
            if told is not None and told.status == 200 and told.body["result"] == "PAID":
                await self._fetch(product, order_id)
        elif plan == "late":  # about when the order expires: whoever is first wins
            await self.linger(HOLD_S - 1, HOLD_S + 2)
            await self._gateway.pay(order_id, total_fen)
        elif plan == "cancel":
            paying = (
                asyncio.create_task(self._gateway.pay(order_id, total_fen))
                if self.dice.random() < 0.3
                else None
            )
            await self.insist(
                "cancel", order_id, "POST", f"/orders/{order_id}/cancel", headers=self._headers, what={}
            )
            if paying is not None:
                await paying
        elif plan == "abandon":
            await self.pause(0.1, 1.0)
            await self.insist("look", order_id, "GET", f"/orders/{order_id}", headers=self._headers, what={})

    async def _fetch(self, product: Product, order_id: str) -> None:
        """The tickets of an order that was told to be paid; they must be there."""
        for _ in range(20):
            told = await self.insist(
                "tickets", order_id, "GET", "/my/tickets", headers=self._headers, what={}
            )
            if told is None or told.status != 200:
                return
            mine = [each for each in told.body["tickets"] if each["order_id"] == order_id]
            for each in mine:
                self._bought(Ticket(each["ticket_code"], self._headers, product.functions))
            if mine or self.day.closing.is_set():
                return
            await self.pause(0.1, 0.3)  # a free order is settled by the flusher
