"""Several serving processes on one port: who starts them, starts one again that died, and ends them all.

The kernel spreads connections over every process that listens with SO_REUSEPORT. Each worker is a process of its own
from its first line on (nothing is forked out of a running event loop), and so are the jobs, whose work would else slow
one worker's gates. Between parent and child is a leash, a pair of sockets: the child says on it that it serves, and
stops when it is cut, however the parent ended.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import multiprocess

from server.limits import (
    SHUTDOWN_DRAIN_S_MAX,
    WORKER_RETRY_S_MAX,
    WORKER_RETRY_S_MIN,
    WORKER_START_S_MAX,
    WORKER_STEADY_S,
    WORKERS_STOP_S_MAX,
)
from server.telemetry import alert

_UP: Final = b"up"
_log: Final = structlog.get_logger(__name__)


class WorkersError(Exception):
    """The workers cannot be started; the message says why."""


# --- In the child -------------------------------------------------------------------------------------------


def come_up(leash: int | None, stopped: asyncio.Event) -> asyncio.Task[None]:
    """Tell the parent that this process serves; `stopped` is set when the parent has gone. The task is to be kept.

    None: there is no parent to be told.
    """

    async def hold() -> None:
        if leash is None:
            return
        loop = asyncio.get_running_loop()
        connection = socket.socket(fileno=leash)
        connection.setblocking(False)
        with connection, suppress(OSError):  # the parent may have gone before we came up
            await loop.sock_sendall(connection, _UP)
            await loop.sock_recv(connection, 1)  # nothing is ever sent: it ends when the parent does
        stopped.set()

    return asyncio.create_task(hold())


# --- In the parent ------------------------------------------------------------------------------------------


@contextmanager
def reserved(host: str, port: int, *, shared: bool) -> Iterator[int]:
    """Holds the port, without listening, for workers that come and go; yields it (the one that was free, for 0).

    `shared`: others may listen there too. Raises WorkersError when the port is taken.
    """
    with ExitStack() as held:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, address in dict.fromkeys(found):
                place = (address[0], port, *address[2:])
                if not shared:
                    _bound(family, kind, protocol, place, reuse_port=False).close()
                holding = held.enter_context(_bound(family, kind, protocol, place, reuse_port=True))
                port = holding.getsockname()[1]
        except OSError as fault:
            raise WorkersError(f"cannot listen at {host}, port {port}: {fault.strerror}") from fault
        yield port


def _bound(
    family: int, kind: int, protocol: int, place: tuple[object, ...], *, reuse_port: bool
) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(place)
    except OSError:
        made.close()
        raise
    return made


class Worker:
    """One process of ours, kept running until it is told to stop."""

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        environment: Mapping[str, str],
        settings: Mapping[str, str],
        metrics_dir: Path,
    ) -> None:
        """`words`: of the `gateline` command. `settings`: what is otherwise than in the parent's environment."""
        self.name = name
        self._words = words
        self._environment = {**environment, **settings}
        self._metrics_dir = metrics_dir
        self._process: asyncio.subprocess.Process | None = None
        self._leash: socket.socket | None = None
        self._up_since: float | None = None  # by the monotonic clock
        self._reread_due = False

    async def start(self) -> bool:
        """Start the process; False when it ended, or did not serve in time, which then ended it."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._leash, self._up_since = ours, None
        with theirs:
            command = [sys.executable, "-m", "server.cli", *self._words, "--leash", str(theirs.fileno())]
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    env=self._environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C is for the parent, who tells each in its turn
                )
            except OSError as fault:  # no memory, no descriptors: perhaps later
                _log.error("worker_not_started", worker=self.name, reason=fault.strerror)
                return False
        try:
            async with asyncio.timeout(WORKER_START_S_MAX):
                if await asyncio.get_running_loop().sock_recv(ours, len(_UP)):
                    self._up_since = time.monotonic()
                    if self._reread_due:
                        self.reread()
                    return True
        except TimeoutError:
            _log.error("worker_hangs", worker=self.name, pid=self._process.pid)
        except OSError:  # it ended with a cut
            pass
        await self.end(0.0)
        return False

    async def keep(self) -> None:
        """For ever: when the process ends, say so, and start another, soon if it had served for a while."""
        pause_s = WORKER_RETRY_S_MIN
        while True:
            assert self._process is not None  # noqa: S101  (it was started)
            status = await self._process.wait()
            self._ended()
            steady = self._up_since is not None and time.monotonic() - self._up_since > WORKER_STEADY_S
            pause_s = WORKER_RETRY_S_MIN if steady else min(pause_s * 2, WORKER_RETRY_S_MAX)
            alert("WORKER_DIED", worker=self.name, pid=self._process.pid, status=status, again_in_s=pause_s)
            await asyncio.sleep(pause_s)
            if await self.start():
                _log.warning("worker_started_again", worker=self.name, pid=self._process.pid)

    def reread(self) -> None:
        """Have the process read its keys again; one that starts, as soon as it serves: before, it would not hear it."""
        self._reread_due = self._up_since is None
        if self._process is not None and self._process.returncode is None and not self._reread_due:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGHUP)

    async def end(self, seconds: float) -> int:
        """Ask the process to finish what it began, wait so long, then kill it; its exit status.

        0, too, where it was asked before it could listen: nothing had begun.
        """
        if self._process is None:
            return 0
        process = self._process
        if process.returncode is None and seconds > 0:
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            if process.returncode is None:
                process.kill()
            await process.wait()
        self._ended()
        if self._up_since is None and process.returncode == -signal.SIGTERM:
            return 0
        return process.returncode or 0

    def _ended(self) -> None:
        """What a process that is gone leaves behind: its end of the leash, and gauges that speak of the living."""
        if self._leash is not None:
            self._leash.close()
            self._leash = None
        if self._process is not None:
            multiprocess.mark_process_dead(self._process.pid, str(self._metrics_dir))  # type: ignore[no-untyped-call]


async def run(
    workers: Sequence[Worker],
    jobs: Worker | None,
    address: str,
    stopped: asyncio.Event,
    hung_up: asyncio.Event,
) -> int:
    """Run all of them until `stopped`; 0 when each ended in order, 1 when one did not, or the first ones did not start.

    Whenever `hung_up` is set, each reads its keys again.

    The first worker is started alone: what keeps it from serving is told once. The jobs are the last to stop, so that
    they flush what the workers decided.
    """
    everyone = [*([] if jobs is None else [jobs]), *workers]
    starting = asyncio.create_task(_start(everyone))
    stopping = asyncio.create_task(stopped.wait())
    rereading = asyncio.create_task(_hand_on(hung_up, everyone))
    keeping: list[asyncio.Task[None]] = []
    status = 0
    try:
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and not starting.result():
            _log.error("workers_did_not_start")  # one that was killed could not say why
            status = 1
        elif starting.done():
            _log.warning("serving", address=address, workers=len(workers), jobs=jobs is not None)
            keeping = [asyncio.create_task(each.keep()) for each in everyone]
            await asyncio.wait([stopping, *keeping], return_when=asyncio.FIRST_COMPLETED)
            _log.warning("stopping")
    finally:
        tasks = [starting, stopping, rereading, *keeping]
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        ended = await asyncio.gather(*(each.end(WORKERS_STOP_S_MAX) for each in workers))
        ended += [] if jobs is None else [await jobs.end(SHUTDOWN_DRAIN_S_MAX)]
    for outcome in outcomes:
        if isinstance(outcome, Exception):  # of a keeper: no one expected it
            raise outcome
    return 1 if status or any(ended) else 0


async def _start(everyone: Sequence[Worker]) -> bool:
    for each in everyone[:2]:  # the jobs, if they are here, and a worker
        if not await each.start():
            return False
    return all(await asyncio.gather(*(each.start() for each in everyone[2:])))


async def _hand_on(hung_up: asyncio.Event, everyone: Sequence[Worker]) -> None:
    while True:
        await hung_up.wait()
        hung_up.clear()
        for each in everyone:
            each.reread()
