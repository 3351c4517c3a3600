"""Tickets in Redis: loading them, and reading what is left on them right now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from server.domain.errors import ErrorCode, Refusal
from server.hot import keys
from server.hot.connection import ask
from server.hot.scripts import Script, ScriptRunner

LOAD: Final = Script("load")
_CLOSED: Final = -1


class TicketOwner(msgspec.Struct, frozen=True):
    """What a ticket's hash says without its uses; status VOID or ACTIVE."""

    buyer_id: str
    status: str
    valid_until_ms: int | None


class GateTickets:
    """The ticket hashes of all shards."""

    def __init__(self, redis: Redis, runner: ScriptRunner, shards: int) -> None:
        self._redis = redis
        self._runner = runner
        self._shards = shards

    async def load_absent(self, hashes: Mapping[str, Sequence[str]]) -> None:
        """Write tickets (code -> fields and values) that Redis does not have; those it has are left alone.

        Raises Refusal(GATE_CLOSED) when a shard is not loaded: rehydration will bring the ticket.
        """
        by_shard = sorted(hashes, key=lambda code: keys.shard_of(code, self._shards))
        for shard, codes_of_shard in groupby(by_shard, key=lambda code: keys.shard_of(code, self._shards)):
            codes = list(codes_of_shard)
            args: list[str | int] = [self._shards]
            for code in codes:
                args += (len(hashes[code]), *hashes[code])
            names = [keys.epoch(shard), *(keys.ticket(shard, code) for code in codes)]
            if await self._runner.run(LOAD, names, args) == _CLOSED:
                raise Refusal(ErrorCode.GATE_CLOSED)

    async def remaining(self, codes: Sequence[str]) -> list[str | None]:
        """Per ticket what is left (`unpack_remaining` reads it), or None where Redis does not have the ticket."""
        if not codes:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for code in codes:
                pipe.hget(keys.ticket(keys.shard_of(code, self._shards), code), "r")
            answers: list[str | None] = await ask(pipe.execute())
        return answers

    async def owner(self, code: str) -> TicketOwner | None:
        """Who owns the ticket, and whether it can still be used; None where Redis does not have it."""
        name = keys.ticket(keys.shard_of(code, self._shards), code)
        facts: list[Any] = await ask(self._redis.hmget(name, "o", "s", "z"))
        owner, status, until_ms = facts
        if owner is None:
            return None
        return TicketOwner(owner, status or "ACTIVE", None if until_ms is None else int(until_ms))
