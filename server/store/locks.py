"""Advisory locks: which work is done by one process at a time, and never while Redis is being loaded.

A lock lives no longer than its transaction or session, so a process that dies leaves none behind.
"""

from __future__ import annotations

import enum
from typing import Any, Final

import asyncpg

from server.limits import POSTGRES_BULK_S_MAX
from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("locks")


class Lock(enum.IntEnum):
    """Any numbers, but the same in every process."""

    REHYDRATION = 7302
    OUTBOX = 7303
    TRAIL = 7304


async def join_unless_loading(connection: Connection) -> bool:
    """Until the transaction ends no rehydration begins. False: one is under way, leave Redis alone."""
    joined: bool = await connection.fetchval(_Q["try_lock_shared"], Lock.REHYDRATION)
    return joined


async def try_alone(connection: Connection, lock: Lock) -> bool:
    """Until the transaction ends nobody else has the lock. False: someone has it now."""
    alone: bool = await connection.fetchval(_Q["try_lock"], lock)
    return alone


async def alone_for_session(session: asyncpg.Connection[Any], lock: Lock) -> None:
    """Wait until nobody else has the lock, then keep it until the session ends.

    Whoever waits goes before those who only try, so a busy flusher cannot keep rehydration out.
    """
    await session.execute(_Q["lock_session"], lock, timeout=POSTGRES_BULK_S_MAX)


async def still_here(session: asyncpg.Connection[Any]) -> None:
    """Raises what asyncpg raises when the session is gone, and its locks with it."""
    await session.execute(_Q["still_here"])
