"""Settlement: the one way by which an order becomes paid and its tickets are issued.

Notification, explicit query and reconciliation all end here. One transaction judges the news, moves the order, issues
the tickets and writes what Redis is to be told; a repeat finds the first result.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal, cast

from server.domain.errors import ErrorCode, Refusal
from server.domain.ids import new_ticket_code
from server.domain.orders import Order, OrderStatus
from server.domain.payments import PaymentNews, Settled, judge
from server.domain.tickets import issue
from server.flows.lookup import OrderLookup
from server.store import attempts, orders, outbox, payments, tickets
from server.store.outbox import Kind, Message
from server.store.pool import Connection
from server.telemetry import SETTLEMENTS, TICKETS_ISSUED, alert

FREE_GATEWAY: Final = "free"
Result = Literal["PAID", "PENDING", "REFUND_REQUIRED"]
_RECORDED: Final = (Settled.PAID, Settled.REFUND_REQUIRED)  # what has a row in `payments`
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
    settled = judge(order, news, None)
    # Most news is told for the first time: then recording it tells so, and nothing needs to be asked.
    first = settled in _RECORDED and await payments.insert(connection, news, applied=settled is Settled.PAID)
    if not first:
        settled = judge(order, news, await payments.known(connection, news.gateway, news.gateway_txn_id))
    if settled in _RECORDED and news.out_trade_no is not None:
        await attempts.paid(connection, news.out_trade_no)
    now = datetime.now(UTC)
    if first and settled is Settled.PAID:
        await _issue(connection, [order], now)
    elif first and order.status in (OrderStatus.EXPIRED, OrderStatus.CANCELLED):
        await orders.end(connection, [order.order_id], OrderStatus.REFUND_REQUIRED, now)
    return settled, settled in _RECORDED and not first


async def settle_free(connection: Connection, free: Sequence[Order]) -> None:
    """Settle orders that cost nothing, in the very transaction that records them, all with a few statements."""
    await payments.insert_free(connection, FREE_GATEWAY, [order.order_id for order in free])
    await _issue(connection, free, datetime.now(UTC))


async def _issue(connection: Connection, paid: Sequence[Order], now: datetime) -> None:
    """The orders are paid: their tickets, and what Redis is to be told; nothing can pay them a second time."""
    issued = [(order, issue(order, now, new_ticket_code)) for order in paid]
    await orders.end(connection, [order.order_id for order in paid], OrderStatus.PAID, now)
    await tickets.insert(connection, [ticket for _, of_order in issued for ticket in of_order])
    messages = []
    for order, of_order in issued:
        messages.append(Message(Kind.COMMIT, order.order_id, order.units()))
        messages += (Message(Kind.TICKET, ticket.code) for ticket in of_order)
    await outbox.send(connection, messages)
    TICKETS_ISSUED.inc(sum(len(of_order) for _, of_order in issued))
