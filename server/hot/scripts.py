"""Running the Lua scripts of `lua/`: EVALSHA, and once EVAL when Redis has forgotten a script."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from server.config import Ack
from server.domain.errors import ErrorCode, Refusal
from server.hot.connection import ask
from server.limits import REDIS_ACK_MS_MAX

LUA_DIR: Final = Path(__file__).parent / "lua"


class Script:
    """One file of `lua/`, known to Redis by the SHA-1 of its text."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (LUA_DIR / f"{name}.lua").read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class ScriptRunner:
    """Runs scripts at the configured acknowledgement level.

    At `replica`, a result is returned only when a replica has written it to its disk too; else
    Refusal(NOT_ACKNOWLEDGED): the decision stands in Redis, and a retry with the same ids finds it.
    """

    def __init__(self, redis: Redis, ack: Ack) -> None:
        self._redis = redis
        self._await_replica = ack is Ack.REPLICA

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """Run a script within the bound of a Redis call. Raises Refusal(REDIS_UNAVAILABLE), see `ask`."""
        if self._await_replica:
            return await ask(self._run_and_wait(script, keys, args))
        return await ask(_evaluate(self._redis, script, keys, args))

    async def _run_and_wait(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        # WAITAOF speaks of the writes of its own connection, so both go through one.
        async with self._redis.client() as connection:
            result = await _evaluate(connection, script, keys, args)
            local, replicas = await connection.waitaof(1, 1, REDIS_ACK_MS_MAX)
        if local < 1 or replicas < 1:
            raise Refusal(ErrorCode.NOT_ACKNOWLEDGED)
        return result


async def _evaluate(redis: Redis, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Any:
    try:
        return await redis.evalsha(script.sha, len(keys), *keys, *args)
    except NoScriptError:
        return await redis.eval(script.text, len(keys), *keys, *args)
