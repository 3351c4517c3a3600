"""The acknowledgement levels, each on Valkeys that run as the level needs, or do not."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis.asyncio import Redis

from server.config import Ack
from server.dev.embedded import EmbeddedValkey
from server.domain.catalog import Terms
from server.domain.errors import ErrorCode, Refusal
from server.domain.orders import NewOrder, OrderLine
from server.hot.connection import AckError, connect, verify_ack
from server.hot.scripts import ScriptRunner
from server.hot.stock import CAP, HoldAnswer, HoldCode, Stock
from tests.conftest import Serve, eventually

WHEN = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def lazy_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A Valkey that writes to its disk once a second."""
    with EmbeddedValkey(tmp_path / "lazy", appendfsync="everysec") as valkey:
        yield valkey


@pytest.mark.parametrize("ack", [Ack.FSYNC, Ack.REPLICA])
async def test_a_level_that_redis_does_not_keep_is_refused_in_words(
    lazy_valkey: EmbeddedValkey, ack: Ack
) -> None:
    async with connect(lazy_valkey.url) as redis:
        with pytest.raises(AckError, match="appendfsync=everysec"):
            await verify_ack(redis, ack)
        await verify_ack(redis, Ack.MEMORY)


async def test_a_redis_that_is_away_at_the_start_is_no_reason_not_to_start(serve: Serve) -> None:
    road = await serve(jobs=False, redis_url="redis://127.0.0.1:1/0")
    ready = await road.call("GET", "/readyz")

    assert ready.status == 503
    assert "REDIS_UNAVAILABLE" in ready.json["reasons"]


async def test_without_a_replica_nothing_is_acknowledged_and_the_retry_finds_the_decision(
    serve: Serve,
) -> None:
    road = await serve()
    product = await road.product({"bus": 1})
    (ticket,) = await road.buy({product: 1})
    token = await road.qr(ticket["ticket_code"])
    alone = await serve(jobs=False, ack=Ack.REPLICA)
    await alone.backlog.look()

    untold = await alone.scan(token, "bus", scan_id="scan-1")
    told = await road.scan(token, "bus", scan_id="scan-1")

    assert (untold.status, untold.json["code"]) == (503, "NOT_ACKNOWLEDGED")
    assert untold.headers["Retry-After"]
    assert untold.json["scan_id"] == "scan-1"
    assert told.json["result"] == "success"
    assert told.json["remaining_uses"] == 0


@asynccontextmanager
async def replicated(folder: Path) -> AsyncIterator[tuple[EmbeddedValkey, EmbeddedValkey]]:
    """A primary whose stock is open, and a replica in step with it, each on its own disk."""
    with EmbeddedValkey(folder / "primary", extra=("--repl-diskless-sync-delay", "0")) as primary:
        follow = ("--replicaof", f"127.0.0.1 {primary.port}", "--primaryauth", primary.password)
        with EmbeddedValkey(folder / "replica", extra=follow) as replica:
            async with Redis.from_url(primary.url) as redis, Redis.from_url(replica.url) as copy:
                await redis.set("{stock}:epoch", "run 1")

                async def in_step() -> bool:
                    return (await copy.info("replication"))["master_link_status"] == "up"

                await eventually(in_step)
            yield primary, replica


async def test_with_a_replica_on_its_own_disk_decisions_are_acknowledged(tmp_path: Path) -> None:
    async with (
        replicated(tmp_path) as (primary, replica),
        connect(primary.url) as redis,
        aclosing(ScriptRunner(redis, Ack.REPLICA)) as runner,
    ):
        await Stock(redis, runner).cap(7, 100)
        replica.kill()
        with pytest.raises(Refusal) as refused:
            await runner.run(CAP, ["{stock}:epoch", "{stock}:p:7"], [90])

        assert refused.value.code is ErrorCode.NOT_ACKNOWLEDGED
        replica.start()
        async with Redis.from_url(replica.url, decode_responses=True) as restarted:

            async def has_the_cap() -> bool:
                return await restarted.hget("{stock}:p:7", "sellable") == "90"

            await eventually(has_the_cap)


async def test_what_a_hanging_replica_does_not_have_is_not_told_by_another_connection_either(
    tmp_path: Path,
) -> None:
    """A retry finds what was decided and writes nothing itself: that alone does not make it acknowledged."""
    order = NewOrder(
        order_id="order-1",
        buyer_id="demo:ann",
        idempotency_key="key-1",
        payload_hash="h",
        total_fen=0,
        created_at=WHEN,
        expires_at=WHEN,
        lines=(OrderLine(7, 1, 0, Terms(name="Day", functions=())),),
    )
    async with (
        replicated(tmp_path) as (primary, replica),
        connect(primary.url) as redis,
        aclosing(ScriptRunner(redis, Ack.REPLICA)) as one,
        aclosing(ScriptRunner(redis, Ack.REPLICA)) as other,
    ):
        await Stock(redis, one).cap(8, 100)
        await Stock(redis, other).cap(7, 100)
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            for runner in (one, other, one):
                with pytest.raises(Refusal) as refused:
                    await Stock(redis, runner).hold(order, [True])
                assert refused.value.code is ErrorCode.NOT_ACKNOWLEDGED
        finally:
            os.kill(replica.pid, signal.SIGCONT)

        assert await Stock(redis, other).hold(order, [True]) == HoldAnswer(HoldCode.REPLAYED, "order-1", 0)
