"""Loading many tickets, page by page: the next page is read while one is written, and none is passed over."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from redis.asyncio import Redis

from server.domain.errors import ErrorCode, Refusal
from server.hot.loading import Loading
from server.jobs import rehydrate
from tests.conftest import Audit
from tests.road import Road


async def hashes(redis: Redis) -> dict[str, dict[str, str]]:
    return {name: await redis.hgetall(name) for name in await redis.keys("{s*}:t:*")}


async def test_all_pages_are_loaded_as_they_were_and_counted_as_they_come(
    road: Road, redis: Redis, monkeypatch: pytest.MonkeyPatch, audit: Audit
) -> None:
    product = await road.product({"bus": 2, "ferry": 1}, sellable=20)
    sold = await road.buy({product: 7})
    await road.scan(await road.qr(sold[0]["ticket_code"]), "bus")
    await road.flushed()
    before = await hashes(redis)
    monkeypatch.setattr(rehydrate, "REHYDRATE_PAGE", 3)
    told: list[tuple[str, int, int]] = []
    await road.parts.rehydration.rehydrate(lambda *progress: told.append(progress))

    assert len(before) == 7
    assert await hashes(redis) == before
    assert told == [("tickets", done, 7) for done in (0, 3, 6, 7)]
    await audit(road)


async def test_a_page_that_cannot_be_written_ends_the_loading_and_leaves_no_reading_behind(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = await road.product({"bus": 2}, sellable=20)
    await road.buy({product: 4})
    await road.flushed()
    monkeypatch.setattr(rehydrate, "REHYDRATE_PAGE", 1)
    write, written = Loading.tickets, []

    async def fail(self: Loading, page: Mapping[str, Sequence[str]]) -> None:
        if written:
            raise Refusal(ErrorCode.REDIS_UNAVAILABLE)
        written.extend(page)
        await write(self, page)

    monkeypatch.setattr(Loading, "tickets", fail)
    with pytest.raises(Refusal) as refused:
        await road.parts.rehydration.rehydrate()
    monkeypatch.setattr(Loading, "tickets", write)

    assert refused.value.code is ErrorCode.REDIS_UNAVAILABLE
    assert not [task for task in asyncio.all_tasks() if "_page_of_tickets" in repr(task.get_coro())]
    await road.until_ready()
