"""Running: an HTTP service, the jobs, or both, until told to stop; what was begun is finished first."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import structlog
from aiohttp import web

from server.app import Parts, build_app, build_jobs, open_parts
from server.config import Config
from server.domain.errors import Refusal
from server.flows.keys_in_use import tell_keys
from server.limits import (
    CONNECTIONS_MAX,
    FILES_KEPT,
    GARBAGE_OBJECTS,
    LISTEN_BACKLOG,
    RETRY_S_MAX,
    SHUTDOWN_DRAIN_S_MAX,
)
from server.rotation import hangup_signal, rotating
from server.store import audit
from server.telemetry import alert
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
    runner = ExpressRunner(
        app, connections_max=_room(), shutdown_timeout=SHUTDOWN_DRAIN_S_MAX / 2, **CONNECTION
    )
    await runner.setup()
    try:
        site = web.TCPSite(
            runner, parts.config.host, parts.config.port, backlog=LISTEN_BACKLOG, reuse_port=reuse_port
        )
        await site.start()
        host, port = runner.addresses[0][:2]
        telling = asyncio.create_task(_tell_keys(parts))
        try:
            yield address_of(host, port)
        finally:
            telling.cancel()
            await asyncio.wait([telling])
    finally:
        await runner.cleanup()


async def _tell_keys(parts: Parts) -> None:
    """To the audit trail, now and after each rotation.

    Again and again while Postgres is away, which does not keep a server from serving.
    """
    told: Config | None = None
    while True:
        config = parts.keyring.config
        if config is not told:
            try:
                if await tell_keys(parts.database, config, audit.process("serve")):
                    _log.info("keys_changed")
                told = config
            except Refusal:
                pass  # the next time
            except Exception as fault:  # whatever it is, the gates go on; a person has to look
                alert("AUDIT_TRAIL_UNWRITTEN", error=type(fault).__name__)
                told = config
        await asyncio.sleep(RETRY_S_MAX)


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
        if leash is None:
            _log.warning("serving", address=address, jobs=with_jobs)
        held = come_up(leash, stopped)
        await stopped.wait()
        held.cancel()
        _log.warning("stopping")


def _room() -> int:
    """How many clients may be connected: as many as the system lets this process open, less what it needs itself."""
    wanted, unbounded = CONNECTIONS_MAX + FILES_KEPT, resource.RLIM_INFINITY
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != unbounded and soft < wanted:
        with suppress(ValueError, OSError):  # some systems allow less than they tell
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (wanted if hard == unbounded else min(wanted, hard), hard)
            )
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if soft == unbounded else max(soft // 2, min(CONNECTIONS_MAX, soft - FILES_KEPT))


def _collect_less() -> None:
    """What was made until now stays for good: the collector need not walk it again while it looks for what does not.

    Requests leave hardly any cycles, so it looks less often, too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 20, 20)


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
