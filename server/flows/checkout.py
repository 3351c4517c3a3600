"""Checkout: from a buyer's request to an order that holds its units and can be paid."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec

from server.domain.errors import ErrorCode, Refusal
from server.domain.ids import new_order_id
from server.domain.orders import NewOrder, Order, OrderStatus, WantedLine, draft
from server.domain.payments import Channel, Payer, PaymentProvider, Prepared
from server.flows.directory import DirectoryFollower
from server.flows.lookup import OrderLookup
from server.flows.settle import Settlement, consistent
from server.hot.stock import HoldAnswer, HoldCode, Stock
from server.hot.throttle import Throttle
from server.limits import READ_OWN_WRITE_S_MAX
from server.store import orders, outbox
from server.store.outbox import Kind, Message
from server.store.pool import Connection, Database
from server.telemetry import ORDERS

_FREE = Prepared(Channel.FREE, {})
_UNPAID = frozenset({OrderStatus.PENDING_PAYMENT, OrderStatus.EXPIRED, OrderStatus.CANCELLED})


class Offer(msgspec.Struct, frozen=True):
    """An order with the way to pay it; `payment` is None once there is nothing to pay any more."""

    order: Order
    payment: Prepared | None


def utc_now() -> datetime:
    """The wall clock, to the millisecond that the wire shows."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


class Checkout:
    """Everything that a buyer may do with an order."""

    def __init__(  # noqa: PLR0913 - the parts that it stands on, and a clock that tests can hold
        self,
        db: Database,
        directory: DirectoryFollower,
        stock: Stock,
        lookup: OrderLookup,
        settlement: Settlement,
        provider: PaymentProvider,
        throttle: Throttle,
        *,
        hold_s: int,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._db = db
        self._directory = directory
        self._stock = stock
        self._lookup = lookup
        self._settlement = settlement
        self._provider = provider
        self._throttle = throttle
        self._hold = timedelta(seconds=hold_s)
        self._now = now

    async def create(
        self, payer: Payer, idempotency_key: str, wanted: list[WantedLine], patience_s: float | None = None
    ) -> Offer:
        """Hold the units and make the order, once per idempotency key; then prepare its payment.

        An order that is not held within `patience_s` seconds is refused: DEADLINE_PASSED.
        Raises Refusal: PRODUCT_NOT_FOUND, IDEMPOTENCY_CONFLICT, PRODUCT_INACTIVE, SOLD_OUT, TOO_MANY_ORDERS,
        GATE_CLOSED, and whatever the provider's rules refuse, before anything is held.
        """
        now = self._now()
        drafted = draft(wanted, self._directory.current, now)
        if drafted.total_fen > 0:
            self._provider.select(payer)
        order = NewOrder(
            order_id=new_order_id(int(now.timestamp() * 1000), os.urandom(10)),
            buyer_id=payer.buyer_id,
            idempotency_key=idempotency_key,
            payload_hash=drafted.payload_hash,
            total_fen=drafted.total_fen,
            created_at=now,
            expires_at=now + self._hold,
            lines=drafted.lines,
        )
        answer = await self._stock.hold(order, drafted.on_sale, patience_s)
        ORDERS.labels(answer.code.name).inc()
        if answer.code is HoldCode.HELD:
            made = Order.just_made(order)
        elif answer.code is HoldCode.REPLAYED:
            made = await self._replayed(answer.subject, order)
        else:
            raise _refusal(answer, order)
        try:
            return await self._offer(made, payer)
        except Refusal as refusal:
            if refusal.code is not ErrorCode.ORDER_NOT_PAYABLE:
                raise
            return Offer(await self._lookup.find(made.order_id), None)  # it ended, or was paid, meanwhile

    async def _replayed(self, order_id: str, again: NewOrder) -> Order:
        """The order made under the same key before.

        Redis forgets a key after a day and may then have held another order under it, which the record refused: the
        first one stands.
        """
        try:
            return await self._lookup.find(order_id)
        except Refusal as refusal:
            if refusal.code is not ErrorCode.ORDER_NOT_FOUND:
                raise
        async with self._db.connection() as connection:
            first = await orders.of_key(connection, again.buyer_id, again.idempotency_key)
        if first is None:
            raise Refusal(ErrorCode.ORDER_NOT_FOUND)
        first_id, payload_hash = first
        if payload_hash != again.payload_hash:
            raise Refusal(ErrorCode.IDEMPOTENCY_CONFLICT)
        return await self._lookup.find(first_id)

    async def resume(self, payer: Payer, order_id: str) -> Offer:
        """A fresh payment of an order that still waits for it. Raises Refusal(ORDER_NOT_PAYABLE) otherwise."""
        order = await self.of_buyer(payer.buyer_id, order_id)
        if not order.payable(self._now()):
            raise Refusal(ErrorCode.ORDER_NOT_PAYABLE, status=order.status.value)
        return await self._offer(order, payer)

    async def of_buyer(self, buyer_id: str, order_id: str) -> Order:
        """The buyer's order. Raises Refusal(ORDER_NOT_FOUND), also for the order of someone else."""
        return await self._lookup.find(order_id, buyer_id)

    async def orders_of(self, buyer_id: str, before: str, limit: int) -> list[Order]:
        """A page of the buyer's recorded orders, newest first, older than the order id `before`."""
        async with self._db.connection() as connection:
            return await orders.of_buyer(connection, buyer_id, before, limit)

    async def query(self, buyer_id: str, order_id: str) -> Order:
        """Ask the provider about an unpaid order and settle what it says; then the order as it stands.

        Also about one that has ended: the money may have come too late, and the news of it been lost.

        Raises Refusal: GATEWAY_UNAVAILABLE, TOO_MANY_REQUESTS; AMOUNT_MISMATCH, PAYEE_MISMATCH and TRANSACTION_CONFLICT
        when the provider's word contradicts the order.
        """
        order = await self.of_buyer(buyer_id, order_id)
        if order.status not in _UNPAID or order.total_fen == 0:
            return order
        await self._throttle.inquiry(order_id)
        news = await self._provider.query(order_id)
        for settled in [await self._settlement.settle(each) for each in news]:
            consistent(settled)
        return await self._lookup.find(order_id)

    async def cancel(self, buyer_id: str, order_id: str) -> Order:
        """End an unpaid order and give its units back; cancelling again changes nothing.

        Raises Refusal: ORDER_NOT_FOUND, ORDER_NOT_CANCELLABLE, NOT_RECORDED_YET.
        """

        await self.of_buyer(buyer_id, order_id)  # before the row is locked: nobody else gets so far

        async def act(connection: Connection, order: Order) -> Order:
            if order.status is OrderStatus.CANCELLED:
                return order
            if order.status is not OrderStatus.PENDING_PAYMENT:
                raise Refusal(ErrorCode.ORDER_NOT_CANCELLABLE, status=order.status.value)
            await orders.end(connection, [order_id], OrderStatus.CANCELLED, self._now())
            await outbox.send(connection, [Message(Kind.RELEASE, order_id, order.units())])
            return msgspec.structs.replace(order, status=OrderStatus.CANCELLED)

        return await self._lookup.with_lock(order_id, act)

    async def _offer(self, order: Order, payer: Payer) -> Offer:
        if order.total_fen == 0:
            return Offer(await self._issued(order), _FREE)
        if not order.payable(self._now()):
            return Offer(order, None)
        try:
            return Offer(order, await self._provider.prepare(order, self._provider.select(payer), payer))
        except Refusal as refusal:
            refusal.detail["order_id"] = order.order_id  # which stays payable, by POST /orders/{id}/pay
            raise

    async def _issued(self, order: Order) -> Order:
        """A free order is issued by the flusher that records it: wait for that, a bounded time."""
        deadline = asyncio.get_running_loop().time() + READ_OWN_WRITE_S_MAX
        while order.status is OrderStatus.PENDING_PAYMENT and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
            order = await self._lookup.find(order.order_id)
        return order


def _refusal(answer: HoldAnswer, order: NewOrder) -> Refusal:
    if answer.code is HoldCode.CONFLICT:
        return Refusal(ErrorCode.IDEMPOTENCY_CONFLICT)
    if answer.code in (HoldCode.INACTIVE, HoldCode.SOLD_OUT):
        product_id = order.lines[int(answer.subject) - 1].product_id
        if answer.code is HoldCode.INACTIVE:
            return Refusal(ErrorCode.PRODUCT_INACTIVE, product_id=product_id)
        return Refusal(ErrorCode.SOLD_OUT, product_id=product_id, available=answer.figure)
    if answer.code is HoldCode.TOO_MANY:
        return Refusal(ErrorCode.TOO_MANY_ORDERS, retry_after_s=math.ceil(answer.figure / 1000))
    return Refusal(ErrorCode.GATE_CLOSED)
