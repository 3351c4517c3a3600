"""Reconciliation: notifications get lost, so the provider is asked about orders that stay unpaid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from server.domain.payments import PaymentProvider
from server.flows.settle import Settlement
from server.flows.turns import each
from server.limits import RECONCILE_AFTER_S, RECONCILE_BATCH_MAX
from server.store import orders
from server.store.pool import Database


async def reconcile(db: Database, provider: PaymentProvider, settlement: Settlement) -> int:
    """Ask about one batch of orders that are unpaid for a minute and were not asked about for a minute; how many.

    An order about which a gateway gives no proper answer does not keep the others from being asked about. Raises
    Refusal when that is so for all of them: they are asked about again a minute later.
    """
    before = datetime.now(UTC) - timedelta(seconds=RECONCILE_AFTER_S)
    async with db.transaction() as connection:
        claimed = await orders.claim_unpaid(connection, before, before, RECONCILE_BATCH_MAX)

    async def ask(order_id: str) -> None:
        for news in await provider.query(order_id):
            await settlement.settle(news)

    await each(claimed, ask)
    return len(claimed)
