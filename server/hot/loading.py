"""Loading Redis from Postgres: every write of a rehydration, each fenced.

A rehydration may lose its Postgres lock without noticing (the session was cut) while another one takes over, opens the
gates and lets tickets be spent. Whatever the first one still writes must then do nothing. So each closes the gates with
a token of its own, in every slot, and every later write is a transaction that holds only while the token is there.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.config import SHARDS_MAX
from server.domain.errors import ErrorCode, Refusal
from server.domain.orders import Order
from server.domain.redemption import Decision
from server.hot import keys
from server.hot.connection import ask
from server.hot.epoch import Epochs
from server.hot.scripts import Script, ScriptRunner
from server.hot.stock import Level
from server.limits import POSTGRES_BULK_S_MAX, REHYDRATE_PAGE, SAID_TURN_S, SAID_TURNS

FILL: Final = Script("fill")
_OVERTAKEN: Final = -1
# Patterns, for SCAN.
_SAID: Final = "{s*}:said:*"
_SALES: Final = "{stock}:[oip]:*"  # holds, idempotency keys, and the units of products


class Loading:
    """One rehydration's right to write. All methods raise Refusal(GATE_CLOSED) once another one has begun."""

    def __init__(self, redis: Redis, runner: ScriptRunner, epochs: Epochs, shards: int) -> None:
        self._redis = redis
        self._runner = runner
        self._epochs = epochs
        self._shards = shards
        self._token = secrets.token_hex(8)
        # Slot -> (epoch, loading): the names of both carry the slot as their hash tag.
        self._slots = {keys.slot(epoch): (epoch, keys.loading(keys.slot(epoch))) for epoch in epochs.names}

    async def begin(self) -> None:
        """Close all gates, also of an earlier number of shards, and take the right to load from whoever had it."""
        for shard in range(self._shards, SHARDS_MAX):
            await ask(self._redis.delete(keys.epoch(shard)))
        for epoch, loading in self._slots.values():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(loading, self._token)
                pipe.delete(epoch)
                await ask(pipe.execute())

    async def finish(self, run_id: str) -> None:
        """Open all gates: all is loaded, for this Redis and this number of shards."""
        for slot, (epoch, loading) in self._slots.items():
            async with self._writing(slot) as pipe:
                pipe.set(epoch, self._epochs.wanted(run_id))
                pipe.delete(loading)

    async def forget_tickets(self) -> None:
        """Remove every ticket and remembered verdict, of any number of shards."""
        await self._forget(keys.any_ticket())
        await self._forget(_SAID)

    async def forget_sales(self, products: Iterable[int]) -> None:
        """Remove every hold, which orders were made under which keys, and all products but these.

        The record has what still counts of them; the rest is of orders and products that it may have lost.
        """
        await self._forget(_SALES, keep={keys.stock(product_id) for product_id in products})

    async def _forget(self, pattern: str, *, keep: Container[str] = ()) -> None:
        page: list[str] = []
        try:
            async for name in self._redis.scan_iter(match=pattern, count=REHYDRATE_PAGE):
                if name not in keep:
                    page.append(name)
                if len(page) >= REHYDRATE_PAGE:
                    await self._unlink(page)
                    page = []
        except (RedisError, OSError) as fault:
            raise Refusal(ErrorCode.REDIS_UNAVAILABLE) from fault
        await self._unlink(page)

    async def _unlink(self, names: Sequence[str]) -> None:
        by_slot: dict[str, list[str]] = {}
        for name in names:
            by_slot.setdefault(keys.slot(name), []).append(name)
        for slot, of_slot in by_slot.items():
            if slot in self._slots:
                async with self._writing(slot) as pipe:
                    pipe.unlink(*of_slot)
            else:  # a shard that there is no more: nobody judges there
                await ask(self._redis.unlink(*of_slot))

    async def stock(self, levels: Mapping[int, Level]) -> None:
        """Write the units of products over whatever Redis has."""
        async with self._writing(keys.STOCK_SLOT) as pipe:
            for product_id, level in levels.items():
                units = {"sellable": level.sellable, "reserved": level.reserved, "sold": level.sold}
                pipe.hset(keys.stock(product_id), mapping=units)

    async def holds(self, orders: Sequence[Order]) -> None:
        """Write the holds of recorded orders; their units are counted by `stock`."""
        async with self._writing(keys.STOCK_SLOT) as pipe:
            for order in orders:
                deadline_ms = int(order.expires_at.timestamp() * 1000)
                pipe.hset(keys.hold(order.order_id), "deadline_ms", str(deadline_ms))

    async def idempotency(self, made: Sequence[tuple[str, str, str, str]], left_s: Sequence[int]) -> None:
        """Write (order id, buyer, key, payload hash) with the seconds that each still has."""
        async with self._writing(keys.STOCK_SLOT) as pipe:
            for (order_id, buyer_id, key, payload_hash), seconds in zip(made, left_s, strict=True):
                pipe.set(keys.idempotency(buyer_id, key), f"{order_id}\t{payload_hash}", ex=seconds)

    async def tickets(self, hashes: Mapping[str, Sequence[str]]) -> None:
        """Write tickets (code -> fields and values in turn) over whatever Redis has."""
        by_shard: dict[int, list[str]] = {}
        for code in hashes:
            by_shard.setdefault(keys.shard_of(code, self._shards), []).append(code)
        for shard, codes in by_shard.items():
            names = [
                self._slots[keys.slot(keys.epoch(shard))][1],
                *(keys.ticket(shard, code) for code in codes),
            ]
            args: list[str | int] = [self._token]
            for code in codes:
                args.append(len(hashes[code]))
                args += hashes[code]
            if await self._runner.run(FILL, names, args) == _OVERTAKEN:
                raise _overtaken()

    async def verdicts(self, told: Iterable[tuple[str, Decision]], now_ms: int) -> None:
        """Write what scans were told, per scan_id, for the rest of its time."""
        this_turn = now_ms // 1000 // SAID_TURN_S
        by_turn: dict[tuple[int, int], dict[str, str]] = {}
        for scan_id, decision in told:
            turn = min(decision.decided_ms // 1000 // SAID_TURN_S, this_turn)  # a clock may have gone back
            if turn > this_turn - SAID_TURNS:
                shard = keys.shard_of(decision.ticket_code, self._shards)
                by_turn.setdefault((shard, turn), {})[scan_id] = decision.line_without_terms()
        for (shard, turn), lines in by_turn.items():
            said = keys.said(shard)[turn % SAID_TURNS]
            async with self._writing(keys.slot(said)) as pipe:
                pipe.hset(said, mapping={"": str(turn), **lines})
                pipe.expireat(said, (turn + SAID_TURNS + 1) * SAID_TURN_S)

    @asynccontextmanager
    async def _writing(self, slot: str) -> AsyncIterator[Any]:
        """A transaction in this slot that is carried out only if the token is there still."""
        _, loading = self._slots[slot]
        async with self._redis.pipeline(transaction=True) as pipe:
            await ask(pipe.watch(loading))
            if await ask(pipe.get(loading)) != self._token:
                raise _overtaken()
            pipe.multi()  # type: ignore[no-untyped-call]
            yield pipe
            if len(pipe):
                await ask(pipe.execute(), seconds=POSTGRES_BULK_S_MAX)


def _overtaken() -> Refusal:
    return Refusal(ErrorCode.GATE_CLOSED, "Another process is loading Redis.")
