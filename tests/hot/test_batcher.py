"""The batcher: what comes together goes together, in order; what is too much is refused at once; no caller hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from server.domain.errors import ErrorCode, Refusal
from server.hot.batcher import Batcher
from tests.road import PATIENCE_S


class Judge:
    """Answers every item with its double, when it is let; notes the batches."""

    def __init__(self, *, open_at_once: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.at_once = self.most_at_once = 0
        self.gate = asyncio.Event()
        if open_at_once:
            self.gate.set()

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
            if 13 in items:
                raise ArithmeticError("unlucky")
            return [2 * item for item in items]
        finally:
            self.at_once -= 1


async def until_called(judge: Judge, times: int) -> None:
    """Wait until the judge was called so often."""
    async with asyncio.timeout(PATIENCE_S):
        while len(judge.batches) < times:
            await asyncio.sleep(0)


async def test_what_is_submitted_in_one_turn_is_one_batch_in_order() -> None:
    judge = Judge()
    batcher: Batcher[int, int] = Batcher(judge)
    answers = await asyncio.gather(*(batcher.submit(item) for item in range(10)))

    assert judge.batches == [list(range(10))]
    assert answers == [2 * item for item in range(10)]


async def test_the_next_batch_is_sent_before_the_answers_of_the_last_are_told() -> None:
    seen: list[str] = []

    async def decide(items: Sequence[int]) -> list[int]:
        seen.append(f"sent {items[0]}")
        await asyncio.sleep(0)
        return list(items)

    batcher: Batcher[int, int] = Batcher(decide, batch_max=1, in_flight_max=1)
    for item in (1, 2):
        batcher.post(item, lambda answer: seen.append(f"told {answer}"))
    await batcher.drain()

    assert seen == ["sent 1", "sent 2", "told 1", "told 2"]


async def test_a_lonely_item_is_sent_without_waiting_for_company() -> None:
    judge = Judge()
    batcher: Batcher[int, int] = Batcher(judge)

    assert [await batcher.submit(1), await batcher.submit(2)] == [2, 4]
    assert judge.batches == [[1], [2]]


async def test_what_comes_during_the_calls_goes_with_the_next_in_order_and_bounded() -> None:
    judge = Judge(open_at_once=False)
    batcher: Batcher[int, int] = Batcher(judge, batch_max=4, in_flight_max=2)
    waiting = []
    for item in range(2):
        waiting.append(batcher.submit(item))
        await until_called(judge, item + 1)
    waiting += [batcher.submit(item) for item in range(2, 12)]
    await asyncio.sleep(0)

    assert judge.batches == [[0], [1]], "no third call while two are under way"
    assert batcher.waiting() == 10
    judge.gate.set()
    assert await asyncio.gather(*waiting) == [2 * item for item in range(12)]
    assert judge.batches[2:] == [[2, 3, 4, 5], [6, 7, 8, 9], [10, 11]]
    assert judge.most_at_once == 2
    assert batcher.waiting() == 0


async def test_the_more_wait_the_more_go_with_one_call_up_to_a_bound() -> None:
    judge = Judge(open_at_once=False)
    batcher: Batcher[int, int] = Batcher(judge, batch=2, batch_max=5, in_flight_max=1)
    waiting = [batcher.submit(0)]
    await until_called(judge, 1)
    waiting += [batcher.submit(item) for item in range(1, 12)]
    judge.gate.set()
    await asyncio.gather(*waiting)

    assert [len(batch) for batch in judge.batches] == [1, 5, 5, 1]


async def test_past_its_bound_the_queue_refuses_at_once_and_serves_those_inside() -> None:
    judge = Judge(open_at_once=False)
    batcher: Batcher[int, int] = Batcher(judge, queue_max=3, in_flight_max=1)
    inside = [batcher.submit(0)]
    await until_called(judge, 1)
    inside += [batcher.submit(item) for item in (1, 2, 3)]
    for _ in range(5):
        with pytest.raises(Refusal) as refused:
            batcher.submit(4)
        assert refused.value.code is ErrorCode.OVERLOADED

    judge.gate.set()
    assert await asyncio.gather(*inside) == [0, 2, 4, 6]
    assert await batcher.submit(4) == 8, "there is room again"


async def test_whoever_gives_up_in_line_is_told_so_and_not_sent() -> None:
    judge = Judge(open_at_once=False)
    batcher: Batcher[int, int] = Batcher(judge, in_flight_max=1)
    first = batcher.submit(1, 30.0)
    await until_called(judge, 1)
    second, third = batcher.submit(2, 0.02), batcher.submit(3)
    with pytest.raises(Refusal) as late:
        await second
    assert late.value.code is ErrorCode.DEADLINE_PASSED

    judge.gate.set()
    assert await asyncio.gather(first, third) == [2, 6]
    assert judge.batches == [[1], [3]]


async def test_whoever_gave_up_takes_no_place_of_the_living_while_redis_hangs() -> None:
    judge = Judge(open_at_once=False)
    batcher: Batcher[int, int] = Batcher(judge, queue_max=3, in_flight_max=1)
    first = batcher.submit(0)
    await until_called(judge, 1)
    late = await asyncio.gather(*(batcher.submit(item, 0.02) for item in (1, 2, 3)), return_exceptions=True)
    assert [each.code for each in late if isinstance(each, Refusal)] == [ErrorCode.DEADLINE_PASSED] * 3

    living = [batcher.submit(item) for item in (4, 5, 6)]
    assert batcher.full
    judge.gate.set()
    assert await asyncio.gather(first, *living) == [0, 8, 10, 12]
    assert judge.batches == [[0], [4, 5, 6]]


async def test_whoever_gives_up_on_what_was_sent_is_told_once() -> None:
    judge = Judge(open_at_once=False)
    batcher: Batcher[int, int] = Batcher(judge)
    told: list[int | BaseException] = []
    batcher.post(1, told.append, 0.02)
    async with asyncio.timeout(PATIENCE_S):
        while not told:
            await asyncio.sleep(0.01)
    judge.gate.set()
    await batcher.drain()

    (refusal,) = told
    assert isinstance(refusal, Refusal) and refusal.code is ErrorCode.DEADLINE_PASSED
    assert judge.batches == [[1]]


async def test_without_any_patience_left_nothing_is_queued() -> None:
    batcher: Batcher[int, int] = Batcher(Judge())
    with pytest.raises(Refusal) as late:
        batcher.submit(1, 0.0)
    assert late.value.code is ErrorCode.DEADLINE_PASSED
    assert batcher.waiting() == 0


async def test_a_fault_reaches_every_caller_of_its_batch_and_no_other() -> None:
    judge = Judge()
    batcher: Batcher[int, int] = Batcher(judge, batch_max=3)
    answers = await asyncio.gather(
        *(batcher.submit(item) for item in (11, 12, 13, 14, 15)), return_exceptions=True
    )

    assert [str(answer) for answer in answers] == ["unlucky"] * 3 + ["28", "30"]
    assert await batcher.submit(1) == 2


async def test_a_caller_that_goes_away_takes_no_one_with_it() -> None:
    judge = Judge(open_at_once=False)
    batcher: Batcher[int, int] = Batcher(judge, batch_max=3, in_flight_max=1)

    async def caller(item: int) -> int:
        return await batcher.submit(item)

    sent = [asyncio.create_task(caller(item)) for item in (0, 1, 2)]
    await until_called(judge, 1)
    queued = [asyncio.create_task(caller(item)) for item in (3, 13, 4)]
    await asyncio.sleep(0)
    for gone in (sent[1], queued[0], queued[1]):
        gone.cancel()
    judge.gate.set()

    assert await asyncio.gather(sent[0], sent[2]) == [0, 4]
    # A queued item is judged even when its caller has gone: it may be retried, and must hear the same then.
    await asyncio.wait(queued)
    assert judge.batches == [[0, 1, 2], [3, 13, 4]]
    assert isinstance(queued[2].exception(), ArithmeticError)
    assert await batcher.submit(5) == 10


@pytest.mark.parametrize("answers", [[], [1], [1, 2, 3]])
async def test_a_wrong_number_of_answers_is_a_fault_of_all_and_hangs_no_one(answers: list[int]) -> None:
    async def careless(items: Sequence[int]) -> list[int]:
        return answers

    batcher: Batcher[int, int] = Batcher(careless)
    async with asyncio.timeout(PATIENCE_S):
        told = await asyncio.gather(batcher.submit(1), batcher.submit(2), return_exceptions=True)
    assert [type(each) for each in told] == [ValueError, ValueError]


async def test_draining_waits_for_the_queued_the_sent_and_the_just_submitted() -> None:
    judge = Judge(open_at_once=False)
    batcher: Batcher[int, int] = Batcher(judge, batch_max=1, in_flight_max=1)
    await batcher.drain()  # nothing is there: nothing to wait for
    waiting = [batcher.submit(item) for item in range(4)]
    draining = asyncio.create_task(batcher.drain())
    await until_called(judge, 1)
    assert not draining.done()
    judge.gate.set()
    await draining
    assert [each.done() for each in waiting] == [True] * 4


async def test_draining_in_the_very_turn_of_the_submission_waits_for_it() -> None:
    batcher: Batcher[int, int] = Batcher(Judge())
    waiting = batcher.submit(1)
    await batcher.drain()
    assert waiting.done() and waiting.result() == 2
