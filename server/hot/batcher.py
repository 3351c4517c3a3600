"""The batcher: whatever arrives during one round trip to Redis goes out together with the next.

That is why scans are fast: under load one script call carries hundreds of them, and without load a scan is sent at
once. The queue in front is bounded; past the bound the caller hears OVERLOADED at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from server.domain.errors import ErrorCode, Refusal
from server.limits import QUEUED_S_MAX, SCAN_BATCH_MAX, SCAN_CALLS_IN_FLIGHT_MAX, SCAN_QUEUE_MAX

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Collects items of concurrent callers and hands them to `decide` in batches, in the order of arrival.

    `decide` answers every item of a batch, in order; an exception from it reaches every caller of that batch.
    """

    def __init__(
        self,
        decide: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        queue_max: int = SCAN_QUEUE_MAX,
        batch_max: int = SCAN_BATCH_MAX,
        in_flight_max: int = SCAN_CALLS_IN_FLIGHT_MAX,
    ) -> None:
        self._decide = decide
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._in_flight_max = in_flight_max
        self._queue: deque[tuple[Item, asyncio.Future[Answer], float]] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._woken = False

    def submit(self, item: Item) -> asyncio.Future[Answer]:
        """Queue an item; await the future for its answer. Raises Refusal(OVERLOADED) when the queue is full."""
        if len(self._queue) >= self._queue_max:
            raise Refusal(ErrorCode.OVERLOADED)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._queue.append((item, answer, loop.time() + QUEUED_S_MAX))
        if not self._woken and len(self._calls) < self._in_flight_max:
            # Not now but at the end of this turn: what other connections brought in the same turn goes along.
            self._woken = True
            loop.call_soon(self._wake)
        return answer

    def waiting(self) -> int:
        """How many items are queued and not yet sent."""
        return len(self._queue)

    async def drain(self) -> None:
        """Wait until everything that was submitted is answered."""
        while self._queue or self._calls:
            if self._calls:
                await asyncio.wait(self._calls)
            await asyncio.sleep(0)  # what waits is sent at the end of this turn, or when a call ends

    def _wake(self) -> None:
        self._woken = False
        while self._queue and len(self._calls) < self._in_flight_max:
            batch = self._next_batch()
            if not batch:
                return
            call = asyncio.create_task(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._called)

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        """The oldest items; those that waited too long for a Redis that hangs are refused, not sent."""
        now = asyncio.get_running_loop().time()
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        while self._queue and len(batch) < self._batch_max:
            item, answer, deadline = self._queue.popleft()
            if now <= deadline:
                batch.append((item, answer))
            elif not answer.done():
                answer.set_exception(Refusal(ErrorCode.OVERLOADED))
        return batch

    def _called(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._wake()

    async def _call(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._decide([item for item, _ in batch])
            if len(answers) != len(batch):
                raise ValueError(f"{len(answers)} answers to {len(batch)} items")
        except BaseException as fault:
            for _, future in batch:
                if not future.done():
                    future.set_exception(fault)
            if not isinstance(fault, Exception):
                raise
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():  # its client may have gone
                future.set_result(answer)
