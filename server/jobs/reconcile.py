"""Reconciliation: notifications get lost, so the provider is asked about orders that stay unpaid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from server.domain.payments import PaymentProvider
from server.flows.settle import Settlement
from server.limits import RECONCILE_AFTER_S, RECONCILE_BATCH_MAX
from server.store import orders
from server.store.pool import Database


async def reconcile(db: Database, provider: PaymentProvider, settlement: Settlement) -> int:
    """Ask about one batch of orders that are unpaid for a minute and were not asked about for a minute; how many.

    Raises Refusal(GATEWAY_UNAVAILABLE): the rest of the batch is asked about a minute later.
    """
    before = datetime.now(UTC) - timedelta(seconds=RECONCILE_AFTER_S)
    async with db.transaction() as connection:
        claimed = await orders.claim_unpaid(connection, before, before, RECONCILE_BATCH_MAX)
    for order_id in claimed:
        news = await provider.query(order_id)
        if news is not None:
            await settlement.settle(news)
    return len(claimed)
