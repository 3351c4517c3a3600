"""A batch of things that may each fail at a gateway: all are tried, a few at once, and none hides another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from server.domain.errors import Refusal
from server.limits import ASKED_AT_ONCE_MAX

T = TypeVar("T")


async def each(batch: Sequence[T], act: Callable[[T], Awaitable[None]]) -> None:
    """Do `act` for all of the batch. Raises the first Refusal when it was refused for every one of them.

    Then the gateway is away, and its job waits a little; when only some were refused, they are odd, and their time
    comes again.
    """
    places = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

    refused: list[Refusal] = []

    async def one(item: T) -> None:
        async with places:
            try:
                await act(item)
            except Refusal as refusal:
                refused.append(refusal)

    async with asyncio.TaskGroup() as tasks:  # what no one expected ends them all
        for item in batch:
            tasks.create_task(one(item))
    if refused and len(refused) == len(batch):
        raise refused[0]
