"""The Postgres pool: every call has a bound, and an absent Postgres is one clear refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec

from server.domain.errors import ErrorCode, Refusal
from server.limits import (
    POSTGRES_ABANDONED_S_MAX,
    POSTGRES_ACQUIRE_S_MAX,
    POSTGRES_CALL_S_MAX,
    POSTGRES_CONNECT_S_MAX,
    POSTGRES_STANDSTILL_S_MAX,
)

Connection: TypeAlias = (
    "asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"
)

_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a session that was told that it ends, and has not ended yet
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.QueryCanceledError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)

# Whoever dies amid a statement or behind the network, or stands still amid a transaction, must not keep a stream or a
# lock from the others. A statement does not notice by itself that nobody waits for it any more.
_SESSION: Final = {
    "application_name": "gateline",
    "idle_in_transaction_session_timeout": str(int(POSTGRES_STANDSTILL_S_MAX * 1_000)),  # ms
    "client_connection_check_interval": str(int(POSTGRES_ABANDONED_S_MAX * 1_000)),
    "tcp_keepalives_idle": "10",  # s, then three times 5 s without an answer
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}


class Database:
    """A pool that connects when it is first needed, so that a server starts while Postgres is away.

    All calls raise Refusal(POSTGRES_UNAVAILABLE) when Postgres cannot be asked or does not answer in time; other
    database errors pass through as asyncpg raises them.
    """

    def __init__(
        self, url: str, *, size_max: int, call_s: float = POSTGRES_CALL_S_MAX, use_s: float | None = None
    ) -> None:
        """At most `size_max` connections; a statement takes at most `call_s` seconds, and all of one use `use_s`.

        Without `use_s` a use may ask as often as it likes: jobs and reports read page after page.
        """
        self._url = url
        self._call_s = call_s
        self._use_s = use_s
        self._size_max = size_max
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close all connections; those in use get a moment, then are cut."""
        if self._pool is None:
            return
        try:
            await asyncio.wait_for(self._pool.close(), POSTGRES_CALL_S_MAX)
        except TimeoutError:
            self._pool.terminate()
        self._pool = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for reading, without a transaction."""
        try:
            pool = await self._open()
            async with pool.acquire(timeout=POSTGRES_ACQUIRE_S_MAX) as connection:
                with _cut_late(connection, self._use_s):
                    yield connection
        except _AWAY as fault:
            if isinstance(fault, ValueError):  # an argument that asyncpg cannot send: the caller's fault
                raise
            raise Refusal(ErrorCode.POSTGRES_UNAVAILABLE) from fault

    @asynccontextmanager
    async def transaction(self, *, read_only: bool = False) -> AsyncIterator[Connection]:
        """A connection inside one transaction: committed at the end, rolled back by any exception.

        `read_only` is one snapshot for all its reads.
        """
        isolation: Any = "repeatable_read" if read_only else "read_committed"
        async with (
            self.connection() as connection,
            connection.transaction(isolation=isolation, readonly=read_only),
        ):
            with _cut_when_silent(connection):
                yield connection

    async def session(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection of one's own, outside the pool, for session locks; the caller closes it."""
        try:
            return await asyncpg.connect(
                self._url,
                timeout=POSTGRES_CONNECT_S_MAX,
                command_timeout=POSTGRES_CALL_S_MAX,
                server_settings=_SESSION,
            )
        except _AWAY as fault:
            raise Refusal(ErrorCode.POSTGRES_UNAVAILABLE) from fault

    async def _open(self) -> asyncpg.Pool[asyncpg.Record]:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,
                    max_size=self._size_max,
                    timeout=POSTGRES_CONNECT_S_MAX,
                    command_timeout=self._call_s,
                    init=_speak_json,
                    reset=_as_it_was,
                    server_settings=_SESSION,
                )
        return self._pool


@asynccontextmanager
async def savepoint(connection: Connection) -> AsyncIterator[None]:
    """A part of a transaction that may be rolled back by itself."""
    async with connection.transaction():
        with _cut_when_silent(connection):
            yield


@contextmanager
def _cut_when_silent(connection: Connection) -> Iterator[None]:
    """Cut a connection that did not answer in time. What was begun on it, Postgres undoes by itself.

    To roll back it would be asked once more, and waited for as long.
    """
    try:
        yield
    except TimeoutError:
        _cut(connection)
        raise


@contextmanager
def _cut_late(connection: Connection, use_s: float | None) -> Iterator[None]:
    """Cut the connection when its use takes too long, whatever it waits for."""
    if use_s is None:
        yield
        return
    cut = asyncio.get_running_loop().call_later(use_s, _cut, connection)
    try:
        yield
    finally:
        cut.cancel()


def _cut(connection: Connection) -> None:
    with suppress(asyncpg.InterfaceError):  # it was given back: Postgres had ended it before
        connection.terminate()


async def _as_it_was(connection: Connection) -> None:
    """Nothing to reset, which saves a round trip per use: locks end with transactions, and no session is changed.

    A transaction that was left open is rolled back by asyncpg before this.
    """


async def _speak_json(connection: Connection) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: msgspec.json.encode(value).decode(),
        decoder=msgspec.json.decode,
    )
