"""The acknowledgement levels, each on Valkeys that run as the level needs, or do not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from redis.asyncio import Redis

from server.config import Ack
from server.dev.embedded import EmbeddedValkey
from server.domain.errors import ErrorCode, Refusal
from server.hot.connection import AckError, connect, verify_ack
from server.hot.scripts import ScriptRunner
from server.hot.stock import CAP, Stock
from tests.conftest import Serve, eventually


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


async def test_with_a_replica_on_its_own_disk_decisions_are_acknowledged(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "primary", extra=("--repl-diskless-sync-delay", "0")) as primary:
        follow = ("--replicaof", f"127.0.0.1 {primary.port}", "--primaryauth", primary.password)
        with EmbeddedValkey(tmp_path / "replica", extra=follow) as replica:
            async with (
                connect(primary.url) as redis,
                Redis.from_url(replica.url) as copy,
                aclosing(ScriptRunner(redis, Ack.REPLICA)) as runner,
            ):
                await redis.set("{stock}:epoch", "run 1")

                async def in_step() -> bool:
                    return (await copy.info("replication"))["master_link_status"] == "up"

                await eventually(in_step)
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
