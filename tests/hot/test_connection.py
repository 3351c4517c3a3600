"""One call to Redis: bounded, refused clearly, and never in the way of a task that is to end."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from server.domain.errors import ErrorCode, Refusal
from server.hot.connection import ask, connect
from tests.road import PATIENCE_S


async def test_a_cancellation_that_the_client_swallows_still_ends_the_task() -> None:
    """As redis-py does on Python 3.11 when the cancellation comes while it sends."""
    started = asyncio.Event()

    async def swallow() -> str:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "an answer all the same"
        raise AssertionError

    async def loop() -> None:
        while True:
            await ask(swallow())

    task = asyncio.create_task(loop())
    await started.wait()
    task.cancel()
    await asyncio.wait([task], timeout=PATIENCE_S)
    assert task.cancelled()


async def test_a_loop_of_calls_ends_when_it_is_cancelled_at_any_moment(redis_url: str) -> None:
    redis = connect(redis_url)

    async def loop() -> None:
        while True:
            await ask(redis.get("a"))

    for turns in range(60):
        task = asyncio.create_task(loop())
        for _ in range(turns):  # to other places of the call each time
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_S)
        assert task.cancelled(), turns
    await redis.aclose(close_connection_pool=True)


async def test_an_own_timeout_is_a_refusal_and_no_cancellation(redis: Redis) -> None:
    with pytest.raises(Refusal) as refused:
        await ask(redis.blpop(["nothing"], timeout=60), seconds=0.05)
    assert refused.value.code is ErrorCode.REDIS_UNAVAILABLE
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    assert await ask(redis.ping())
