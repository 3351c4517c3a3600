"""Orders of one moment are judged by one script call, however many buyers there are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from server.config import Ack
from server.domain.catalog import Terms
from server.domain.errors import ErrorCode, Refusal
from server.domain.orders import NewOrder, OrderLine
from server.hot import keys, stock
from server.hot.connection import connect
from server.hot.scripts import Script, ScriptRunner
from server.hot.stock import HoldAnswer, HoldCode, Level, Stock
from server.limits import ORDER_BATCH_MAX

WHEN = datetime(2030, 1, 1, tzinfo=UTC)


class Counting(ScriptRunner):
    """Remembers how many orders each call had."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis, Ack.MEMORY)
        self.sizes: list[int] = []

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        if script is stock.HOLD:
            self.sizes.append((len(args) - 3) // 5)
        return await super().run(script, keys, args)


def order(number: int, *products: int, key: str | None = None, buyer: str = "ann") -> NewOrder:
    return NewOrder(
        order_id=f"order-{number}",
        buyer_id=f"demo:{buyer}",
        idempotency_key=key or f"key-{number}",
        payload_hash="h",
        total_fen=0,
        created_at=WHEN,
        expires_at=WHEN,
        lines=tuple(OrderLine(product, 1, 0, Terms(name="Day", functions=())) for product in products),
    )


@pytest.fixture
async def runner(redis_url: str) -> AsyncIterator[Counting]:
    redis = connect(redis_url)
    await redis.set(keys.STOCK_EPOCH, "run 1")
    counting = Counting(redis)
    yield counting
    await counting.aclose()
    await redis.aclose(close_connection_pool=True)


async def hold_all(sale: Stock, orders: Sequence[NewOrder]) -> list[HoldAnswer]:
    return await asyncio.gather(*(sale.hold(each, [True] * len(each.lines)) for each in orders))


async def test_a_thousand_buyers_of_one_moment_are_few_calls_and_none_too_large(
    runner: Counting, redis: Redis
) -> None:
    sale = Stock(redis, runner)
    await sale.cap(1, 300)
    answers = await hold_all(sale, [order(number, 1) for number in range(1_000)])

    assert max(runner.sizes) == ORDER_BATCH_MAX and sum(runner.sizes) == 1_000
    codes = Counter(answer.code for answer in answers)
    assert codes == {HoldCode.HELD: 300, HoldCode.SOLD_OUT: 700}
    assert await sale.levels([1]) == {1: Level(300, 300, 0)}
    assert await redis.xlen(keys.ORDERS_STREAM) == 300


async def test_a_buyer_who_asks_twice_in_one_moment_holds_once(runner: Counting, redis: Redis) -> None:
    sale = Stock(redis, runner)
    await sale.cap(1, 10)
    first, again = await hold_all(sale, [order(1, 1, key="same"), order(2, 1, key="same")])

    assert runner.sizes == [2]
    assert (first, again) == (
        HoldAnswer(HoldCode.HELD, "order-1", 0),
        HoldAnswer(HoldCode.REPLAYED, "order-1", 0),
    )
    assert await sale.levels([1]) == {1: Level(10, 1, 0)}


async def test_one_order_of_a_batch_that_does_not_fit_takes_nothing_from_the_others(
    runner: Counting, redis: Redis
) -> None:
    sale = Stock(redis, runner)
    await sale.cap(1, 2)
    await sale.cap(2, 1)
    answers = await hold_all(sale, [order(1, 1, 2), order(2, 1, 2), order(3, 1), order(4, 7)])

    assert runner.sizes == [4]
    assert [answer.code for answer in answers] == [
        HoldCode.HELD, HoldCode.SOLD_OUT, HoldCode.HELD, HoldCode.NOT_LOADED,
    ]  # fmt: skip
    assert answers[1] == HoldAnswer(HoldCode.SOLD_OUT, "2", 0)
    assert await sale.levels([1, 2]) == {1: Level(2, 2, 0), 2: Level(1, 1, 0)}


async def test_a_redis_that_stops_halfway_has_reserved_rather_than_sold_too_much(
    runner: Counting, redis: Redis
) -> None:
    sale = Stock(redis, runner)
    await sale.cap(1, 10)
    await redis.set(keys.ORDERS_STREAM, "no stream")  # so the last write of the script fails
    with pytest.raises(Refusal) as refused:
        await sale.hold(order(1, 1), [True])

    assert refused.value.code is ErrorCode.REDIS_UNAVAILABLE
    assert isinstance(refused.value.__cause__, ResponseError)
    assert await sale.levels([1]) == {1: Level(10, 1, 0)}


# --- How many of one buyer ----------------------------------------------------------------------------------


def codes_of(answers: Sequence[HoldAnswer]) -> list[HoldCode]:
    return [answer.code for answer in answers]


async def test_a_batch_takes_no_more_of_a_buyer_than_one_after_the_other_would(
    runner: Counting, redis: Redis
) -> None:
    sale = Stock(redis, runner, buyer_orders_max=3, window_s=60)
    await sale.cap(1, 100)
    anns = [order(number, 1) for number in range(5)]
    bobs = [order(number, 1, buyer="bob") for number in range(10, 12)]
    answers = await hold_all(sale, [*anns, *bobs])

    held, many = HoldCode.HELD, HoldCode.TOO_MANY
    assert runner.sizes == [7]
    assert codes_of(answers) == [held, held, held, many, many, held, held]
    assert 59_000 < answers[3].figure <= 60_000
    assert codes_of(await hold_all(sale, [order(20, 1), order(21, 1, buyer="bob")])) == [many, held]
    assert await sale.levels([1]) == {1: Level(100, 6, 0)}


async def test_a_retry_is_neither_refused_nor_counted_and_what_is_refused_is_not_counted(
    runner: Counting, redis: Redis
) -> None:
    sale = Stock(redis, runner, buyer_orders_max=2, window_s=60)
    await sale.cap(1, 100)
    await sale.cap(2, 0)
    for _ in range(5):
        assert codes_of(await hold_all(sale, [order(1, 2, key="sold out")])) == [HoldCode.SOLD_OUT]
        assert codes_of(await hold_all(sale, [order(2, 7, key="unknown")])) == [HoldCode.NOT_LOADED]
    first = await hold_all(sale, [order(3, 1), order(4, 1)])
    assert codes_of(first) == [HoldCode.HELD, HoldCode.HELD]
    for _ in range(5):
        again = await hold_all(
            sale, [order(5, 1, key="key-3"), order(6, 1, key="another"), order(7, 1, key="key-4")]
        )
        assert codes_of(again) == [HoldCode.REPLAYED, HoldCode.TOO_MANY, HoldCode.REPLAYED]
        assert [again[0].subject, again[2].subject] == ["order-3", "order-4"]


async def test_the_window_slides_and_tells_when_it_has_room(runner: Counting, redis: Redis) -> None:
    """So there are never more in any time of that length: a place is free again when its own order is old."""
    sale = Stock(redis, runner, buyer_orders_max=2, window_s=60)
    await sale.cap(1, 100)

    async def passes(ms: int) -> None:
        """What Redis remembers is made older, since its clock cannot be set."""
        name = keys.recent_orders("demo:ann")
        await redis.set(name, "".join(f"{int(at) - ms} " for at in (await redis.get(name)).split()))

    assert codes_of(await hold_all(sale, [order(1, 1)])) == [HoldCode.HELD]
    await passes(30_000)
    assert codes_of(await hold_all(sale, [order(2, 1)])) == [HoldCode.HELD]
    (full,) = await hold_all(sale, [order(3, 1)])
    assert full.code is HoldCode.TOO_MANY and 0 < full.figure <= 30_000
    await passes(full.figure)
    answers = await hold_all(sale, [order(4, 1), order(5, 1)])
    assert codes_of(answers) == [HoldCode.HELD, HoldCode.TOO_MANY]
    assert 0 < answers[1].figure <= 60_000 - full.figure, "the place of the second"


async def test_a_clock_that_went_back_keeps_no_buyer_waiting(runner: Counting, redis: Redis) -> None:
    sale = Stock(redis, runner, buyer_orders_max=1, window_s=60)
    await sale.cap(1, 100)
    seconds, _ = await redis.time()
    await redis.set(keys.recent_orders("demo:ann"), f"{(seconds + 86_400) * 1000}")
    answers = await hold_all(sale, [order(1, 1), order(2, 1)])
    assert codes_of(answers) == [HoldCode.HELD, HoldCode.TOO_MANY]


async def test_what_is_known_of_a_buyer_goes_by_itself(runner: Counting, redis: Redis) -> None:
    sale = Stock(redis, runner, buyer_orders_max=3, window_s=60)
    await sale.cap(1, 100)
    await hold_all(sale, [order(number, 1) for number in range(5)])
    name = keys.recent_orders("demo:ann")
    assert len((await redis.get(name)).split()) == 3
    assert 55 < await redis.ttl(name) <= 60


async def test_without_a_bound_nothing_is_kept_of_a_buyer(runner: Counting, redis: Redis) -> None:
    sale = Stock(redis, runner)
    await sale.cap(1, 100)
    assert codes_of(await hold_all(sale, [order(number, 1) for number in range(50)])) == [HoldCode.HELD] * 50
    assert await redis.exists(keys.recent_orders("demo:ann")) == 0
