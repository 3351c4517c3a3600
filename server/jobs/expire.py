"""Expiry: an unpaid order past its deadline ends, and its units are released, once, whoever made it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from server.limits import EXPIRE_BATCH_MAX, EXPIRE_CLOSING_S_MAX
from server.store import attempts, orders, outbox
from server.store.outbox import Kind, Message
from server.store.pool import Database
from server.telemetry import ORDERS


async def expire(db: Database) -> int:
    """End one batch of overdue orders; how many. The row locks let any number of processes do this at once.

    Postgres decides, and the outbox tells Redis: units become free only after the record says that the order has ended,
    so reserved and sold never pass the cap on either side.
    """
    now = datetime.now(UTC)
    async with db.transaction() as connection:
        # A buyer who paid in the last moment gets the ticket, also when WeChat's word of it comes later: the number is
        # closed first, or found to be paid.
        await attempts.begin_closing_of_overdue(connection, now)
        ended = await orders.expire(
            connection, now, EXPIRE_BATCH_MAX, timedelta(seconds=EXPIRE_CLOSING_S_MAX)
        )
        if ended:
            await attempts.begin_closing_of(connection, [order.order_id for order in ended])
            await outbox.send(
                connection, [Message(Kind.RELEASE, order.order_id, order.units()) for order in ended]
            )
    ORDERS.labels("EXPIRED").inc(len(ended))
    return len(ended)
