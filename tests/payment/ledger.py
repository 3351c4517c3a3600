"""Both sides' books after a run, and what does not agree between them (pure)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from server.dev.wechat import Seen
from server.dev.wechat_book import TradeState

_LIVE = frozenset({"PREPARING", "OPEN", "CLOSING"})
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Books:
    """Ours, from the record; theirs, from the simulator. Alerts as they stand in the logs."""

    orders: Mapping[str, Row]  # id -> status, total_fen, units, tickets
    payments: Sequence[Row]  # gateway_txn_id, order_id, status, amount_fen
    attempts: Mapping[str, Row]  # out_trade_no -> order_id, phase, handed_out
    theirs: Mapping[str, Seen]  # out_trade_no -> what WeChat has
    posted: Mapping[str, set[bytes]]  # out_trade_no -> the different requests under it
    alerts: Sequence[Row]  # alert, gateway_txn_id, order_id, ...

    @property
    def taken(self) -> dict[str, str]:
        """Transactions that WeChat took money for -> the number of each."""
        return {seen.transaction_id: number for number, seen in self.theirs.items() if seen.transaction_id}

    @property
    def left_open(self) -> list[str]:
        """Numbers that WeChat has open and that nobody could ever launch.

        A prepay was sent again while its number was being closed, which WeChat did not know yet: what it then made
        was told to nobody. It ends with the order.
        """
        unclosed = [number for number, seen in self.theirs.items() if seen.state is TradeState.NOTPAY]
        return [number for number in unclosed if not self.attempts[number]["handed_out"]]

    @property
    def paid_twice(self) -> dict[str, list[str]]:
        """Orders for which WeChat took money more than once, with the numbers."""
        paid = defaultdict(list)
        for number in self.taken.values():
            paid[self.theirs[number].attach].append(number)
        return {order_id: numbers for order_id, numbers in paid.items() if len(numbers) > 1}


async def read_ours(pg: asyncpg.Connection[Any]) -> dict[str, Any]:
    """Our half of the books."""
    orders = await pg.fetch(
        "SELECT id, status, total_fen, (SELECT sum(qty) FROM order_lines WHERE order_id = orders.id) AS units, "
        "(SELECT count(*) FROM tickets WHERE order_id = orders.id) AS tickets FROM orders"
    )
    attempts = await pg.fetch(
        "SELECT out_trade_no, order_id, phase, launch IS NOT NULL AS handed_out FROM payment_attempts"
    )
    return {
        "orders": {row["id"]: dict(row) for row in orders},
        "payments": [dict(row) for row in await pg.fetch("SELECT * FROM payments")],
        "attempts": {row["out_trade_no"]: dict(row) for row in attempts},
    }


def unsettled(books: Books) -> list[str]:
    """What is still on its way: money that we have not heard of, orders that wait, numbers that can be paid."""
    heard = {row["gateway_txn_id"] for row in books.payments}
    return [
        *(f"transaction {txn}" for txn in books.taken.keys() - heard),
        *(
            f"order {i} {row['status']}"
            for i, row in books.orders.items()
            if row["status"] == "PENDING_PAYMENT"
        ),
        *(f"number {n} {row['phase']}" for n, row in books.attempts.items() if row["phase"] in _LIVE),
    ]


def disagreements(books: Books) -> list[str]:
    """Everything that must not be, once nothing is on its way any more; empty when the books agree."""
    return [*unsettled(books), *_of_orders(books), *_of_numbers(books), *_of_alerts(books)]


def _of_orders(books: Books) -> Iterator[str]:
    here: defaultdict[str, Counter[str]] = defaultdict(Counter)
    there: Counter[str] = Counter(books.theirs[number].attach for number in books.taken.values())
    for row in books.payments:
        here[row["order_id"]][row["status"]] += 1
    yield from (
        f"WeChat was paid for {order_id}, which is no order" for order_id in there.keys() - books.orders
    )
    for order_id, row in books.orders.items():
        payments, status = here[order_id], row["status"]
        what = (
            f"order {order_id} ({status}, {row['tickets']} tickets, {dict(payments)}, {there[order_id]} paid)"
        )
        if payments.total() != there[order_id]:
            yield f"{what}: not the payments of WeChat"
        if payments["APPLIED"] != (status == "PAID"):
            yield f"{what}: paid without a payment, or the other way round, or twice"
        if row["tickets"] != (row["units"] if status == "PAID" else 0):
            yield f"{what}: not its tickets"
        if (status == "REFUND_REQUIRED") != (payments.total() > 0 and not payments["APPLIED"]):
            yield f"{what}: money for nothing, and no word of it"


def _of_numbers(books: Books) -> Iterator[str]:
    for row in books.payments:
        number = books.taken.get(row["gateway_txn_id"])
        if number is None:
            yield f"payment {row['gateway_txn_id']}: WeChat never took it"
        elif (books.theirs[number].attach, books.theirs[number].amount_fen) != (
            row["order_id"],
            row["amount_fen"],
        ):
            yield f"payment {row['gateway_txn_id']}: of another order or amount"
        elif row["amount_fen"] != books.orders[row["order_id"]]["total_fen"]:
            yield f"payment {row['gateway_txn_id']}: not what the order costs"
    for number, seen in books.theirs.items():
        attempt = books.attempts.get(number)
        if attempt is None or attempt["order_id"] != seen.attach:
            yield f"number {number}: WeChat has it, and we do not"
        elif (attempt["phase"] == "PAID") != bool(seen.transaction_id):
            yield f"number {number}: {attempt['phase']} here, {seen.state.name} there"
        elif seen.state is TradeState.NOTPAY and attempt["handed_out"]:
            yield f"number {number}: nobody closed it"
    for number, requests in books.posted.items():
        if len(requests) > 1:
            yield f"number {number}: {len(requests)} different requests"


def _of_alerts(books: Books) -> Iterator[str]:
    told = Counter(row["gateway_txn_id"] for row in books.alerts if row["alert"] == "REFUND_REQUIRED")
    to_refund = {row["gateway_txn_id"] for row in books.payments if row["status"] == "REFUND_REQUIRED"}
    yield from (f"alert about {txn}, which is not to be refunded" for txn in told.keys() - to_refund)
    yield from (f"no alert about {txn}" for txn in to_refund - told.keys())
    yield from (f"alert {row}" for row in books.alerts if row["alert"] != "REFUND_REQUIRED")
