"""What backup and restore ask of the record."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("backup")


class Contents(msgspec.Struct, frozen=True):
    """How much the record holds; `ends_at`: when the last order, ticket or verdict in it was made."""

    orders: int
    tickets: int
    redemptions: int
    ends_at: datetime | None


async def count_tables(connection: Connection) -> int:
    """How many tables the database has."""
    number: int = await connection.fetchval(_Q["count_tables"])
    return number


async def count_others(connection: Connection) -> int:
    """How many other clients the database has now."""
    number: int = await connection.fetchval(_Q["count_others"])
    return number


async def analyze(connection: Connection) -> None:
    """Bring the planner's statistics up to date."""
    await connection.execute(_Q["analyze"])


async def contents(connection: Connection) -> Contents:
    """Read through the largest tables: seconds."""
    row = await connection.fetchrow(_Q["contents"])
    assert row is not None  # noqa: S101  (aggregates always have their row)
    return Contents(**row)


async def known_events(connection: Connection, event_ids: Sequence[str]) -> set[str]:
    """Those of the events that are recorded."""
    return {row["event_id"] for row in await connection.fetch(_Q["known_events"], list(event_ids))}
