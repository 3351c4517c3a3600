"""The rules of stock and holds, between Redis and Postgres."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from server.hot import keys
from server.jobs.catch_up import CatchUp, Faults, confirm, read_all
from server.jobs.findings import Tally
from server.limits import CHECK_PAGE
from server.store import catalog, check
from server.store.check import ProductUnits
from server.store.pool import Database

Fields = Sequence[str | None]  # sellable, reserved, sold, as Redis has them
_PENDING: Final = "PENDING_PAYMENT"


class StockCheck:
    """Holds stock and holds of Redis against the record."""

    def __init__(self, db: Database, redis: Redis, catch_up: CatchUp, money: Tally) -> None:
        self._db = db
        self._redis = redis
        self._catch_up = catch_up
        self._money = money
        self._caps = Tally(
            "1-cap-redis", "In Redis, reserved + sold <= sellable for every product, none below 0"
        )
        self._equal = Tally(
            "1-stock-equal", "Redis counts the units that the record counts, and has its caps"
        )
        self._recorded = Tally(
            "1-hold-has-order", "Every hold in Redis is that of a recorded order that waits"
        )
        self._holding = Tally("1-order-has-hold", "Every order that waits for payment has its hold in Redis")
        self.tallies = [self._caps, self._equal, self._recorded, self._holding]

    async def products(self) -> None:
        """Every product of the record."""
        async with self._db.connection() as connection:
            now = await check.units_of_products(connection, None)
        levels = await self._levels([units.product_id for units in now])
        self._equal.looked(len(now))
        self._caps.looked(len(now))
        suspects = {
            fault: text
            for units in now
            for fault, text in self._judge(units, units, levels[units.product_id]).items()
        }
        await confirm(suspects, self._look_at_products)

    async def pending(self, progress: Callable[[str, int], None]) -> None:
        """Every order of the record that waits for payment."""
        after = ""
        while True:
            async with self._db.connection() as connection:
                page = await check.pending_page(connection, after, CHECK_PAGE)
            if not page:
                return
            there = await self._there(page)
            self._holding.looked(len(page))
            suspects = {
                (self._holding, order_id): _no_hold(order_id) for order_id in page if not there[order_id]
            }
            await confirm(suspects, self._look_at_orders)
            progress("orders that wait", len(page))
            after = page[-1]

    async def holds(self, order_ids: Sequence[str]) -> None:
        """Holds that Redis has."""
        async with self._db.connection() as connection:
            statuses = await check.order_statuses(connection, order_ids)
        self._recorded.looked(len(order_ids))
        suspects = {
            (self._recorded, order_id): _not_pending(order_id, statuses.get(order_id))
            for order_id in order_ids
            if statuses.get(order_id) != _PENDING
        }
        await confirm(suspects, self._look_at_orders)
        await self._look_at_money(order_ids)

    async def stocks(self, product_ids: Sequence[str]) -> None:
        """Products that Redis has stock of: the record must know them, at any moment."""
        async with self._db.connection() as connection:
            known = {str(row.product_id) for row in await catalog.stock(connection)}
        unknown = [product_id for product_id in product_ids if product_id not in known]
        self._equal.breach(*(f"product {each}: unknown to the record" for each in unknown))

    # --- Looking again --------------------------------------------------------------------------------------

    async def _look_at_products(self, subjects: Sequence[str]) -> Faults | None:
        """Postgres, Redis, Postgres: what Redis counts lies between what the record counts before and after.

        Before: what Redis has not heard of yet does not count. After: everything that Redis had decided is recorded. On
        a product that nobody buys meanwhile the two are one number; on a busy one a drift of no more than what is
        bought meanwhile is not seen.
        """
        ids = [int(subject) for subject in subjects]
        async with self._db.connection() as connection:
            before = await check.units_of_products(connection, ids)
        levels = await self._levels(ids)
        if not await self._catch_up.passed(await self._catch_up.note([keys.ORDERS_STREAM])):
            return None
        async with self._db.connection() as connection:
            after = await check.units_of_products(connection, ids)
        if not await self._catch_up.open():
            return None
        faults: Faults = {}
        for first, last in zip(before, after, strict=True):
            faults |= self._judge(first, last, levels[first.product_id])
        return faults

    async def _look_at_orders(self, subjects: Sequence[str]) -> Faults | None:
        """A hold that was there before and after the record was read; an order whose hold was gone before it was."""
        before = await self._there(subjects)
        if not await self._catch_up.passed(await self._catch_up.note([keys.ORDERS_STREAM])):
            return None
        async with self._db.transaction(read_only=True) as connection:
            statuses = await check.order_statuses(connection, subjects)
            untold = await check.told_about(connection, subjects)
        after = await self._there(subjects)
        if not await self._catch_up.open():
            return None
        faults: Faults = {}
        for order_id in subjects:
            status = statuses.get(order_id)
            if before[order_id] and after[order_id] and status != _PENDING and order_id not in untold:
                faults[self._recorded, order_id] = _not_pending(order_id, status)
            if not before[order_id] and not after[order_id] and status == _PENDING:
                faults[self._holding, order_id] = _no_hold(order_id)
        return faults

    # --- Reading Redis --------------------------------------------------------------------------------------

    async def _levels(self, product_ids: Sequence[int]) -> dict[int, Fields]:
        answers: list[Fields] = await read_all(
            self._redis,
            lambda pipe: [
                pipe.hmget(keys.stock(each), "sellable", "reserved", "sold") for each in product_ids
            ],
        )
        return dict(zip(product_ids, answers, strict=True))

    async def _there(self, order_ids: Sequence[str]) -> dict[str, bool]:
        answers: list[int] = await read_all(
            self._redis, lambda pipe: [pipe.exists(keys.hold(each)) for each in order_ids]
        )
        return {order_id: bool(there) for order_id, there in zip(order_ids, answers, strict=True)}

    async def _look_at_money(self, order_ids: Sequence[str]) -> None:
        texts: list[str | None] = await read_all(
            self._redis, lambda pipe: [pipe.hget(keys.hold(each), "order") for each in order_ids]
        )
        for order_id, text in zip(order_ids, texts, strict=True):
            if text is None:  # gone meanwhile, or loaded from the record, which has its order
                continue
            self._money.looked(1)
            if not _whole_fen(text):
                self._money.breach(f"the hold of order {order_id} has money that is no integer")

    # --- Judging --------------------------------------------------------------------------------------------

    def _judge(self, before: ProductUnits, after: ProductUnits, fields: Fields) -> Faults:
        subject = str(before.product_id)
        if all(field is None for field in fields):
            if before.capping or after.capping:  # a new product, of which Redis hears in a moment
                return {}
            return {(self._equal, subject): f"product {subject}: Redis has no stock of it"}
        try:
            sellable, reserved, sold = (int(field or "") for field in fields)
        except ValueError:
            return {(self._caps, subject): f"product {subject}: Redis counts {fields}"}
        faults: Faults = {}
        if reserved < 0 or sold < 0 or reserved + sold > sellable:
            faults[self._caps, subject] = (
                f"product {subject}: {reserved} reserved + {sold} sold, {sellable} sellable"
            )
        differences = list(_differences(before, after, (sellable, reserved, sold)))
        if differences:
            faults[self._equal, subject] = f"product {subject}: {', '.join(differences)}"
        return faults


def _differences(before: ProductUnits, after: ProductUnits, level: tuple[int, int, int]) -> Iterator[str]:
    sellable, reserved, sold = level
    settled = not (before.capping or after.capping) and before.sellable == after.sellable
    if settled and sellable != after.sellable:
        yield f"{sellable} sellable in Redis, {after.sellable} in Postgres"
    ended_least = before.ordered - before.reserved - before.committing - before.releasing
    ended_most = after.ordered - after.reserved
    # `after.releasing`: units of orders that the record refused, which Redis held until it hears so.
    if not before.ordered - ended_most <= reserved <= after.ordered - ended_least + after.releasing:
        yield f"{reserved} reserved in Redis, {after.reserved} in Postgres"
    if not before.sold - before.committing <= sold <= after.sold:
        yield f"{sold} sold in Redis, {after.sold} in Postgres"


def _not_pending(order_id: str, status: str | None) -> str:
    return f"order {order_id}: Redis holds its units, the record has {status or 'no such order'}"


def _no_hold(order_id: str) -> str:
    return f"order {order_id}: {_PENDING} in the record, no hold in Redis"


def _whole_fen(order: str) -> bool:
    try:
        read: Any = msgspec.json.decode(order)
        amounts = [read["total_fen"], *(line["unit_price_fen"] for line in read["lines"])]
    except (msgspec.DecodeError, LookupError, TypeError):
        return False
    return all(type(amount) is int for amount in amounts)
