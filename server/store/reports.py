"""What analysts ask of the record."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("reports")


class RedemptionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which redemptions: decided in [start, end), and equal to every value that is not None.

    The queries take the fields in this order.
    """

    start: datetime
    end: datetime
    function: str | None = None
    location: str | None = None
    operator: str | None = None
    terminal_device_id: str | None = None
    result: str | None = None
    reason: str | None = None


async def redemptions_page(
    connection: Connection, wanted: RedemptionFilter, after: tuple[datetime, str] | None, limit: int
) -> list[Any]:
    """Up to `limit` rows, newest first, older than the (decided_at, event_id) `after`."""
    decided_at, event_id = after or (None, None)
    return list(
        await connection.fetch(
            _Q["redemptions_page"],
            *msgspec.structs.astuple(wanted),
            decided_at,
            event_id,
            limit,
        )
    )


async def redemptions_summary(
    connection: Connection, start: datetime, end: datetime, limit: int
) -> list[Any]:
    """Counts of events by product, function, venue, hour, result and reason; up to `limit` rows."""
    return list(await connection.fetch(_Q["redemptions_summary"], start, end, limit))


async def redemptions_figures(
    connection: Connection, wanted: RedemptionFilter, unit: str, zone: str, last_hour: datetime, limit: int
) -> list[Any]:
    """Counts of events by unit of time, function, venue, operator, terminal and reason, each alone; up to `limit` rows.

    `unit` is minute, hour or day, as the clocks of `zone` count them; `zone` must be known.
    """
    return list(
        await connection.fetch(
            _Q["redemptions_figures"], *msgspec.structs.astuple(wanted), unit, zone, last_hour, limit
        )
    )


async def zone_known(connection: Connection, zone: str) -> bool:
    """Whether Postgres knows this time zone. Not inside a transaction: its refusal would end it."""
    try:
        await connection.fetchval(_Q["zone_known"], zone)
    except asyncpg.InvalidParameterValueError:
        return False
    return True
