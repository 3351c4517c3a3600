"""What a fault is: a name, what it does to an installation, and what it may cost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from tests.chaos.crowd import Crowd
from tests.chaos.installation import Installation
from tests.chaos.parts import ClockedValkey
from tests.chaos.standby import ClockedPostgres


@dataclass
class Scene:
    """What a fault works on. `repaired` is called when the world outside has done its part: from then on it counts."""

    installed: Installation
    crowd: Crowd
    repaired: Callable[[], None]
    notes: list[str] = field(default_factory=list)

    @property
    def postgres(self) -> ClockedPostgres:
        """The Postgres of the moment."""
        server = self.installed.postgres.server
        assert isinstance(server, ClockedPostgres)
        return server

    @property
    def valkey(self) -> ClockedValkey:
        """The Valkey of the moment."""
        server = self.installed.valkey.server
        assert isinstance(server, ClockedValkey)
        return server

    async def tell_redis(self, *words: str | int) -> None:
        """A command, straight to the Valkey of the moment."""
        async with Redis.from_url(self.installed.redis_url) as redis:
            await redis.execute_command(*words)  # type: ignore[no-untyped-call]

    async def last(self, seconds: float) -> None:
        """So long it stays as it is."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Fault:
    """One fault. `loses`: what it costs, in words, where that is more than nothing: the audit is then only reported."""

    name: str
    what: str
    act: Callable[[Scene], Awaitable[None]]
    ack: str = "fsync"
    loses: str = ""
    small_disk: bool = False  # Postgres on a file system of its own
    clocks: bool = False  # needs clocks that can be moved
    standby: bool = False  # Postgres streams to a second one
    workers: int = 1  # of each server
    shards: int = 1


FAULTS: dict[str, Fault] = {}


def fault(
    name: str,
    what: str,
    **more: Any,
) -> Callable[[Callable[[Scene], Awaitable[None]]], Callable[[Scene], Awaitable[None]]]:
    """Enter a procedure into the list of faults. `more`: the other fields of Fault."""

    def enter(act: Callable[[Scene], Awaitable[None]]) -> Callable[[Scene], Awaitable[None]]:
        FAULTS[name] = Fault(name, what, act, **more)
        return act

    return enter
