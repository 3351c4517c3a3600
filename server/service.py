"""Running: an HTTP service, the jobs, or both, until told to stop; what was begun is finished first."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog
from aiohttp import web

from server.app import Parts, build_app, build_jobs, open_parts
from server.config import Config
from server.limits import DESCRIPTORS, GARBAGE_OBJECTS, LISTEN_BACKLOG, SHUTDOWN_DRAIN_S_MAX
from server.rotation import hangup_signal, rotating
from server.web.connection import ExpressRunner
from server.workers import come_up

# How a connection is read. Not unpacked: a body that is 1,000 times larger than it looks is not let in, and signatures
# cover the bytes that were sent. Line: our longest honest address, a report with every filter, is under 700 characters,
# and aiohttp's routing of one that is all slashes takes time that grows with the square of its length.
CONNECTION: Final[Mapping[str, Any]] = {
    "access_log": None,
    "auto_decompress": False,
    "max_line_size": 2_048,
    "keepalive_timeout": 75.0,  # longer than the usual 60 s of a load balancer, so that it is the one that closes
}
_log: Final = structlog.get_logger(__name__)


@asynccontextmanager
async def listening(
    parts: Parts, *, with_jobs: bool, reuse_port: bool = False, metrics_dir: Path | None = None
) -> AsyncIterator[str]:
    """Serve on the configured address; yields the address, with the port that was really taken.

    At the end: no new connections, running requests are answered, scans are drained, jobs flush. Raises OSError when
    the address cannot be taken.
    """
    app = build_app(parts, metrics_dir=metrics_dir, jobs=build_jobs(parts) if with_jobs else None)
    runner = ExpressRunner(app, shutdown_timeout=SHUTDOWN_DRAIN_S_MAX / 2, **CONNECTION)
    await runner.setup()
    try:
        site = web.TCPSite(
            runner, parts.config.host, parts.config.port, backlog=LISTEN_BACKLOG, reuse_port=reuse_port
        )
        await site.start()
        host, port = runner.addresses[0][:2]
        yield address_of(host, port)
    finally:
        await runner.cleanup()


def address_of(host: str, port: int) -> str:
    """Where a server that listens there is asked."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    config: Config,
    environment: Mapping[str, str],
    *,
    with_jobs: bool,
    reuse_port: bool,
    metrics_dir: Path,
    leash: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or, as one of several workers, until the parent at the other end has gone.

    SIGHUP reads the keys of `environment` again.
    """
    stopped = stop_signal()
    hung_up = hangup_signal(stopped)
    async with (
        open_parts(config) as parts,
        listening(parts, with_jobs=with_jobs, reuse_port=reuse_port, metrics_dir=metrics_dir) as address,
        rotating(parts.keyring, environment, hung_up),
    ):
        _collect_less()
        _open_more()
        if leash is None:
            _log.warning("serving", address=address, jobs=with_jobs)
        held = come_up(leash, stopped)
        await stopped.wait()
        held.cancel()
        _log.warning("stopping")


def _collect_less() -> None:
    """What was made until now stays for good: the collector need not walk it again while it looks for what does not.

    Requests leave hardly any cycles, so it looks less often, too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 20, 20)


def _open_more() -> None:
    """Take as many file descriptors as we may: each gate has a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def work(config: Config, environment: Mapping[str, str], *, leash: int | None = None) -> None:
    """Run the jobs until SIGTERM or SIGINT, or, as the child of `serve --workers`, until the parent has gone.

    SIGHUP reads the keys of `environment` again: the jobs ask gateways.
    """
    stopped = stop_signal()
    hung_up = hangup_signal(stopped)
    async with open_parts(config) as parts, rotating(parts.keyring, environment, hung_up):
        jobs = build_jobs(parts)
        running = asyncio.create_task(jobs.run())
        if leash is None:
            _log.warning("working")
        held = come_up(leash, stopped)
        await stopped.wait()
        held.cancel()
        _log.warning("stopping")
        jobs.stop()
        await running


def stop_signal() -> asyncio.Event:
    """Set when this process is told to end, by SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped
