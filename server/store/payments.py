"""Transactions at gateways that were told to us as successful."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from server.domain.payments import CURRENCY, KnownPayment, PaymentNews
from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("payments")


async def known(connection: Connection, gateway: str, gateway_txn_id: str) -> KnownPayment | None:
    """What became of this transaction when it was told first; None: it is told for the first time."""
    row = await connection.fetchrow(_Q["known_payment"], gateway, gateway_txn_id)
    return None if row is None else KnownPayment(row["order_id"], row["status"] == "APPLIED")


async def insert(connection: Connection, news: PaymentNews, *, applied: bool) -> bool:
    """Record the transaction. False: it was recorded before, for this order or another."""
    inserted = await connection.fetchval(
        _Q["insert_payment"],
        news.gateway,
        news.gateway_txn_id,
        news.order_id,
        "APPLIED" if applied else "REFUND_REQUIRED",
        news.amount_fen,
        news.currency,
        news.paid_at,
    )
    return inserted is not None


async def insert_free(connection: Connection, gateway: str, order_ids: Sequence[str]) -> None:
    """Record orders that cost nothing as paid; the transaction of each is the order itself.

    Raises asyncpg.UniqueViolationError for one that is recorded already.
    """
    await connection.execute(_Q["insert_free_payments"], gateway, list(order_ids), CURRENCY)
