"""The batcher: whatever arrives during one round trip to Redis goes out together with the next.

That is why scans are fast: under load one script call carries dozens of them, and without load a scan is sent at
once. The queue in front is bounded; past the bound the caller hears OVERLOADED at once.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

import structlog

from server.domain.errors import ErrorCode, Refusal
from server.limits import QUEUED_S_MAX, SCAN_BATCH, SCAN_BATCH_MAX, SCAN_CALLS_IN_FLIGHT_MAX, SCAN_QUEUE_MAX

Item = TypeVar("Item")
Answer = TypeVar("Answer")
_log: Final = structlog.get_logger(__name__)


class Batcher(Generic[Item, Answer]):
    """Collects items of concurrent callers and hands them to `decide` in batches, in the order of arrival.

    `decide` answers every item of a batch, in order; an exception from it reaches every caller of that batch.
    """

    def __init__(
        self,
        decide: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        queue_max: int = SCAN_QUEUE_MAX,
        batch: int = SCAN_BATCH,
        batch_max: int = SCAN_BATCH_MAX,
        in_flight_max: int = SCAN_CALLS_IN_FLIGHT_MAX,
    ) -> None:
        self._decide = decide
        self._queue_max = queue_max
        self._batch = batch
        self._batch_max = batch_max
        self._in_flight_max = in_flight_max
        self._numbers = itertools.count()
        # By number, so that who gives up leaves it: while Redis hangs, only the living take places.
        self._queue: OrderedDict[int, tuple[Item, Callable[[Answer | BaseException], None], float]]
        self._queue = OrderedDict()
        self._in_flight = 0  # calls that Redis has not answered
        self._calls: set[asyncio.Task[None]] = set()  # those whose answers are not all told
        self._woken = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def post(
        self, item: Item, told: Callable[[Answer | BaseException], None], patience_s: float | None = None
    ) -> None:
        """Queue an item; `told` is called once, with its answer or with what went wrong.

        After `patience_s` seconds that is DEADLINE_PASSED: an item that is still queued then is never sent, and what
        was sent is decided, and recorded, without being told. Raises Refusal at once, and `told` is not called:
        OVERLOADED when the queue is full, DEADLINE_PASSED when no patience is left.
        """
        if self.full:
            raise Refusal(ErrorCode.OVERLOADED)
        loop = self._loop
        if loop is None:  # asked for once: each asking costs a system call
            loop = self._loop = asyncio.get_running_loop()
        number = next(self._numbers)
        if patience_s is not None:
            if patience_s <= 0:
                raise Refusal(ErrorCode.DEADLINE_PASSED)
            told = _Impatient(told, partial(self._queue.pop, number, None), loop, patience_s)
        self._queue[number] = (item, told, loop.time() + QUEUED_S_MAX)
        if not self._woken and self._in_flight < self._in_flight_max:
            # Not now but at the end of this turn: what other connections brought in the same turn goes along.
            self._woken = True
            loop.call_soon(self._wake)

    def submit(self, item: Item, patience_s: float | None = None) -> asyncio.Future[Answer]:
        """The same for a coroutine: await the future for the answer."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.post(item, partial(_settle, answer), patience_s)
        return answer

    @property
    def full(self) -> bool:
        """Whether nothing more is taken now."""
        return len(self._queue) >= self._queue_max

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
        while self._queue and self._in_flight < self._in_flight_max:
            batch = self._next_batch()
            if not batch:
                return
            self._in_flight += 1
            call = asyncio.create_task(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    def _next_batch(self) -> list[tuple[Item, Callable[[Answer | BaseException], None]]]:
        """The oldest items, but for those that waited too long: Redis hangs."""
        now = asyncio.get_running_loop().time()
        batch: list[tuple[Item, Callable[[Answer | BaseException], None]]] = []
        room = min(max(self._batch, len(self._queue) // self._in_flight_max), self._batch_max)
        while self._queue and len(batch) < room:
            _, (item, told, deadline) = self._queue.popitem(last=False)
            if now <= deadline:
                batch.append((item, told))
            else:
                _tell(told, Refusal(ErrorCode.OVERLOADED))
        return batch

    async def _call(self, batch: list[tuple[Item, Callable[[Answer | BaseException], None]]]) -> None:
        try:
            try:
                answers = await self._decide([item for item, _ in batch])
            finally:
                self._in_flight -= 1
                self._wake()
            if len(answers) != len(batch):
                raise ValueError(f"{len(answers)} answers to {len(batch)} items")
            # Redis gets the next batch before these answers are told, which takes as long as judging them: one turn of
            # the loop builds its command, and at the end of that turn it is sent.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        except BaseException as fault:
            for _, told in batch:
                _tell(told, fault)
            if not isinstance(fault, Exception):
                raise
            return
        for (_, told), answer in zip(batch, answers, strict=True):
            _tell(told, answer)


class _Impatient(Generic[Answer]):
    """A caller who waits for so long and no longer: told once, in time or that it is too late."""

    __slots__ = ("_gave_up", "_leave", "_timer", "_told")

    def __init__(
        self,
        told: Callable[[Answer | BaseException], None],
        leave: Callable[[], object],
        loop: asyncio.AbstractEventLoop,
        patience_s: float,
    ) -> None:
        """`leave`: the queue, if the item still stands there."""
        self._told = told
        self._leave = leave
        self._timer = loop.call_later(patience_s, self._give_up)
        self._gave_up = False

    def __call__(self, answer: Answer | BaseException) -> None:
        if not self._gave_up:
            self._timer.cancel()
            self._told(answer)

    def _give_up(self) -> None:
        self._gave_up = True
        self._leave()
        _tell(self._told, Refusal(ErrorCode.DEADLINE_PASSED))


def _tell(told: Callable[[Answer | BaseException], None], answer: Answer | BaseException) -> None:
    """What fails in one listener must not keep the answers of the others."""
    try:
        told(answer)
    except Exception:
        _log.exception("answer_not_told")


def _settle(future: asyncio.Future[Answer], answer: Answer | BaseException) -> None:
    if future.done():  # its client may have gone
        return
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)
