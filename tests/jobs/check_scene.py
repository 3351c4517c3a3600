"""A road that was walked, for `gateline check` to look at, and the means to break it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
from redis.asyncio import Redis

from server.app import Parts
from server.config import Config
from server.domain.payments import Channel
from server.hot import keys
from server.jobs.check import check
from server.jobs.findings import Finding
from server.store import attempts
from tests.road import Road

SHARDS = 3
Pg: TypeAlias = "asyncpg.Connection[Any]"


@dataclass
class Scene:
    """A road that was walked: orders in every status; tickets untouched, half used and used up; many verdicts."""

    parts: Parts
    redis: Redis
    pg: Pg
    places: Places

    def ticket_key(self, code: str) -> str:
        return keys.ticket(keys.shard_of(code, SHARDS), code)

    async def check(self) -> dict[str, Finding]:
        parts = self.parts
        found = await check(parts.bulk_database, parts.redis, parts.streams, parts.epochs, SHARDS)
        assert len({finding.invariant for finding in found}) == len(found)
        return {finding.invariant: finding for finding in found}

    async def copy_event(self, result: str, *, later: timedelta = timedelta(0), **changes: str) -> None:
        """One more event like the first of this result, decided so much later."""
        row = await self.pg.fetchrow(
            "SELECT * FROM redemption_events WHERE result = $1 ORDER BY event_id", result
        )
        assert row is not None
        times = {name: row[name] + later for name in ("scanned_at", "decided_at")}
        event = {**row, "event_id": row["event_id"] + "7", **times, **changes}
        places = ", ".join(f"${number}" for number in range(1, len(event) + 1))
        await self.pg.execute(f"INSERT INTO redemption_events VALUES ({places})", *event.values())  # noqa: S608

    async def pass_over(self, stream: str) -> None:
        """Put an entry into a stream that the flusher is past."""
        last_id = await self.parts.streams.last_id(stream)
        async with self.redis.pipeline() as pipe:
            pipe.delete(stream)
            pipe.xadd(stream, {"d": "lost"}, id="1-1")
            pipe.execute_command("XSETID", stream, last_id)
            await pipe.execute()


@dataclass(frozen=True)
class Places:
    """What a test may want to break."""

    product: int
    pending: str
    paid: str
    untouched: str
    used: str


async def walk(road: Road) -> Places:
    product = await road.product({"bus": 2, "museum": 1}, price_fen=5_000, sellable=50)
    other = await road.product({"ferry": 1}, price_fen=0)
    await road.venue("pier", ["ferry"])
    tickets = await road.buy({product: 3})
    await road.buy({other: 2, product: 1})
    await road.buy({other: 1})
    pending = (await road.order({product: 2, other: 1})).json["order_id"]
    await road.order({product: 1})
    await road.order({other: 1, product: 5})
    dropped = (await road.order({product: 4})).json
    await road.call("POST", f"/orders/{dropped['order_id']}/cancel", headers=road.buyer())
    await road.notify(dropped["order_id"], dropped["total_fen"])
    ended = (await road.order({product: 1})).json["order_id"]
    await road.call("POST", f"/orders/{ended}/cancel", headers=road.buyer())

    used, half, untouched = (ticket["ticket_code"] for ticket in tickets)
    for function in ("bus", "bus", "museum"):
        await road.scan(await road.qr(used), function)
    token = await road.qr(half)
    for _ in range(2):
        await road.scan(token, "bus", scan_id="told-twice")
    await road.scan(token, "bus")  # ALREADY_REDEEMED
    await road.scan(token, "ferry")  # WRONG_FUNCTION
    await road.scan(await road.qr(half), "bus", venue_code="pier")  # WRONG_VENUE_FUNCTION
    await road.scan("NOT-A-TOKEN", "bus")
    await road.flushed()
    async with road.parts.database.transaction() as connection:  # as if it had been tried by WeChat before
        await attempts.insert(
            connection,
            out_trade_no=f"{ended}-1",
            order_id=ended,
            channel=Channel.WECHAT_NATIVE,
            appid="wx1",
            openid="",
            request="{}",
            now=datetime.now(UTC),
        )
        await attempts.closed(connection, f"{ended}-1")
    return Places(product, pending, tickets[0]["order_id"], untouched, used)


@dataclass(frozen=True)
class Walked:
    """What a walk left behind, to be put back for each test: a database to clone, and every key of Redis."""

    config: Config
    places: Places
    database: str
    dumps: dict[str, tuple[bytes, int]]  # with the ms that each still has, 0: for ever
