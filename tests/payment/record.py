"""What stands in the record of an order that is paid by WeChat, looked at behind the server's back."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import asyncpg

Postgres: TypeAlias = "asyncpg.Connection[Any]"


class Record(NamedTuple):
    """An order with all that hangs on it."""

    status: str
    attempts: list[str]  # phases, the oldest first
    payments: list[str]  # statuses, in alphabetical order
    tickets: int


async def record(pg: Postgres, order_id: str) -> Record:
    """As it is at this moment."""
    return Record(
        await pg.fetchval("SELECT status FROM orders WHERE id = $1", order_id),
        [row["phase"] for row in await attempts(pg, order_id)],
        [
            row["status"]
            for row in await pg.fetch("SELECT status FROM payments WHERE order_id = $1 ORDER BY 1", order_id)
        ],
        await pg.fetchval("SELECT count(*) FROM tickets WHERE order_id = $1", order_id),
    )


async def attempts(pg: Postgres, order_id: str) -> list[Any]:
    """Rows of `payment_attempts`, the oldest first."""
    return list(
        await pg.fetch("SELECT * FROM payment_attempts WHERE order_id = $1 ORDER BY created_at", order_id)
    )
