"""Reconciliation: notifications get lost, so the provider is asked about orders that stay unpaid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from server.domain.errors import ErrorCode, Refusal
from server.domain.payments import PaymentProvider
from server.flows.settle import Settlement
from server.limits import RECONCILE_AFTER_S, RECONCILE_BATCH_MAX, RECONCILE_FAULTS_MAX
from server.store import orders
from server.store.pool import Database


async def reconcile(db: Database, provider: PaymentProvider, settlement: Settlement) -> int:
    """Ask about one batch of orders that are unpaid for a minute and were not asked about for a minute; how many.

    One order about which the gateway gives no proper answer does not keep the others from being asked about. Raises
    Refusal(GATEWAY_UNAVAILABLE) when it gives none three times in a row: the rest is asked about a minute later.
    """
    before = datetime.now(UTC) - timedelta(seconds=RECONCILE_AFTER_S)
    async with db.transaction() as connection:
        claimed = await orders.claim_unpaid(connection, before, before, RECONCILE_BATCH_MAX)
    failed_in_a_row = 0
    for order_id in claimed:
        try:
            news = await provider.query(order_id)
        except Refusal as refusal:
            failed_in_a_row += 1
            if refusal.code is not ErrorCode.GATEWAY_UNAVAILABLE or failed_in_a_row >= RECONCILE_FAULTS_MAX:
                raise
            continue
        failed_in_a_row = 0
        for each in news:
            await settlement.settle(each)
    return len(claimed)
