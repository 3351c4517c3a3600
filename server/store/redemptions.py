"""The record of redemptions, and how far each stream is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from server.domain.redemption import RedemptionEvent, Verdict
from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("redemptions")


class EntitlementMissing(Exception):
    """A success names a (ticket, function) that the record does not have; the message names it."""


async def insert(connection: Connection, shard: int, events: Sequence[RedemptionEvent]) -> None:
    """Write events, spend what they spent, and mark tickets that have nothing left.

    Raises asyncpg.IntegrityConstraintViolationError when the record contradicts an event (unknown ticket, more uses
    than there were, one QR twice), EntitlementMissing when a success has no entitlement to spend.
    """
    await connection.execute(
        _Q["insert_events"],
        [f"{shard:02d}-{event.stream_id}" for event in events],
        [event.ticket_code for event in events],
        [event.function_code for event in events],
        ["success" if event.verdict is Verdict.SUCCESS else "reject" for event in events],
        [None if event.verdict is Verdict.SUCCESS else event.verdict.name for event in events],
        [event.ticket_status for event in events],
        [event.remaining for event in events],
        [event.first for event in events],
        [event.jti for event in events],
        [event.scan_id for event in events],
        [event.operator for event in events],
        [event.venue_code or None for event in events],
        [event.terminal_device_id or None for event in events],
        [datetime.fromtimestamp(event.at_ms / 1000, UTC) for event in events],
        [datetime.fromtimestamp(event.decided_ms / 1000, UTC) for event in events],
    )
    spent = Counter(
        (event.ticket_code, event.function_code) for event in events if event.verdict is Verdict.SUCCESS
    )
    if not spent:
        return
    # Sorted, so that two transactions that spend the same tickets lock them in the same order.
    keys = sorted(spent)
    found = await connection.fetch(
        _Q["spend_entitlements"],
        [code for code, _ in keys],
        [function for _, function in keys],
        [spent[key] for key in keys],
    )
    if len(found) != len(keys):
        raise EntitlementMissing(
            f"{len(keys) - len(found)} of {len(keys)} entitlements are not in the record"
        )
    await connection.execute(_Q["mark_redeemed"], sorted({code for code, _ in keys}))


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
