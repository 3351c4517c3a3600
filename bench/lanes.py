"""What a lane is: how it is asked, what its answers must be, and how many requests it takes a second to begin with."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence, Set
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import aiohttp

from bench.run import Run, Work
from bench.site import Unclean


class Load(Protocol):
    """A load generator on open connections."""

    async def closed(self, work: Work, seconds: float) -> Run:
        """As fast as the answers come."""

    async def paced(self, work: Work, due: Sequence[float]) -> Run:
        """By schedule."""


class Lane(ABC):
    """One way of asking a server for one kind of thing."""

    units = 1  # things in one request
    guess_rate = 2_000.0  # things a second, before anything was measured

    def __init__(self, name: str) -> None:
        self.name = name

    async def is_served(self) -> bool:
        """Whether the server knows this lane at all."""
        return True

    @property
    @abstractmethod
    def over(self) -> str:
        """For people: how many connections it is asked over, and how much is under way on each."""

    @abstractmethod
    def connect(self) -> AbstractAsyncContextManager[Load]:
        """Open the connections."""

    @abstractmethod
    def prepare(self, requests: int) -> Work:
        """So many requests, ready to be sent within the next seconds."""

    @abstractmethod
    def settle(self, run: Run) -> None:
        """Take back what was not asked for, and hold the answers against what they must be. Raises Unclean."""


async def known(address: str, method: str, path: str) -> bool:
    """Whether a server has this route."""
    async with aiohttp.ClientSession() as session, session.request(method, address + path) as answer:
        return answer.status not in (404, 405)


def checked(name: str, run: Run, *, wanted: int, status: int = 200) -> None:
    """Every request was answered, with this status, and `wanted` things went as wished. Raises Unclean."""
    expected(name, run, statuses={str(status)}, wanted=wanted)


def expected(name: str, run: Run, *, statuses: Set[str], wanted: int) -> None:
    """The same with several statuses. Raises Unclean."""
    found = run.statuses()
    if run.lost or found.keys() - statuses:
        raise Unclean(
            f"{name}: {run.lost} connections lost, answers by status: {found}; {_sample(run, statuses)}"
        )
    if run.successes != wanted:
        raise Unclean(f"{name}: {run.successes} of {wanted} went as wished; {_sample(run, statuses)}")


def body_of(answer: bytes) -> Any:
    """The JSON of a kept HTTP answer."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def _sample(run: Run, statuses: Set[str]) -> str:
    """An answer that shows what is wrong, if one was kept: one of another status before one that is a refusal."""
    odd = [each for at, each in run.kept.items() if str(run.status[at]) not in statuses]
    odd += [each for at, each in run.kept.items() if not run.passed[at]]
    return f"one of them: {odd[0]!r}" if odd else "none of them was kept"
