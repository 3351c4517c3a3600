"""Redis emptied, or killed with its data: the guard rebuilds it from Postgres and what survives of its streams."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from server.config import Ack
from server.dev.embedded import EmbeddedValkey
from server.domain.errors import Refusal
from server.hot import keys
from server.hot.loading import Loading
from server.hot.scripts import ScriptRunner
from server.hot.stock import Level
from server.hot.stream import ordinal
from server.store.pool import Database
from tests.conftest import Audit, Serve, eventually
from tests.road import Road


async def test_emptied_after_a_sale_it_goes_on_where_it_stood(road: Road, redis: Redis, audit: Audit) -> None:
    await road.venue("pier", ["bus"])
    product = await road.product({"bus": 3}, sellable=10)
    (ticket,) = await road.buy({product: 1})
    open_order = (await road.order({product: 2}, idempotency_key="open")).raw
    first_qr = await road.qr(ticket["ticket_code"])
    passed = await road.scan(first_qr, "bus", scan_id="passed", venue_code="pier")
    refused = await road.scan(first_qr, "bus", scan_id="refused", venue_code="pier")
    assert (passed.json["remaining_uses"], refused.json["reason"]) == (2, "ALREADY_REDEEMED")
    await road.flushed()
    cursor = await redis.xinfo_stream(keys.redemptions(0))

    await redis.flushall()
    during = await road.scan(await road.qr(ticket["ticket_code"]), "bus")
    assert during.status == 200 or during.json["code"] in ("GATE_CLOSED", "BACKLOG_FULL"), during
    await road.backlog.look()
    await road.until_ready()

    # What was told is told again, whichever verdict it was; the spent QR stays spent for everyone else.
    assert (await road.scan(first_qr, "bus", scan_id="passed", venue_code="pier")).raw == passed.raw
    assert (await road.scan(first_qr, "bus", scan_id="refused", venue_code="pier")).raw == refused.raw
    assert (await road.scan(first_qr, "bus", venue_code="pier")).json["reason"] == "ALREADY_REDEEMED"
    assert (await road.order({product: 2}, idempotency_key="open")).raw == open_order
    left = 1 if during.status == 200 else 2
    for remaining in range(left - 1, -1, -1):
        again = await road.scan(await road.qr(ticket["ticket_code"]), "bus")
        assert again.json["remaining_uses"] == remaining
    assert (await road.scan(await road.qr(ticket["ticket_code"]), "bus")).json["reason"] == "NO_REMAINING"
    await road.flushed()
    levels = await road.parts.stock.levels([product])
    assert (levels[product].sellable, levels[product].reserved, levels[product].sold) == (10, 2, 1)
    after = await redis.xinfo_stream(keys.redemptions(0))
    assert ordinal(after["last-generated-id"]) > ordinal(cursor["last-generated-id"])
    await audit(road)


async def test_emptied_it_never_hands_out_ids_that_the_flusher_has_passed(road: Road, redis: Redis) -> None:
    product = await road.product({"bus": 2})
    (ticket,) = await road.buy({product: 1})
    await road.scan(await road.qr(ticket["ticket_code"]), "bus")
    await road.flushed()
    far = 9_000_000_000_000  # as if the clock had been ahead by centuries when the last entry was written
    async with road.parts.database.transaction() as connection:
        await connection.execute(
            "UPDATE stream_cursors SET last_id = $1 WHERE stream = $2", f"{far}-5", keys.redemptions(0)
        )

    await redis.flushall()
    await road.backlog.look()
    await road.until_ready()
    passed = await road.scan(await road.qr(ticket["ticket_code"]), "bus", scan_id="late")

    assert passed.json["result"] == "success"
    assert passed.json["event_id"] == f"00-{far}-6"
    await road.flushed()
    report = await road.call("GET", "/reports/redemptions", headers=await road.analyst())
    assert "late" in [row["scan_id"] for row in report.json["redemptions"]]


async def test_killed_and_restarted_with_its_data_it_loses_nothing_that_was_told(
    serve: Serve, own_valkey: EmbeddedValkey, audit: Audit
) -> None:
    road = await serve(redis_url=own_valkey.url)
    product = await road.product({"bus": 5}, sellable=10)
    (ticket,) = await road.buy({product: 1})
    told = [await road.scan(await road.qr(ticket["ticket_code"]), "bus") for _ in range(3)]
    assert [answer.json["remaining_uses"] for answer in told] == [4, 3, 2]

    token = await road.qr(ticket["ticket_code"])
    own_valkey.kill()
    away = await road.scan(token, "bus", scan_id="over-the-restart")
    assert (away.status, away.json["code"]) == (503, "REDIS_UNAVAILABLE")
    assert away.headers["Retry-After"]
    own_valkey.start()

    async def decided() -> bool:
        return (await road.scan(token, "bus", scan_id="over-the-restart")).status == 200

    await eventually(decided)
    await road.until_ready()
    (shown,) = (await road.call("GET", "/my/tickets", headers=road.buyer())).json["tickets"]
    assert [left["remaining_uses"] for left in shown["entitlements"]] == [1]
    await road.flushed()
    await audit(road)


async def test_a_rehydration_waits_for_one_that_was_cut_off_amid_a_write(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    """Its transaction may end later than its session, which has the lock: a stream that it holds is not drained."""
    (ticket,) = await road.buy({await road.product({"bus": 1}): 1})
    qr = await road.qr(ticket["ticket_code"])
    await road.flushed()
    async with pg.transaction():
        await pg.fetch("SELECT FROM stream_cursors WHERE stream = $1 FOR UPDATE", keys.redemptions(0))
        assert (await road.scan(qr, "bus", scan_id="told")).json["remaining_uses"] == 0
        rehydrating = asyncio.create_task(road.parts.rehydration.rehydrate())
        done, _ = await asyncio.wait([rehydrating], timeout=1.0)
        assert not done
        assert (await road.scan(qr, "bus", scan_id="told")).json["code"] == "GATE_CLOSED"
    await rehydrating

    assert (await road.scan(qr, "bus", scan_id="told")).json["remaining_uses"] == 0
    assert (await road.scan(await road.qr(ticket["ticket_code"]), "bus")).json["reason"] == "NO_REMAINING"
    await road.flushed()
    await audit(road)


async def test_a_rehydration_that_was_overtaken_writes_nothing_more(road: Road) -> None:
    product = await road.product({"bus": 1})
    (ticket,) = await road.buy({product: 1})
    code = ticket["ticket_code"]
    parts = road.parts
    runner = ScriptRunner(parts.redis, Ack.MEMORY)
    late = Loading(parts.redis, runner, parts.epochs, parts.config.shards)
    await late.begin()  # and then its session to Postgres is cut
    stale = await parts.loader.gate_hashes([code])
    await parts.rehydration.rehydrate()  # another process takes over, and opens the gates
    assert (await road.scan(await road.qr(code), "bus")).json["remaining_uses"] == 0

    for write in (
        late.tickets(stale),
        late.stock({product: Level(100, 0, 0)}),
        late.forget_tickets(),
        late.finish("no such run"),
    ):
        with pytest.raises(Refusal, match="Another process is loading Redis"):
            await write

    await runner.aclose()
    assert (await road.scan(await road.qr(code), "bus")).json["reason"] == "NO_REMAINING"


async def test_the_gates_of_a_restarted_redis_are_shut_even_while_postgres_is_away(
    serve: Serve, own_valkey: EmbeddedValkey
) -> None:
    road = await serve(redis_url=own_valkey.url)
    product = await road.product({"bus": 2})
    (ticket,) = await road.buy({product: 1})
    token = await road.qr(ticket["ticket_code"])
    await road.stop()
    away = await serve(redis_url=own_valkey.url, jobs=False)
    await away.gate()
    away.parts.rehydration._db = Database("postgresql://nobody@127.0.0.1:1/none", size_max=1)
    own_valkey.kill()
    own_valkey.start()
    with pytest.raises(Refusal):
        await away.parts.rehydration.guard()

    shut = await away.scan(token, "bus", scan_id="scan-1")
    sold = await away.order({product: 1})
    await serve(redis_url=own_valkey.url)  # its guard has a Postgres
    judged = await away.scan(token, "bus", scan_id="scan-1")

    assert (shut.status, shut.json["code"]) == (503, "GATE_CLOSED")
    assert (sold.status, sold.json["code"]) == (503, "GATE_CLOSED")
    assert judged.json["remaining_uses"] == 1


async def test_a_gate_that_another_process_has_just_opened_is_not_shut_again(
    serve: Serve, redis: Redis
) -> None:
    """It opens slot by slot: who looks in between finds some that are open, and some that are not yet."""
    road = await serve(jobs=False)
    await road.parts.rehydration.guard()
    road.parts.rehydration._db = Database("postgresql://nobody@127.0.0.1:1/none", size_max=1)
    opened, *not_yet = road.parts.epochs.names
    epoch = await redis.get(opened)
    await redis.delete(*not_yet)
    with pytest.raises(Refusal):
        await road.parts.rehydration.guard()

    assert epoch is not None and await redis.get(opened) == epoch
    assert await redis.exists(*not_yet) == 0


async def test_a_redis_back_with_less_than_it_told_judges_nothing_before_the_guard_has_looked(
    serve: Serve, own_valkey: EmbeddedValkey, tmp_path: Path, audit: Audit
) -> None:
    road = await serve(redis_url=own_valkey.url)
    product = await road.product({"bus": 2}, sellable=10)
    (ticket,) = await road.buy({product: 1})
    fresh, spent = await road.qr(ticket["ticket_code"]), await road.qr(ticket["ticket_code"])
    (log,) = (tmp_path / "valkey-data" / "valkey" / "appendonlydir").glob("*.incr.aof")
    kept = log.stat().st_size
    assert (await road.scan(spent, "bus")).json["result"] == "success"
    await road.flushed()
    await road.stop()
    server = await serve(redis_url=own_valkey.url, jobs=False)  # nobody guards
    await server.gate()

    own_valkey.kill()
    with log.open("r+b") as file:
        file.truncate(kept)
    own_valkey.start()
    shut = [
        await server.scan(spent, "bus"),
        await server.scan(fresh, "bus"),
        await server.order({product: 1}),
    ]
    guarded = await serve(redis_url=own_valkey.url)

    assert [(answer.status, answer.json["code"]) for answer in shut] == [(503, "GATE_CLOSED")] * 3
    assert (await server.scan(spent, "bus")).json["reason"] == "ALREADY_REDEEMED"
    assert (await server.scan(fresh, "bus")).json["remaining_uses"] == 0
    await audit(guarded)
