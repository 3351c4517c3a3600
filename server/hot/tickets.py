"""Tickets in Redis: loading them, and reading what is left on them right now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from server.domain.errors import ErrorCode, Refusal
from server.domain.redemption import Decision
from server.hot import keys
from server.hot.connection import ask
from server.hot.scripts import Script, ScriptRunner
from server.limits import POSTGRES_BULK_S_MAX, REDIS_CALL_S_MAX, REHYDRATE_PAGE, SCAN_REPLAY_S

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
        if await self._load("absent", hashes) is None:
            raise Refusal(ErrorCode.GATE_CLOSED)

    async def replace(self, hashes: Mapping[str, Sequence[str]]) -> None:
        """Write tickets over whatever Redis has: rehydration only, with the gate closed and the stream drained."""
        await self._load("replace", hashes)

    async def _load(self, mode: str, hashes: Mapping[str, Sequence[str]]) -> int | None:
        written = 0
        by_shard = sorted(hashes, key=lambda code: keys.shard_of(code, self._shards))
        for shard, codes_of_shard in groupby(by_shard, key=lambda code: keys.shard_of(code, self._shards)):
            codes = list(codes_of_shard)
            args: list[str | int] = [mode, self._shards]
            for code in codes:
                args += (len(hashes[code]), *hashes[code])
            names = [keys.epoch(shard), *(keys.ticket(shard, code) for code in codes)]
            answer = await self._runner.run(LOAD, names, args)
            if answer == _CLOSED:
                return None
            written += answer
        return written

    async def forget(self) -> None:
        """Remove every ticket and every remembered verdict, of any number of shards: rehydration only."""
        for pattern in (keys.ANY_TICKET, keys.ANY_SAID):
            names: list[str] = []
            async for name in self._redis.scan_iter(match=pattern, count=REHYDRATE_PAGE):
                names.append(name)
                if len(names) >= REHYDRATE_PAGE:
                    await ask(self._redis.unlink(*names))
                    names = []
            if names:
                await ask(self._redis.unlink(*names))

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

    async def remember(self, decisions: Iterable[tuple[str, Decision]], now_ms: int) -> None:
        """What gates were told, per scan_id, for the rest of its time: rehydration only."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for scan_id, decision in decisions:
                left_s = SCAN_REPLAY_S - (now_ms - decision.decided_ms) // 1000
                if left_s > 0:
                    shard = keys.shard_of(decision.ticket_code, self._shards)
                    pipe.set(keys.said(shard, scan_id), decision.line(), ex=left_s)
            await ask(pipe.execute(), seconds=max(REDIS_CALL_S_MAX, POSTGRES_BULK_S_MAX))
