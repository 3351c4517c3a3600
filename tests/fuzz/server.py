"""`gateline`, counted: `python -m tests.fuzz.server serve --with-jobs` tells on SIGUSR1 what it holds.

With `--plant FAULT,FAULT` before its words it is broken on purpose: a harness that finds nothing must be seen to find.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import hashlib
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

from server import cli
from server.config import Config

PLANT = "--plant"
LEAK_BYTES = 1_024
_leaked: list[Any] = []


class _Malloc(ctypes.Structure):
    """mallinfo2(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def malloc_bytes() -> int:
    """What the C library has given out; 0 where it cannot tell. What is free goes back to the system first."""
    try:
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        library.mallinfo2.restype = _Malloc
        told = library.mallinfo2()
    except AttributeError:
        return 0
    return int(told.uordblks + told.hblkhd)


def count() -> None:
    """A line of the log: tasks, Python's own blocks, bytes of malloc."""
    gc.collect()
    told = {
        "tasks": len(asyncio.all_tasks()),
        "blocks": sys.getallocatedblocks(),
        "malloc_bytes": malloc_bytes(),
    }
    sys.stderr.write(json.dumps({"event": "counted", "level": "info", **told}) + "\n")
    sys.stderr.flush()


# --- Faults ------------------------------------------------------------------------------------------------------


def raises() -> None:
    """A handler fails for a text that it did not expect."""
    from server.web import body

    honest = body.decode

    def decode(raw: bytes, struct: type[Any]) -> Any:
        if "中文".encode() in raw:
            raise ZeroDivisionError("planted")
        return honest(raw, struct)

    body.decode = decode


def never_answers() -> None:
    """A body that makes its handler wait for ever."""
    from server.web import body

    honest = body.read_bytes

    async def read_bytes(request: Any, *arguments: Any) -> bytes:
        raw = await honest(request, *arguments)
        if b"[[]]" in raw:
            await asyncio.sleep(3_600)
        return raw

    body.read_bytes = read_bytes


def _with_each_request(do: Callable[[], None]) -> None:
    from server.web import errors

    honest = errors.request_id_of

    def request_id_of(headers: Any) -> str:
        do()
        return honest(headers)

    errors.request_id_of = request_id_of


def leaks() -> None:
    """A kilobyte of each request is kept for ever."""
    _with_each_request(lambda: _leaked.append(bytes(LEAK_BYTES)))


def leaves_tasks() -> None:
    """A task of each request never ends."""
    _with_each_request(lambda: _leaked.append(asyncio.create_task(asyncio.sleep(3_600))))


def answers_wrong() -> None:
    """An honest request gets another answer."""
    from server.web import ops

    ops.Health = lambda status: {"status": "dead"}  # type: ignore[assignment,misc]


def forgets_units() -> None:
    """Orders are held, and nothing is reserved for them."""
    from server.hot import stock

    reserving = "call('HINCRBY', KEYS[first_stock_key + product], 'reserved', qty)"
    assert reserving in stock.HOLD.text
    stock.HOLD.text = stock.HOLD.text.replace(reserving, "")
    stock.HOLD.sha = hashlib.sha1(stock.HOLD.text.encode(), usedforsecurity=False).hexdigest()


PLANTS = {
    each.__name__: each for each in (raises, never_answers, leaks, leaves_tasks, answers_wrong, forgets_units)
}


def main(words: list[str]) -> int:
    """The command line of `gateline`, with a fault where one is named."""
    planted = words.pop(words.index(PLANT) + 1).split(",") if PLANT in words else []
    words = [word for word in words if word != PLANT]
    share = cli._share_metrics

    def share_and_watch(config: Config) -> None:
        share(config)  # the metrics library must know its folder before anything imports it
        from server import commands

        for fault in planted:
            PLANTS[fault]()
        serve = commands.serve

        async def counted(*arguments: Any, **options: Any) -> None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, count)
            await serve(*arguments, **options)

        commands.serve = counted

    cli._share_metrics = share_and_watch
    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
