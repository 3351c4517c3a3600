"""Uploads: the scans that a gate made while it was offline, each judged as of when it was made.

They go the way of every scan, through the same batcher. Only a few at a time do, however many are uploaded: live gates
find the queue as short as ever. Scans of one ticket, and scans of one scan_id, are judged in the order in which they
were made; all others beside one another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from server.domain.catalog import Operator
from server.domain.errors import ErrorCode, Refusal
from server.domain.redemption import Decision, Scan
from server.flows.admit import Admission, Presented
from server.limits import (
    UPLOAD_RETRY_S,
    UPLOAD_WAIT_S_MAX,
    UPLOADED_SCANS_AT_ONCE_MAX,
    UPLOADS_AT_ONCE_MAX,
)

Told = Callable[[int, Decision | Refusal], None]  # the scan's place in its upload, and what became of it
_READ_AT_ONCE: Final = 16  # QR tokens opened in one go: half a millisecond, for which live gates wait
_log: Final = structlog.get_logger(__name__)


class Uploads:
    """All uploads of a process."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._places = asyncio.Semaphore(UPLOADED_SCANS_AT_ONCE_MAX)
        self._under_way = 0

    async def judge(self, scans: Iterable[tuple[int, Presented]], operator: Operator, told: Told) -> None:
        """Judge the scans of one upload: `told` hears of each, as soon as it is decided, or why it is not.

        A scan for which there was no place within 10 s is told OVERLOADED: it may be uploaded again, as may all others.
        Raises Refusal(OVERLOADED) at once when too many uploads are being judged.
        """
        if self._under_way >= UPLOADS_AT_ONCE_MAX:
            raise Refusal(ErrorCode.OVERLOADED)
        self._under_way += 1
        try:
            await self._judge(scans, operator, told)
        finally:
            self._under_way -= 1

    async def _judge(self, scans: Iterable[tuple[int, Presented]], operator: Operator, told: Told) -> None:
        deadline = asyncio.get_running_loop().time() + UPLOAD_WAIT_S_MAX
        last: dict[tuple[str, str], asyncio.Task[None]] = {}  # the last scan so far of a ticket, of a scan_id
        async with asyncio.TaskGroup() as tasks:
            for number, (place, presented) in enumerate(scans, 1):
                scan = self._admission.read(presented, operator)
                same = [("scan", scan.scan_id)]
                if scan.ticket_code:
                    same.append(("ticket", scan.ticket_code))
                before = [last[each] for each in same if each in last]
                task = tasks.create_task(self._one(place, scan, before, deadline, told))
                last |= dict.fromkeys(same, task)
                if number % _READ_AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def _one(
        self, place: int, scan: Scan, before: Sequence[asyncio.Task[None]], deadline: float, told: Told
    ) -> None:
        if before:
            await asyncio.wait(before)
        try:
            told(place, await self._admitted(scan, deadline))
        except Refusal as refusal:
            told(place, refusal)
        except Exception:  # what fails for one scan must not take the answers of the others
            _log.exception("upload_failed", scan_id=scan.scan_id)
            told(place, Refusal(ErrorCode.INTERNAL))

    async def _admitted(self, scan: Scan, deadline: float) -> Decision:
        """The decision; a full queue is tried again until the deadline, by the clock of the event loop."""
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._places.acquire()
            except TimeoutError as fault:
                raise Refusal(ErrorCode.OVERLOADED) from fault
            try:
                return await self._admission.judge(scan)
            except Refusal as refusal:
                if refusal.code is not ErrorCode.OVERLOADED:
                    raise
            finally:
                self._places.release()
            await asyncio.sleep(UPLOAD_RETRY_S)
