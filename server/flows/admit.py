"""Admission: one scan at a gate, from the QR token to the verdict.

What can be ruled without Redis (an unreadable token, its expiry, the venue) is ruled here, but only handed to the
script as `ruled`: the script first looks whether this scan_id was told something before, so that a lost answer never
turns into another one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec

from server.domain import qr
from server.domain.catalog import Directory, Operator
from server.domain.errors import ErrorCode, Refusal
from server.domain.redemption import Decision, Scan, Undecided, Verdict
from server.flows.directory import DirectoryFollower
from server.flows.lookup import TicketLoader
from server.hot.backlog import Backlog
from server.hot.redeem import Redeemer
from server.limits import SCAN_SKEW_S_MAX
from server.telemetry import SCANS

_SKEW_MS: Final = int(SCAN_SKEW_S_MAX * 1000)


class Presented(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate sends for one scan; "" where it names no venue or terminal."""

    qr_token: str
    function_code: str
    scan_id: str
    venue_code: str
    terminal_device_id: str
    made_ms: int | None = None  # unix ms; of a scan that is uploaded later: when it was made, says its gate


class Admission:
    """Judges scans. Needs Redis only: Postgres may be away, unless a ticket is not in Redis yet."""

    def __init__(
        self,
        directory: DirectoryFollower,
        redeemer: Redeemer,
        loader: TicketLoader,
        backlog: Backlog,
        qr_keys: qr.QrKeys,
        *,
        offline_window_s: int = 0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._redeemer = redeemer
        self._loader = loader
        self._backlog = backlog
        self._qr_keys = qr_keys
        self._oldest_ms = int((offline_window_s + SCAN_SKEW_S_MAX) * 1000)
        self._now = now

    async def admit(
        self, presented: Presented, operator: Operator, patience_s: float | None = None
    ) -> Decision:
        """The verdict on one scan. Raises Refusal, see `judge`."""
        return await self.judge(self.read(presented, operator), patience_s)

    async def judge(self, scan: Scan, patience_s: float | None = None) -> Decision:
        """The verdict on a scan that was read.

        Raises Refusal for what is no verdict: SCAN_ID_CONFLICT, SCAN_TOO_OLD, SCAN_IN_FUTURE; OVERLOADED,
        BACKLOG_FULL, GATE_CLOSED, REDIS_UNAVAILABLE, NOT_ACKNOWLEDGED, NOT_RECORDED_YET, and after `patience_s` seconds
        DEADLINE_PASSED (all transient: retry with the same scan_id).
        """
        self._backlog.admit()
        loop = asyncio.get_running_loop()
        until = None if patience_s is None else loop.time() + patience_s
        answer = await self._redeemer.redeem(scan, patience_s)
        if answer is Undecided.TICKET_ABSENT:
            try:
                async with asyncio.timeout_at(until):
                    known = await self._loader.load_unknown(scan.ticket_code)
            except TimeoutError as late:
                raise Refusal(ErrorCode.DEADLINE_PASSED) from late
            if not known:
                scan = msgspec.structs.replace(scan, ruled=Verdict.TICKET_NOT_FOUND)
            answer = await self._redeemer.redeem(scan, None if until is None else until - loop.time())
        if isinstance(answer, Undecided):
            raise Refusal(self._why(answer, scan))
        decision = Decision.parse(answer)
        SCANS.labels(decision.verdict.name).inc()
        return decision

    def ask(
        self,
        presented: Presented,
        operator: Operator,
        told: Callable[[str | Undecided | BaseException], None],
        patience_s: float | None = None,
    ) -> None:
        """Ask the gate without a coroutine: `told` gets the verdict's line, what is undecided, or a fault.

        What is undecided is for `admit`, which knows what to do about it: nothing was decided, so asking again is safe.
        The caller counts the verdict. Raises Refusal at once: BACKLOG_FULL, OVERLOADED.
        """
        self._backlog.admit()
        if self._redeemer.full:  # before the QR is opened: a refusal must be cheaper than a verdict
            raise Refusal(ErrorCode.OVERLOADED)
        self._redeemer.post(self.read(presented, operator), told, patience_s)

    def post(
        self,
        scan: Scan,
        told: Callable[[str | Undecided | BaseException], None],
        patience_s: float | None = None,
    ) -> None:
        """The same with a scan that was read; what is undecided is for `judge`."""
        self._backlog.admit()
        self._redeemer.post(scan, told, patience_s)

    def read(self, presented: Presented, operator: Operator) -> Scan:
        """The scan behind what was presented, with what is ruled without Redis as of now, or of when it was made."""
        now_ms = int(self._now() * 1000)
        made_ms = presented.made_ms
        at_ms = now_ms if made_ms is None else made_ms
        venue_code = presented.venue_code or operator.venue_code or ""
        content = qr.read(self._qr_keys, presented.qr_token)
        ruled: Verdict | None
        if isinstance(content, qr.QrFault):
            ticket_code, jti, ruled = "", "", Verdict[content.value]
        else:
            ticket_code, jti = content.ticket_code, content.jti
            ruled = (
                Verdict.QR_EXPIRED
                if content.expired(at_ms)
                else _ruled_by_venue(self._directory.current, venue_code, presented.function_code)
            )
        return Scan(
            scan_id=presented.scan_id,
            ticket_code=ticket_code,
            function_code=presented.function_code,
            jti=jti,
            at_ms=at_ms,
            operator=operator.username,
            venue_code=venue_code,
            terminal_device_id=presented.terminal_device_id,
            ruled=ruled,
            uploaded=made_ms is not None,
            outside_window=made_ms is not None
            and not now_ms - self._oldest_ms <= made_ms <= now_ms + _SKEW_MS,
        )

    def _why(self, undecided: Undecided, scan: Scan) -> ErrorCode:
        """What a gate is told when nothing was decided, also after the ticket was loaded."""
        if undecided is Undecided.OUTSIDE_WINDOW:
            too_old = scan.at_ms < self._now() * 1000 - self._oldest_ms
            return ErrorCode.SCAN_TOO_OLD if too_old else ErrorCode.SCAN_IN_FUTURE
        conflict = undecided is Undecided.SCAN_ID_CONFLICT
        return ErrorCode.SCAN_ID_CONFLICT if conflict else ErrorCode.GATE_CLOSED


def _ruled_by_venue(directory: Directory, venue_code: str, function_code: str) -> Verdict | None:
    """What the venue says: nothing when the scan names none."""
    if not venue_code:
        return None
    venue = directory.venues.get(venue_code)
    if venue is None:
        return Verdict.VENUE_NOT_FOUND
    return None if function_code in venue.functions else Verdict.WRONG_VENUE_FUNCTION
