"""Settlement: the one way by which an order becomes paid and its tickets are issued.

Notification, explicit query and reconciliation all end here. One transaction judges the news, moves the order, issues
the tickets and writes what Redis is to be told; a repeat finds the first result.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal, cast

from server.domain.errors import ErrorCode, Refusal
from server.domain.ids import new_ticket_code
from server.domain.orders import Order, OrderStatus
from server.domain.payments import CURRENCY, PaymentNews, Settled, judge
from server.domain.tickets import issue
from server.flows.lookup import OrderLookup
from server.store import attempts, orders, outbox, payments, tickets
from server.store.outbox import Kind, Message
from server.store.pool import Connection
from server.telemetry import SETTLEMENTS, TICKETS_ISSUED, alert

FREE_GATEWAY: Final = "free"
Result = Literal["PAID", "PENDING", "REFUND_REQUIRED"]
_ALERTS: Final = {
    Settled.REFUND_REQUIRED: "REFUND_REQUIRED",
    Settled.AMOUNT_MISMATCH: "PAYMENT_AMOUNT_MISMATCH",
    Settled.PAYEE_MISMATCH: "PAYMENT_PAYEE_MISMATCH",
    Settled.TRANSACTION_CONFLICT: "PAYMENT_TRANSACTION_CONFLICT",
}
_CONTRADICTIONS: Final = {
    Settled.AMOUNT_MISMATCH: ErrorCode.AMOUNT_MISMATCH,
    Settled.PAYEE_MISMATCH: ErrorCode.PAYEE_MISMATCH,
    Settled.TRANSACTION_CONFLICT: ErrorCode.TRANSACTION_CONFLICT,
}


def consistent(settled: Settled) -> Result:
    """What became of the payment. Raises Refusal when what the gateway says cannot be true of this order."""
    if settled in _CONTRADICTIONS:
        raise Refusal(_CONTRADICTIONS[settled])
    return cast(Result, settled.value)


class Settlement:
    """Settles verified payment news."""

    def __init__(self, lookup: OrderLookup) -> None:
        self._lookup = lookup

    async def settle(self, news: PaymentNews) -> Settled:
        """Judge the news and act on it, once.

        Raises Refusal: ORDER_NOT_FOUND (with an alert), NOT_RECORDED_YET and POSTGRES_UNAVAILABLE (the gateway repeats
        its notification; nothing is half done).
        """

        async def act(connection: Connection, order: Order) -> Settled:
            settled, repeated = await settle_locked(connection, order, news)
            if settled in _ALERTS and not repeated:
                # Before the commit: should this process end between the two, people are told twice rather than never.
                alert(
                    _ALERTS[settled],
                    order_id=news.order_id,
                    gateway=news.gateway,
                    gateway_txn_id=news.gateway_txn_id,
                    amount_fen=news.amount_fen,
                    given_back=news.given_back,
                )
            return settled

        try:
            settled = await self._lookup.with_lock(news.order_id, act)
        except Refusal as refusal:
            if refusal.code is ErrorCode.ORDER_NOT_FOUND:
                alert("PAYMENT_FOR_UNKNOWN_ORDER", order_id=news.order_id, gateway=news.gateway)
            raise
        SETTLEMENTS.labels(news.gateway, settled.value).inc()
        return settled


async def settle_locked(connection: Connection, order: Order, news: PaymentNews) -> tuple[Settled, bool]:
    """Judge and act inside the caller's transaction, the order's row being locked.

    Returns the result, and whether it was given before: then nothing was done, and nobody needs to be told again.
    """
    known = await payments.known(connection, news.gateway, news.gateway_txn_id)
    settled = judge(order, news, known)
    if settled not in (Settled.PAID, Settled.REFUND_REQUIRED):
        return settled, False
    if news.out_trade_no is not None:
        await attempts.paid(connection, news.out_trade_no)
    if known is not None:
        return settled, True
    if not await payments.insert(connection, news, applied=settled is Settled.PAID):
        # The same transaction is being told for another order at this very moment.
        return Settled.TRANSACTION_CONFLICT, False
    now = datetime.now(UTC)
    if settled is Settled.PAID:
        await _issue(connection, order, now)
    elif order.status in (OrderStatus.EXPIRED, OrderStatus.CANCELLED):
        await orders.end(connection, order.order_id, OrderStatus.REFUND_REQUIRED, now)
    return settled, False


async def settle_free(connection: Connection, order: Order) -> None:
    """Settle an order that costs nothing, in the very transaction that records it."""
    news = PaymentNews(
        gateway=FREE_GATEWAY,
        gateway_txn_id=order.order_id,
        order_id=order.order_id,
        success=True,
        amount_fen=0,
        currency=CURRENCY,
        paid_at=order.created_at,
    )
    await settle_locked(connection, order, news)


async def _issue(connection: Connection, order: Order, now: datetime) -> None:
    issued = issue(order, now, new_ticket_code)
    await orders.end(connection, order.order_id, OrderStatus.PAID, now)
    await attempts.begin_closing_of(connection, [order.order_id])  # so that it is not paid a second time
    await tickets.insert(connection, issued)
    await outbox.send(
        connection,
        [
            Message(Kind.COMMIT, order.order_id, order.units()),
            *(Message(Kind.TICKET, ticket.code) for ticket in issued),
        ],
    )
    TICKETS_ISSUED.inc(len(issued))
