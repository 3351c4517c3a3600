"""The outbox: what Redis is to be told, written in the transaction that decides it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

import msgspec

from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("outbox")


class Kind(enum.Enum):
    """The values of `outbox.kind`, explained in `sql/schema.sql`."""

    COMMIT = "commit"
    RELEASE = "release"
    TICKET = "ticket"
    CAP = "cap"


class Message(msgspec.Struct, frozen=True):
    """One thing that Redis is to be told: an order id, ticket code or product id, and the units of an order."""

    kind: Kind
    subject: str
    units: dict[int, int] = {}


class Waiting(msgspec.Struct, frozen=True):
    """A message with its place in the queue."""

    id: int
    message: Message


async def send(connection: Connection, messages: Sequence[Message]) -> None:
    """Put messages into the outbox, as part of the caller's transaction."""
    await connection.execute(
        _Q["send"],
        [message.kind.value for message in messages],
        [message.subject for message in messages],
        [message.units for message in messages],
    )


async def oldest(connection: Connection, limit: int) -> list[Waiting]:
    """The messages that wait longest, in the order in which they were written."""
    return [
        Waiting(
            row["id"],
            Message(
                Kind(row["kind"]),
                row["subject"],
                {int(product): qty for product, qty in row["units"].items()},
            ),
        )
        for row in await connection.fetch(_Q["oldest"], limit)
    ]


async def delete(connection: Connection, ids: Sequence[int]) -> None:
    """Forget messages that Redis was told."""
    await connection.execute(_Q["delete_applied"], list(ids))


async def backlog(connection: Connection) -> tuple[int, float]:
    """(how many wait, age of the oldest in seconds)."""
    row = await connection.fetchrow(_Q["backlog"])
    assert row is not None  # noqa: S101  (an aggregate always has its row)
    return row["waiting"], row["oldest_s"]
