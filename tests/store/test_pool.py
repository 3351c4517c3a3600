"""Connections of the pool are handed on as they are, but never with somebody else's transaction."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import asyncpg
import pytest

from server.domain.errors import ErrorCode, Refusal
from server.store import pool
from server.store.locks import Lock, try_alone
from server.store.pool import Database, savepoint
from tests.conftest import eventually


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, size_max=1)
    yield database
    await database.close()


@pytest.fixture
def stand_still() -> Iterator[Callable[[int], None]]:
    """Stops a session, by its process; the test's end lets it go on."""
    stopped: list[int] = []

    def stop(session: int) -> None:
        os.kill(session, signal.SIGSTOP)
        stopped.append(session)

    yield stop
    for session in stopped:
        os.kill(session, signal.SIGCONT)


async def lock_is_free(pg: asyncpg.Connection[Any]) -> bool:
    async with pg.transaction():
        return await try_alone(pg, Lock.OUTBOX)


async def test_giving_a_connection_back_asks_postgres_nothing(database: Database) -> None:
    asked: list[Any] = []
    async with database.connection() as connection:
        connection.add_query_logger(asked.append)
        await connection.fetchval("SELECT 1")
    async with database.connection() as connection:
        await connection.fetchval("SELECT 2")

    assert [each.query for each in asked] == ["SELECT 1", "SELECT 2"]


async def test_what_was_begun_and_cut_off_is_undone_and_its_locks_are_free(
    database: Database, pg: asyncpg.Connection[Any]
) -> None:
    begun = asyncio.Event()

    async def begin() -> None:
        async with database.transaction() as connection:
            assert await try_alone(connection, Lock.OUTBOX)
            await connection.execute("INSERT INTO functions VALUES ('bus', 'Bus')")
            begun.set()
            await connection.execute("SELECT pg_sleep(600)")

    task = asyncio.create_task(begin())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])

    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT count(*) FROM functions") == 0

    # Not at once: a statement that begins while it is told to stop runs on, until Postgres sees that nobody waits.
    await eventually(partial(lock_is_free, pg))


async def test_a_statement_ends_with_the_connection_that_waited_for_it(
    database_url: str, pg: asyncpg.Connection[Any]
) -> None:
    """As a process that was killed amid a statement: nobody tells Postgres to stop."""
    database = Database(database_url, size_max=1, use_s=1.0)
    with pytest.raises(Refusal) as refused:
        async with database.transaction() as connection:
            assert await try_alone(connection, Lock.OUTBOX)
            await connection.execute("SELECT pg_sleep(600)")
    await database.close()

    assert refused.value.code is ErrorCode.POSTGRES_UNAVAILABLE
    await eventually(partial(lock_is_free, pg))


async def test_a_transaction_that_nobody_ended_does_not_reach_the_next_user(database: Database) -> None:
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault["message"]))
    async with database.connection() as connection:
        await connection.execute("BEGIN")
        await connection.execute("INSERT INTO functions VALUES ('bus', 'Bus')")
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM functions") == 0
        assert not connection.is_in_transaction()

    assert [fault for fault in faults if "active transaction" in fault]


async def test_a_use_takes_no_longer_than_its_bound_however_postgres_hangs(
    database_url: str, stand_still: Callable[[int], None]
) -> None:
    """Its session stands still amid a transaction: neither a cancel nor a rollback would be answered."""
    database = Database(database_url, size_max=1, call_s=30.0, use_s=1.0)
    began = time.monotonic()
    with pytest.raises(Refusal) as refused:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO functions VALUES ('bus', 'Bus')")
            stand_still(await connection.fetchval("SELECT pg_backend_pid()"))
            await connection.execute("INSERT INTO functions VALUES ('tram', 'Tram')")

    assert time.monotonic() - began < 15
    assert refused.value.code is ErrorCode.POSTGRES_UNAVAILABLE
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM functions") == 0
    await database.close()


async def test_the_bound_of_a_use_is_that_of_all_its_statements(database_url: str) -> None:
    database = Database(database_url, size_max=1, use_s=1.0)
    asked = 0
    with pytest.raises(Refusal) as refused:
        async with database.connection() as connection:
            for _ in range(10):
                await connection.execute("SELECT pg_sleep(0.2)")
                asked += 1
    await database.close()

    assert refused.value.code is ErrorCode.POSTGRES_UNAVAILABLE
    assert 0 < asked < 10


async def test_a_statement_without_an_answer_is_waited_for_once_and_not_for_each_rollback(
    database_url: str, stand_still: Callable[[int], None]
) -> None:
    """Where a use may be as long as it likes: its statements may not."""
    database = Database(database_url, size_max=1, call_s=2.0)
    began = time.monotonic()
    with pytest.raises(Refusal) as refused:
        async with database.transaction() as connection, savepoint(connection):
            stand_still(await connection.fetchval("SELECT pg_backend_pid()"))
            await connection.execute("SELECT 1")

    assert time.monotonic() - began < 3.8  # once more would be 4, and for each of the two rollbacks 6
    assert refused.value.code is ErrorCode.POSTGRES_UNAVAILABLE
    await database.close()


async def test_postgres_itself_ends_who_stands_still_amid_a_transaction(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process that was stopped: it cannot end anything, and must not keep its locks from the others."""
    monkeypatch.setitem(pool._SESSION, "idle_in_transaction_session_timeout", "1500")
    stopped, other = Database(database_url, size_max=1), Database(database_url, size_max=1)

    async def free() -> bool:
        async with other.transaction() as beside:
            return await try_alone(beside, Lock.OUTBOX)

    assert await free()
    with pytest.raises(Refusal) as refused:
        async with stopped.transaction() as connection:
            assert await try_alone(connection, Lock.OUTBOX)
            assert not await free()
            await eventually(free)
            await connection.fetchval("SELECT 1")
    await stopped.close()
    await other.close()

    assert refused.value.code is ErrorCode.POSTGRES_UNAVAILABLE


async def test_a_use_that_ended_in_time_leaves_its_connection_to_the_next(database_url: str) -> None:
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault["message"]))
    database = Database(database_url, size_max=1, use_s=0.8)
    sessions = set()
    for _ in range(4):  # the last one when the bound of the first has passed
        async with database.connection() as connection:
            sessions.add(await connection.fetchval("SELECT pg_backend_pid()"))
        await asyncio.sleep(0.3)
    await database.close()

    assert len(sessions) == 1
    assert faults == []
