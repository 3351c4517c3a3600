"""What analysts ask of the record."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("reports")


class RedemptionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which redemptions: decided in [start, end), and equal to every value that is not None."""

    start: datetime
    end: datetime
    function: str | None = None
    location: str | None = None
    operator: str | None = None
    result: str | None = None


async def redemptions_page(
    connection: Connection, wanted: RedemptionFilter, after: tuple[datetime, str] | None, limit: int
) -> list[Any]:
    """Up to `limit` rows, newest first, older than the (decided_at, event_id) `after`."""
    decided_at, event_id = after or (None, None)
    return list(
        await connection.fetch(
            _Q["redemptions_page"],
            wanted.start,
            wanted.end,
            wanted.function,
            wanted.location,
            wanted.operator,
            wanted.result,
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
