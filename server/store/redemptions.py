"""The record of redemptions, and how far each stream is written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from server.domain.redemption import SEPARATOR
from server.store import event_rows
from server.store.event_rows import EventRows
from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("redemptions")


class NotInRecord(Exception):
    """A verdict names a ticket, or a function of it, that the record does not have."""


async def insert(connection: Connection, events: EventRows) -> None:
    """Write events, spend what they spent, and mark tickets that have nothing left.

    Raises asyncpg.IntegrityConstraintViolationError when the record contradicts an event (more uses than there were,
    one QR twice), asyncpg.DataError for what it cannot hold, NotInRecord.
    """
    rows = io.BytesIO(events.rows.encode())
    await connection.copy_to_table("redemption_events", source=rows, columns=event_rows.COLUMNS)
    # Sorted, so that two transactions that spend the same tickets lock them in the same order.
    spent = sorted(events.spent)
    refused = events.refused.difference(code for code, _ in spent)
    found: Any = await connection.fetchrow(
        _Q["spend"],
        SEPARATOR.join([code for code, _ in spent]),
        SEPARATOR.join([function for _, function in spent]),
        SEPARATOR.join([str(events.spent[each]) for each in spent]),
        SEPARATOR.join(refused),
    )
    missing = len(spent) - found["entitlements"], len(refused) - found["tickets"]
    if any(missing):
        raise NotInRecord(f"{missing[0]} entitlements and {missing[1]} tickets are not in the record")
    if found["used_up"]:
        await connection.execute(_Q["mark_redeemed"], found["used_up"])


async def verdicts_page(
    connection: Connection, since: datetime, after: tuple[datetime, str], limit: int
) -> list[Any]:
    """Rows of `redemption_events` decided since then, in order, after the (time, event id) `after`."""
    return list(await connection.fetch(_Q["verdicts_since"], since, after[0], after[1], limit))


async def create_cursors(connection: Connection, streams: Sequence[str]) -> None:
    """Begin to follow streams, from their beginning; those that are followed stay where they are."""
    await connection.execute(_Q["create_cursors"], list(streams))


async def try_lock_cursor(connection: Connection, stream: str) -> str | None:
    """The last id written, its row locked until the transaction ends; None while another flusher has the stream."""
    last_id: str | None = await connection.fetchval(_Q["try_lock_cursor"], stream)
    return last_id


async def lock_cursor(connection: Connection, stream: str) -> str:
    """The last id written, once no other transaction has its row. The stream is followed, see `create_cursors`."""
    last_id: str = await connection.fetchval(_Q["lock_cursor"], stream)
    return last_id


async def move_cursor(connection: Connection, stream: str, last_id: str) -> None:
    """Everything up to this id is written, in this very transaction."""
    await connection.execute(_Q["move_cursor"], stream, last_id)


async def cursors(connection: Connection) -> dict[str, str]:
    """Stream -> last id written."""
    return {row["stream"]: row["last_id"] for row in await connection.fetch(_Q["cursors"])}


async def insert_dead_letter(
    connection: Connection, stream: str, entry_id: str, reason: str, body: str
) -> None:
    """Keep an entry that the record refuses, with the reason; a NUL, which text cannot hold, is spelled out."""
    reason, body = (text.replace("\0", "\\x00") for text in (reason, body))
    await connection.execute(_Q["insert_dead_letter"], stream, entry_id, reason, body)


async def count_dead_letters(connection: Connection) -> int:
    """How many entries were refused."""
    number: int = await connection.fetchval(_Q["count_dead_letters"])
    return number
