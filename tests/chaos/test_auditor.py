"""The auditor sees what is wrong: every kind of breach is planted into real books, and an untouched copy is clean."""

from __future__ import annotations

import ast
import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest
from redis.asyncio import Redis

from tests.chaos.audit.auditor import hold, quiet
from tests.chaos.audit.books import Books, read_diaries, read_record, read_redis
from tests.chaos.audit.findings import Finding, Kind
from tests.chaos.audit.watch import Watch
from tests.chaos.crowd import gather
from tests.chaos.installation import Installation
from tests.chaos.plants import PLANTS, Plant, Planted
from tests.conftest import Serve
from tests.road import PATIENCE_S

AUDIT = Path(__file__).parent / "audit"


@pytest.mark.timeout(180)
async def test_every_planted_breach_is_seen_and_counted_and_untouched_books_are_clean(
    serve: Serve, redis: Redis, redis_url: str, owner_url: str, tmp_path: Path
) -> None:
    road = await serve(hold_s=2, qr_ttl_s=20)
    installed = SimpleNamespace(
        folder=tmp_path,
        doors=[road.url.rstrip("/")] * 2,
        config=road.config,
        secret=road.config.gateway_secrets[0],
    )
    async with gather(cast(Installation, installed), 7) as crowd:
        crowd.begin()
        await asyncio.sleep(3.0)
        crowd.check()
        await crowd.finish()
    await quiet(owner_url, redis_url, seconds=PATIENCE_S)
    await road.stop()
    scene = await _dump(redis_url)

    pg = await asyncpg.connect(owner_url, statement_cache_size=0)  # tables change
    untouched = await _planted("SELECT 1", pg, redis, tmp_path / "diaries")
    unseen = {}
    for number, (name, (kind, rule, plant)) in enumerate(PLANTS.items()):
        diaries = tmp_path / f"diaries-{number}"
        shutil.copytree(tmp_path / "diaries", diaries)
        await _restore(redis_url, scene)
        found = await _planted(plant, pg, redis, diaries)
        if not any(each.kind is kind and each.rule.startswith(rule) for each in found):
            unseen[name] = found[:3]
    await pg.close()

    assert untouched == []
    assert len(PLANTS) > 40
    assert unseen == {}


async def test_a_cap_passed_for_a_moment_is_seen_while_all_goes_on(redis: Redis) -> None:
    watch = Watch(lambda: "")
    await redis.hset("{stock}:p:1", mapping={"sellable": 2, "reserved": 1, "sold": 1})
    await watch.look(redis)
    before = dict(watch.findings)
    await redis.hincrby("{stock}:p:1", "sold", 1)
    await watch.look(redis)
    await redis.hincrby("{stock}:p:1", "sold", -1)
    await watch.look(redis)

    assert before == {}
    assert [finding.kind for finding in watch.findings.values()] == [Kind.BREACH]


def test_the_auditor_knows_nothing_of_the_server() -> None:
    imported = [
        getattr(node, "module", None) or alias.name
        for path in AUDIT.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]

    assert "asyncpg" in imported
    assert [
        name for name in imported if name.startswith(("server", "bench", "tests.")) and "audit" not in name
    ] == []


async def _planted(
    plant: Plant | str, pg: asyncpg.Connection[Any], redis: Redis, diaries: Path
) -> list[Finding]:
    """What the audit says of the books with this plant; in Postgres it is rolled back."""
    transaction = pg.transaction()
    await transaction.start()
    if isinstance(plant, str):
        await pg.execute(plant)
    else:
        await plant(Planted(redis, diaries))
    books = Books(await read_record(pg), commands=read_diaries(diaries))
    await read_redis(redis, books)
    await transaction.rollback()
    return hold(books)


async def _dump(redis_url: str) -> dict[bytes, bytes]:
    async with Redis.from_url(redis_url) as raw:
        dumped = {name: await raw.dump(name) for name in await raw.keys()}
        return {
            name: value for name, value in dumped.items() if value is not None
        }  # a throttle's mark may end


async def _restore(redis_url: str, scene: dict[bytes, bytes]) -> None:
    async with Redis.from_url(redis_url) as raw, raw.pipeline(transaction=False) as pipe:
        pipe.flushall()
        for name, value in scene.items():
            pipe.restore(name, 0, value)
        await pipe.execute()
