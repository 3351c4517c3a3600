"""Rotation of keys: on SIGHUP a process reads them again and uses them at once, without a request that is refused.

What cannot be read or is not legal changes nothing: the process goes on with the keys that it has, and says so. The
three steps by which keys are rotated over several processes stand in README, "Rotating keys".
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import structlog

from server.config import ConfigError
from server.config.fingerprints import keys_in_use
from server.config.rereading import Rereader
from server.keyring import Keyring
from server.limits import KEYS_READ_S_MAX
from server.telemetry import KEY_RELOADS, alert

_log: Final = structlog.get_logger(__name__)


def hangup_signal(stopped: asyncio.Event) -> asyncio.Event:
    """Set when this process is told to read its keys again, by SIGHUP.

    It is also the signal of a terminal that was closed; then `stopped` is set, as a person at that terminal expects,
    and what is still said to that terminal goes nowhere. Not where the signal was ignored until now: `nohup` says that
    the terminal may go.
    """
    hung_up = asyncio.Event()
    stays = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    shown = [output for output in (1, 2) if os.isatty(output)] if stays and _has_terminal() else None

    def heard() -> None:
        if shown is None or _has_terminal():
            hung_up.set()
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in shown:
            os.dup2(nowhere, output)
        stopped.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, heard)
    return hung_up


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


@asynccontextmanager
async def rotating(
    keyring: Keyring, environment: Mapping[str, str], hung_up: asyncio.Event
) -> AsyncIterator[None]:
    """Reads the keys again whenever `hung_up` is set."""
    following = asyncio.create_task(_follow(keyring, Rereader(environment), hung_up))
    try:
        yield
    finally:
        following.cancel()
        await asyncio.wait([following])


async def _follow(keyring: Keyring, rereader: Rereader, hung_up: asyncio.Event) -> None:
    told = False  # the first look is for a SIGHUP that came while the process started, and could not hear it
    while True:
        hung_up.clear()
        await _reread(keyring, rereader, told=told)
        await hung_up.wait()
        told = True


async def _reread(keyring: Keyring, rereader: Rereader, *, told: bool) -> None:
    try:
        async with asyncio.timeout(KEYS_READ_S_MAX):
            found = await asyncio.to_thread(rereader.again, keyring.config)  # a file may be on another host
        if found.rotated:
            keyring.replace(found.config)
    except ConfigError as fault:  # names settings, never their values
        _refused(str(fault).splitlines())
        return
    except Exception as fault:  # what it says may hold a part of a key
        _refused([type(fault).__name__])
        return
    if told or found.rotated:
        KEY_RELOADS.labels("rotated" if found.rotated else "unchanged").inc()
        _log.warning("keys_reloaded", rotated=found.rotated, keys=keys_in_use(keyring.config))
    if found.waiting:
        _log.warning("restart_needed", settings=found.waiting)


def _refused(faults: list[str]) -> None:
    KEY_RELOADS.labels("refused").inc()
    alert("KEYS_RELOAD_FAILED", faults=faults)
