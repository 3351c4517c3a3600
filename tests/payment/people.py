"""People who buy, each in their own way: they change their minds, tap twice, pay late, and pay what they cancelled."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, ClassVar, TypeAlias
from uuid import uuid4

from tests.payment.shop import AT_A_DESKTOP, BRIDGE, IN_MINIPROGRAM, IN_WECHAT, ON_A_PHONE, Shop
from tests.road import Answer

WAYS: dict[str, dict[str, Any]] = {
    "bridge": {"agent": IN_MINIPROGRAM, "context": BRIDGE},
    "jsapi": {"agent": IN_WECHAT},
    "native": {"agent": AT_A_DESKTOP},
    "h5": {"agent": ON_A_PHONE},
}
TRIES = 12  # of one request that is told 503: then a person gives up
AT_ONCE = 40
PATIENCE_S = 6.0
Offer: TypeAlias = Answer | None  # None: there is nothing to pay


class Person:
    """One person with one order in mind. `tally` counts what happened to all of them."""

    def __init__(
        self,
        shop: Shop,
        product: int,
        user: str,
        rng: random.Random,
        tally: Counter[str],
        busy: asyncio.Semaphore,
    ) -> None:
        self._shop = shop
        self._product = product
        self._user = user
        self._rng = rng
        self._tally = tally
        self._busy = busy
        self._order_id = ""

    async def buy(self, plan: str) -> str:
        """Do as the plan says; the order's id, empty when none came of it."""
        if plan == "late":  # asleep most of the time
            await self._late()
        else:
            async with self._busy:
                await self.PLANS[plan](self)
        return self._order_id

    # --- what they have in mind ------------------------------------------------------------------------------

    async def _plain(self) -> None:
        """Pay, and look until it is paid."""
        await self._pay(await self._order(self._way()))
        await self._until_settled()

    async def _silent(self) -> None:
        """Pay, and never come back: only WeChat's word, or our asking, finds it."""
        await self._pay(await self._order(self._way()))

    async def _resumed(self) -> None:
        """Lose the page, and pay by the same way or another."""
        await self._order(way := self._way())
        await self._pay(await self._resume(self._rng.choice((way, self._way()))))

    async def _switched(self) -> None:
        """Switch once or twice, and pay what came last."""
        await self._pay((await self._offers())[-1])
        await self._until_settled()

    async def _went_back(self) -> None:
        """Switch, but pay what came first; when that does not work, what came last."""
        offers = await self._offers()
        if not await self._pay(offers[0]):
            await self._pay(offers[-1])

    async def _both(self) -> None:
        """Switch, and pay first and last at the same time."""
        offers = await self._offers()
        await asyncio.gather(self._pay(offers[0]), self._pay(offers[-1]))

    async def _while_switching(self) -> None:
        """Pay what came first while the switch is under way, and then what that gives."""
        ways = self._rng.sample(list(WAYS), 2)
        first = await self._order(ways[0])
        last, _ = await asyncio.gather(self._resume(ways[1]), self._soon(self._pay(first)))
        await self._pay(last)

    async def _two_windows(self) -> None:
        """Ask for two ways at the same time, and pay both."""
        ways = self._rng.sample(list(WAYS), 3)
        await self._order(ways[0])
        offers = await asyncio.gather(self._resume(ways[1]), self._resume(ways[2]))
        await asyncio.gather(*(self._pay(offer) for offer in offers))

    async def _double_tap(self) -> None:
        """Order twice under one key, by one way or two, and pay both."""
        key, way = uuid4().hex, self._way()
        ways = (way, self._rng.choice((way, self._way())))
        offers = await asyncio.gather(*(self._order(each, key) for each in ways))
        await asyncio.gather(*(self._pay(offer) for offer in offers))
        await self._until_settled()

    async def _cancelled(self) -> None:
        """Cancel with the payment's dialog open, and pay all the same."""
        offer = await self._order(self._way())
        if self._rng.random() < 0.5:
            await self._cancel()
            await self._pay(offer)
        else:
            await asyncio.gather(self._cancel(), self._soon(self._pay(offer)))

    async def _cancelled_while_switching(self) -> None:
        """Cancel before the second way is there, and pay whatever can be paid."""
        ways = self._rng.sample(list(WAYS), 2)
        offers = [await self._order(ways[0])]
        last, _ = await asyncio.gather(self._resume(ways[1]), self._soon(self._cancel()))
        for offer in (*offers, last):
            await self._pay(offer)

    async def _abandoned(self) -> None:
        """Look at the dialog, and leave."""
        await self._pay(await self._order(self._way()), outcome="CANCEL")

    async def _late(self) -> None:
        """Pay in the last two seconds, or after them."""
        async with self._busy:
            offer = await self._order(self._way())
        if offer is None:
            return
        end = datetime.fromisoformat(offer.json["expires_at"]).timestamp()
        await asyncio.sleep(end - time.time() - self._rng.uniform(-0.3, 2.0))
        await self._pay(offer)
        if self._rng.random() < 0.3:
            await self._call(lambda: self._shop.query(self._order_id, user=self._user))

    PLANS: ClassVar[dict[str, Callable[[Person], Awaitable[None]]]] = {
        "plain": _plain,
        "silent": _silent,
        "resumed": _resumed,
        "switched": _switched,
        "went back": _went_back,
        "both": _both,
        "while switching": _while_switching,
        "two windows": _two_windows,
        "double tap": _double_tap,
        "cancelled": _cancelled,
        "cancelled while switching": _cancelled_while_switching,
        "abandoned": _abandoned,
        "late": _late,
    }

    # --- what they do ----------------------------------------------------------------------------------------

    def _way(self) -> str:
        return self._rng.choice(list(WAYS))

    async def _offers(self) -> list[Offer]:
        """An order, and one switch or two."""
        ways = self._rng.sample(list(WAYS), self._rng.choice((2, 2, 3)))
        return [await self._order(ways[0]), *[await self._resume(way) for way in ways[1:]]]

    async def _order(self, way: str, key: str = "") -> Offer:
        key = key or uuid4().hex
        items = [{"product_id": self._product, "qty": 1 + key.count("0") % 3}]  # the same under the same key
        answer = await self._call(
            lambda: self._shop.order(self._product, user=self._user, key=key, items=items, **WAYS[way])
        )
        self._order_id = self._order_id or answer.json.get("order_id", "")
        return self._payable(answer)

    async def _resume(self, way: str) -> Offer:
        if not self._order_id:
            return None
        return self._payable(
            await self._call(lambda: self._shop.resume(self._order_id, user=self._user, **WAYS[way]))
        )

    async def _cancel(self) -> None:
        if self._order_id:
            await self._call(lambda: self._shop.cancel(self._order_id, user=self._user))

    async def _pay(self, offer: Offer, outcome: str = "SUCCESS") -> bool:
        if offer is None:
            return False
        told = await self._shop.pay(offer, user=self._user, outcome=outcome)
        self._tally[f"phone: {told.removeprefix('requestPayment:')}"] += 1
        return told == "requestPayment:ok"

    async def _until_settled(self) -> None:
        """As the page does after a launch: look often, and have WeChat asked now and then."""
        until = time.monotonic() + PATIENCE_S
        while self._order_id and time.monotonic() < until:
            for look in (self._shop.status, self._shop.query, self._shop.status):
                if look is self._shop.query:
                    await look(self._order_id, user=self._user)
                elif await look(self._order_id, user=self._user) != "PENDING_PAYMENT":
                    return
                await asyncio.sleep(0.3)

    async def _soon(self, act: Awaitable[Any]) -> Any:
        await asyncio.sleep(self._rng.uniform(0, 0.1))
        return await act

    async def _call(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """As a client does: what is told 503 is sent again, with the same key, a bounded number of times."""
        for number in range(TRIES):
            answer = await call()
            if answer.status != 503:
                return answer
            await asyncio.sleep(self._rng.uniform(0.05, 0.15) * min(number + 1, 4))
        self._tally["gave up after 503"] += 1
        return answer

    def _payable(self, answer: Answer) -> Offer:
        return answer if answer.status in (200, 201) and answer.json["payPayload"] else None
