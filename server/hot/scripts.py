"""Running the Lua scripts of `lua/`: EVALSHA, and once EVAL when Redis has forgotten a script."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from server.config import Ack
from server.domain.errors import ErrorCode, Refusal
from server.hot.connection import CONNECTIONS_MAX, ask
from server.hot.keys import WRITE_PROBE
from server.limits import REDIS_ACK_MS_MAX

_WRITE: Final = pack_command(("SET", WRITE_PROBE, ""))  # type: ignore[arg-type]
_WAIT_FOR_REPLICA: Final = pack_command(("WAITAOF", 1, 1, REDIS_ACK_MS_MAX))  # type: ignore[arg-type]
_WHO_ARE_YOU: Final = pack_command(("INFO", "server"))  # type: ignore[arg-type]
LUA_DIR: Final = Path(__file__).parent / "lua"


class Script:
    """One file of `lua/`, known to Redis by the SHA-1 of its text."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (LUA_DIR / f"{name}.lua").read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


SHUT: Final = Script("shut")


class ScriptRunner:
    """Runs scripts at the configured acknowledgement level, on a few connections that it keeps for them.

    The client's own way (a pool with its lock, a retry, a task for each sending, an encoder in Python) costs ten times
    what a batch of scans needs; here its connection is handed packed bytes. See README, decisions, 2026-11-22.

    At `replica`, a result is returned only when a replica has written it to its disk too; else
    Refusal(NOT_ACKNOWLEDGED): the decision stands in Redis, and a retry with the same ids finds it.
    """

    def __init__(self, redis: Redis, ack: Ack, *, gates: Sequence[str] = ()) -> None:
        """`gates`: epochs that each new connection looks at before it carries a script, see `_shut_if_restarted`."""
        self._pool = redis.connection_pool
        self._gates = gates
        self._await_replica = ack is Ack.REPLICA
        self._places = asyncio.Semaphore(CONNECTIONS_MAX)
        self._idle: list[AbstractConnection] = []

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """Run a script within the bound of a Redis call. Raises Refusal(REDIS_UNAVAILABLE), see `ask`."""
        return await ask(self._run(script, keys, args))

    async def aclose(self) -> None:
        """End the connections, without a goodbye: nothing is under way on them."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)

    async def _run(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        async with self._places:
            try:
                return await self._evaluate(("EVALSHA", script.sha, len(keys), *keys, *args))
            except NoScriptError:
                return await self._evaluate(("EVAL", script.text, len(keys), *keys, *args))

    async def _evaluate(self, command: tuple[str | int, ...]) -> Any:
        packed = pack_command(command)  # type: ignore[arg-type]  # its stub means: of any length
        try:
            return await self._ask(packed)
        except RedisConnectionError:
            # Redis was restarted since: the other connections are as dead. Every script is safe to repeat;
            # `limit` alone may count an attempt twice then, which costs a second at most.
            await self.aclose()
            return await self._ask(packed)

    async def _ask(self, packed: bytes) -> Any:
        connection = self._idle.pop() if self._idle else await self._connect()
        try:
            answer = await _exchange(connection, packed)
            if self._await_replica and not isinstance(answer, ResponseError):
                # WAITAOF speaks of the writes of its own connection. One more write stands behind all that the answer
                # can repeat, whichever connection wrote that.
                _said(await _exchange(connection, _WRITE))
                acknowledged = await _exchange(connection, _WAIT_FOR_REPLICA)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._idle.append(connection)
        if isinstance(answer, ResponseError):
            raise answer
        if self._await_replica and not _reached_replica(acknowledged):
            raise Refusal(ErrorCode.NOT_ACKNOWLEDGED)
        return answer

    async def _connect(self) -> AbstractConnection:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        # `ask` bounds the whole; with a bound of its own the client would start a task for each sending.
        connection.socket_timeout = None
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            if self._gates:
                await self._shut_if_restarted(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _shut_if_restarted(self, connection: AbstractConnection) -> None:
        """Shut the gates that were loaded for another process than the one at the other end.

        A Redis that was restarted may have less than it told, and its last ids hide that as soon as new entries come:
        so nothing is judged on it before the guard has looked. Its end cut every connection, so whoever asks it for
        the first time comes by here.
        """
        run_id = _run_id(_said(await _exchange(connection, _WHO_ARE_YOU)))
        for gate in self._gates:
            _said(await _exchange(connection, pack_command(("EVAL", SHUT.text, 1, gate, run_id))))  # type: ignore[arg-type]


async def _exchange(connection: AbstractConnection, packed: bytes) -> Any:
    """What Redis answers; an error that it answers with is a value, since the connection is as good as before."""
    await connection.send_packed_command(packed, check_health=False)
    try:
        return await connection.read_response(timeout=math.inf)
    except ResponseError as fault:
        return fault


def _said(answer: Any) -> Any:
    """The answer. Raises ResponseError when it is one."""
    if isinstance(answer, ResponseError):
        raise answer
    return answer


def _run_id(info: str | bytes) -> str:
    """Of the process, from what INFO says."""
    text = info.decode() if isinstance(info, bytes) else info
    return next(line for line in text.splitlines() if line.startswith("run_id:")).partition(":")[2]


def _reached_replica(acknowledged: Any) -> bool:
    """Whether it is on our own disk and on a replica's, by WAITAOF's answer: how many wrote it, here and there."""
    local, replicas = _said(acknowledged)
    return bool(local >= 1 and replicas >= 1)
