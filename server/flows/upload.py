"""Uploads: the scans that a gate made while it was offline, each judged as of when it was made.

They go the way of every scan, through the same batcher. Only a few at a time do, however many are uploaded: live gates
find the queue as short as ever. Scans of one ticket, and scans of one scan_id, are judged in the order of the list:
each when the one before it is decided, and none if that may be asked again. All others are judged side by side.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import structlog

from server.domain.catalog import Operator
from server.domain.errors import ErrorCode, Refusal
from server.domain.redemption import Decision, Scan, Undecided, Verdict
from server.flows.admit import Admission, Presented
from server.limits import (
    UPLOAD_RETRY_S,
    UPLOAD_WAIT_S_MAX,
    UPLOADED_SCANS_AT_ONCE_MAX,
    UPLOADS_AT_ONCE_MAX,
)
from server.telemetry import SCANS

Told = Callable[[int, Decision | Refusal], None]  # the scan's place in its upload, and what became of it
_READ_AT_ONCE: Final = 16  # QR tokens opened in one go: half a millisecond, for which live gates wait
_log: Final = structlog.get_logger(__name__)


class _Upload:
    """One upload: what is open of it, and who hears of it."""

    def __init__(self, told: Told, patience_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        self.told = told
        self.open: dict[_Asked, None] = {}  # in the order of the list
        self.last: dict[tuple[str, str], _Asked] = {}  # the last scan so far of a ticket, of a scan_id
        self.verdicts: Counter[Verdict] = Counter()
        impatient = patience_s is not None and patience_s < UPLOAD_WAIT_S_MAX
        self.deadline = loop.time() + (patience_s if impatient and patience_s else UPLOAD_WAIT_S_MAX)
        self.late = ErrorCode.DEADLINE_PASSED if impatient else ErrorCode.OVERLOADED
        self.over = False  # the deadline has passed, or nobody waits any more
        self.read = False  # all of it
        self.done: asyncio.Future[None] = loop.create_future()

    def tell(self, asked: _Asked, outcome: Decision | BaseException) -> None:
        """What became of a scan; what fails for one must not take the answers of the others."""
        del self.open[asked]
        try:
            if not isinstance(outcome, Decision | Refusal):
                raise outcome
            self.told(asked.place, outcome)
        except Exception as fault:
            _log.error("upload_failed", scan_id=asked.scan.scan_id, exc_info=fault)
            self.told(asked.place, Refusal(ErrorCode.INTERNAL))
        self.look()

    def look(self) -> None:
        """See whether all is told."""
        if self.read and not self.open and not self.done.done():
            self.done.set_result(None)


class _Asked:
    """One scan of an upload."""

    __slots__ = ("after", "before", "begun", "place", "scan", "upload")

    def __init__(self, upload: _Upload, place: int, scan: Scan) -> None:
        self.upload = upload
        self.place = place
        self.scan = scan
        self.before = 0  # how many have to be decided first
        self.after: list[_Asked] = []  # those that wait for this one
        self.begun = False

    def stand(self) -> bool:
        """Stand behind earlier scans of this ticket and of this scan_id; whether there is none."""
        upload, scan = self.upload, self.scan
        same = [("scan", scan.scan_id), ("ticket", scan.ticket_code)]
        for each in same if scan.ticket_code else same[:1]:
            earlier = upload.last.get(each)
            if earlier is not None and earlier in upload.open:
                self.before += 1
                earlier.after.append(self)
            upload.last[each] = self
        upload.open[self] = None
        return self.before == 0


class Uploads:
    """All uploads of a process."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._free = UPLOADED_SCANS_AT_ONCE_MAX
        self._ready: deque[_Asked] = deque()  # to be asked, when there is a place
        self._under_way = 0
        self._insisting: set[asyncio.Task[None]] = set()

    async def judge(
        self,
        scans: Iterable[tuple[int, Presented]],
        operator: Operator,
        told: Told,
        patience_s: float | None = None,
    ) -> None:
        """Judge the scans of one upload: `told` hears of each, as soon as it is decided, or why it is not.

        A scan for which there was no place within 10 s is told OVERLOADED, or DEADLINE_PASSED after `patience_s` if
        that is less: it may be uploaded again, as may all others.
        Raises Refusal(OVERLOADED) at once when too many uploads are being judged.
        """
        if self._under_way >= UPLOADS_AT_ONCE_MAX:
            raise Refusal(ErrorCode.OVERLOADED)
        self._under_way += 1
        upload = _Upload(told, patience_s)
        timer = asyncio.get_running_loop().call_at(upload.deadline, self._end, upload)
        try:
            for number, (place, presented) in enumerate(scans, 1):
                asked = _Asked(upload, place, self._admission.read(presented, operator))
                if asked.stand():
                    self._ready.append(asked)
                if number % _READ_AT_ONCE == 0:
                    self._ask()
                    await asyncio.sleep(0)
            upload.read = True
            if upload.over:  # it took until now to read it
                self._end(upload)
            upload.look()
            self._ask()
            await upload.done
        finally:
            timer.cancel()
            self._end(upload)
            self._under_way -= 1
            for verdict, number in upload.verdicts.items():
                SCANS.labels(verdict.name).inc(number)

    def _ask(self) -> None:
        """Ask as many as there are places for."""
        while self._free and self._ready:
            asked = self._ready.popleft()
            if asked not in asked.upload.open:
                continue
            asked.begun = True
            self._free -= 1
            try:
                self._admission.post(asked.scan, partial(self._answered, asked))
            except Refusal as refusal:
                self._heard(asked, refusal)

    def _answered(self, asked: _Asked, answer: str | Undecided | BaseException) -> None:
        self._heard(asked, answer)
        self._ask()

    def _heard(self, asked: _Asked, answer: str | Undecided | BaseException) -> None:
        """What the gate said. A scan that is not decided yet keeps its place, and is asked about with more patience."""
        full = isinstance(answer, Refusal) and answer.code is ErrorCode.OVERLOADED
        if isinstance(answer, Undecided) or full:
            task = asyncio.create_task(self._insist(asked))
            self._insisting.add(task)
            task.add_done_callback(self._insisting.discard)
            return
        outcome: Decision | BaseException
        try:
            outcome = Decision.parse(answer) if isinstance(answer, str) else answer
        except ValueError as fault:  # not a line of ours
            outcome = fault
        if isinstance(outcome, Decision):
            asked.upload.verdicts[outcome.verdict] += 1  # `judge` counts those that it returns
        self._free += 1
        self._tell(asked, outcome)

    async def _insist(self, asked: _Asked) -> None:
        """Where asking once was not enough: a ticket to be loaded; a full queue, again until the deadline."""
        outcome: Decision | BaseException
        while True:
            try:
                outcome = await self._admission.judge(asked.scan)
            except Refusal as refusal:
                if refusal.code is ErrorCode.OVERLOADED and not asked.upload.over:
                    await asyncio.sleep(UPLOAD_RETRY_S)
                    continue
                outcome = refusal
            except Exception as fault:
                outcome = fault
            break
        self._free += 1
        self._tell(asked, outcome)
        self._ask()

    def _tell(self, asked: _Asked, outcome: Decision | BaseException) -> None:
        """Tell what became of a scan. Those behind it are ready, or, where it may be asked again, undecided too."""
        again = not isinstance(outcome, Decision) and not _final(outcome)
        told = [asked]
        for each in told:
            if each in asked.upload.open:
                asked.upload.tell(each, outcome)
            for follower in each.after:
                follower.before -= 1
                if again:
                    told.append(follower)
                elif follower.before == 0:
                    self._ready.append(follower)

    def _end(self, upload: _Upload) -> None:
        """The time is over: what has not been asked yet is not asked any more; what has been is waited for."""
        upload.over = True
        for asked in [each for each in upload.open if not each.begun]:
            upload.tell(asked, Refusal(upload.late))


def _final(outcome: BaseException) -> bool:
    """Whether asking again would be told the same."""
    return isinstance(outcome, Refusal) and not outcome.code.transient
