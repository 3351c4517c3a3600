"""Connections of the pool are handed on as they are, but never with somebody else's transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from server.store.locks import Lock, try_alone
from server.store.pool import Database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, size_max=1)
    yield database
    await database.close()


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
            await connection.execute("SELECT pg_sleep(60)")

    task = asyncio.create_task(begin())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])

    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT count(*) FROM functions") == 0
    async with pg.transaction():
        assert await try_alone(pg, Lock.OUTBOX)


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
