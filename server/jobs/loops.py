"""Running the jobs: each is a loop of steps that survives every fault, and stops between two steps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from server.domain.errors import Refusal
from server.flows.payment import Payments
from server.flows.publish import Publisher
from server.flows.settle import Settlement
from server.jobs.expire import expire
from server.jobs.flusher import Flusher
from server.jobs.reconcile import reconcile
from server.jobs.rehydrate import Rehydration
from server.limits import (
    CLOSE_POLL_S,
    EXPIRE_POLL_S,
    GUARD_POLL_S,
    OUTBOX_POLL_S,
    RECONCILE_POLL_S,
    RETRY_S_MAX,
    RETRY_S_MIN,
    SHUTDOWN_DRAIN_S_MAX,
)
from server.store.pool import Database
from server.telemetry import alert

_log: Final = structlog.get_logger(__name__)
_jitter: Final = random.SystemRandom()


class Jobs:
    """All jobs of a process. Any number of processes may run them: Postgres locks see to it that work is done once."""

    def __init__(
        self,
        db: Database,
        flusher: Flusher,
        publisher: Publisher,
        rehydration: Rehydration,
        provider: Payments,
        settlement: Settlement,
        streams: list[str],
    ) -> None:
        self._db = db
        self._flusher = flusher
        self._publisher = publisher
        self._rehydration = rehydration
        self._provider = provider
        self._settlement = settlement
        self._streams = streams
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Run until `stop`, then flush and publish what is left, within 20 s, whatever state the databases are in."""
        steps = [
            self._forever("guard", self._rehydration.guard, GUARD_POLL_S),
            self._forever("outbox", self._publish, 0.0),
            self._forever("expire", self._expire, EXPIRE_POLL_S),
            self._forever("reconcile", self._reconcile, RECONCILE_POLL_S),
            self._forever("close", self._close, CLOSE_POLL_S),
            *(self._forever("flusher", self._flush(stream), 0.0) for stream in self._streams),
        ]
        loops = [asyncio.create_task(step) for step in steps]
        try:
            await self._stopping.wait()
            await asyncio.wait(loops, timeout=SHUTDOWN_DRAIN_S_MAX / 2)
        finally:
            await _cut_off(loops)  # those whose step takes longer: a slow gateway, a large rehydration
        await self._drain()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(SHUTDOWN_DRAIN_S_MAX / 2):
                await self._flusher.drain(self._streams)
                while await self._publisher.publish():
                    pass
        except (Refusal, TimeoutError):
            _log.warning("stopped_with_backlog", reason="the next process goes on where this one stopped")
        except Exception as fault:  # it must not keep the rest of the process from ending in order
            alert("STOPPED_WITH_FAULT", error=type(fault).__name__)
            _log.exception("stopped_with_backlog")

    def stop(self) -> None:
        """Ask every loop to end after its present step."""
        self._stopping.set()

    async def _forever(self, name: str, step: Callable[[], Awaitable[object]], pause_s: float) -> None:
        retry_s = RETRY_S_MIN
        waiting_for: str | None = None
        while not self._stopping.is_set():
            wait_s = pause_s
            try:
                await step()
                retry_s = RETRY_S_MIN
                if waiting_for is not None:
                    _log.warning("job_goes_on", job=name)
                    waiting_for = None
            except Refusal as refusal:
                if waiting_for != refusal.code.name:  # once per outage, not once per try
                    waiting_for = refusal.code.name
                    _log.warning("job_waits", job=name, code=waiting_for)
                wait_s = retry_s * _jitter.uniform(0.5, 1.0)
                retry_s = min(retry_s * 2, RETRY_S_MAX)
            except Exception as fault:
                alert("JOB_FAILED", job=name, error=type(fault).__name__)
                _log.exception("job_failed", job=name)
                wait_s = retry_s * _jitter.uniform(0.5, 1.0)
                retry_s = min(retry_s * 2, RETRY_S_MAX)
            if wait_s > 0:
                await self._pause(wait_s)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def _flush(self, stream: str) -> Callable[[], Awaitable[None]]:
        followed = False

        async def step() -> None:
            nonlocal followed
            if not followed:
                await self._flusher.follow([stream])
                followed = True
            await self._flusher.step(stream)

        return step

    async def _publish(self) -> None:
        if await self._publisher.publish() == 0:
            await self._pause(OUTBOX_POLL_S)

    async def _expire(self) -> None:
        while await expire(self._db):
            pass

    async def _reconcile(self) -> None:
        while await reconcile(self._db, self._provider, self._settlement):
            pass

    async def _close(self) -> None:
        while await self._provider.close_ended():
            pass


async def _cut_off(loops: Sequence[asyncio.Task[None]]) -> None:
    for loop in loops:
        loop.cancel()
    await asyncio.wait(loops)
