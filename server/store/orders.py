"""Orders and their lines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from server.domain.catalog import Terms
from server.domain.orders import NewOrder, Order, OrderLine, OrderStatus
from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("orders")


async def insert(connection: Connection, orders: Sequence[NewOrder]) -> None:
    """Write new orders with their lines. Raises asyncpg.UniqueViolationError for a known id or idempotency key."""
    await connection.execute(
        _Q["insert_orders"],
        [order.order_id for order in orders],
        [order.buyer_id for order in orders],
        [order.idempotency_key for order in orders],
        [order.payload_hash for order in orders],
        [order.total_fen for order in orders],
        [order.created_at for order in orders],
        [order.expires_at for order in orders],
    )
    lines = [
        (order.order_id, position, line) for order in orders for position, line in enumerate(order.lines)
    ]
    await connection.execute(
        _Q["insert_order_lines"],
        [order_id for order_id, _, _ in lines],
        [position for _, position, _ in lines],
        [line.product_id for _, _, line in lines],
        [line.qty for _, _, line in lines],
        [line.unit_price_fen for _, _, line in lines],
        [line.terms for _, _, line in lines],
    )


async def get(connection: Connection, order_id: str, *, lock: bool = False) -> Order | None:
    """The order, or None; `lock`: its row stays locked until the end of the caller's transaction."""
    row = await connection.fetchrow(_Q["lock_order" if lock else "get_order"], order_id)
    return None if row is None else (await _with_lines(connection, [row]))[0]


async def of_buyer(connection: Connection, buyer_id: str, before: str, limit: int) -> list[Order]:
    """A page of the buyer's orders, newest first, older than the order id `before`."""
    return await _with_lines(
        connection, await connection.fetch(_Q["orders_of_buyer"], buyer_id, before, limit)
    )


async def end(connection: Connection, ids: Sequence[str], status: OrderStatus, at: datetime) -> None:
    """Move orders whose locks the caller holds out of PENDING_PAYMENT, or to REFUND_REQUIRED.

    What can still be paid of them at a gateway is to be closed.
    """
    await connection.execute(_Q["end_orders"], list(ids), status.value, at)


async def expire(connection: Connection, now: datetime, limit: int, patience: timedelta) -> list[Order]:
    """Move up to `limit` unpaid orders past their deadline to EXPIRED; returns them, for their units' release.

    One whose payment is still being closed at its gateway waits for that, but not longer than `patience`.
    """
    rows = await connection.fetch(_Q["lock_expired_orders"], now, limit, now - patience)
    ids = [row["id"] for row in rows]
    if not ids:
        return []
    await connection.execute(_Q["expire_orders"], ids, now)
    return await _with_lines(connection, [await connection.fetchrow(_Q["get_order"], each) for each in ids])


async def claim_unpaid(
    connection: Connection, created_before: datetime, not_asked_since: datetime, limit: int
) -> list[str]:
    """Ids of orders that the provider is to be asked about now; marked, so that others take others."""
    rows = await connection.fetch(_Q["claim_unpaid_orders"], created_before, not_asked_since, limit)
    return [row["id"] for row in rows]


async def of_key(connection: Connection, buyer_id: str, idempotency_key: str) -> tuple[str, str] | None:
    """(order id, payload hash) of the order that stands under the buyer's key; None: there is none."""
    row = await connection.fetchrow(_Q["order_of_key"], buyer_id, idempotency_key)
    return None if row is None else (row["id"], row["payload_hash"])


async def pending_page(connection: Connection, after: str, limit: int) -> list[Order]:
    """Orders that hold units, by id, after the id `after`."""
    return await _with_lines(connection, await connection.fetch(_Q["pending_orders"], after, limit))


async def recent_keys_page(
    connection: Connection, since: datetime, after: str, limit: int
) -> list[tuple[str, str, str, str, datetime]]:
    """(order id, buyer, idempotency key, payload hash, created) of recent orders, by id, after `after`."""
    rows = await connection.fetch(_Q["recent_idempotency_keys"], since, after, limit)
    return [tuple(row.values()) for row in rows]


async def _with_lines(connection: Connection, rows: Sequence[Any]) -> list[Order]:
    lines: dict[str, list[OrderLine]] = {row["id"]: [] for row in rows}
    for line in await connection.fetch(_Q["lines_of_orders"], list(lines)):
        lines[line["order_id"]].append(
            OrderLine(
                line["product_id"],
                line["qty"],
                line["unit_price_fen"],
                msgspec.convert(line["terms"], Terms),
            )
        )
    return [
        Order(
            order_id=row["id"],
            buyer_id=row["buyer_id"],
            status=OrderStatus(row["status"]),
            total_fen=row["total_fen"],
            created_at=row["created_at"],
            expires_at=row["expires_at"],
            lines=tuple(lines[row["id"]]),
        )
        for row in rows
    ]
