"""A worker that kills itself, without warning, at a chosen point of its work: `python -m tests.outage.dying_worker`.

Arguments: the point, then the stream to flush, or `outbox`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from server import config
from server.app import Parts, open_parts
from server.hot.stream import Entry, Streams
from server.store import outbox, redemptions

POINTS = ("read", "written", "committed")


def die(*_: Any) -> None:
    """As a machine does that loses its power."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The function, never reached."""

    async def dying(*arguments: Any) -> None:
        die()

    return dying


def after(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The function done, and nothing after it."""

    async def dying(*arguments: Any) -> None:
        await function(*arguments)
        die()

    return dying


def set_trap(point: str, streams: Streams) -> None:
    """Die between two effects of `Flusher.flush`, or in `Publisher.publish` before what it did is committed."""
    read = streams.read

    async def read_and_die(stream: str, cursor: str, limit: int) -> Sequence[Entry]:
        if await read(stream, cursor, limit):
            die()
        return []

    traps: dict[str, tuple[Any, str, Any]] = {
        "read": (streams, "read", read_and_die),
        "written": (redemptions, "move_cursor", after(redemptions.move_cursor)),
        "committed": (streams, "trim", before(streams.trim)),
        "told": (outbox, "delete", after(outbox.delete)),
    }
    owner, name, trap = traps[point]
    setattr(owner, name, trap)


async def main(point: str, work: str) -> None:
    """Do the work until the trap closes."""
    async with open_parts(config.load(os.environ)) as parts:
        set_trap(point, parts.streams)
        await _work(parts, work)


async def _work(parts: Parts, work: str) -> None:
    if work == "outbox":
        await parts.publisher.publish()
    else:
        await parts.flusher.flush(work)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
