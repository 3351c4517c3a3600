"""Recorded verdicts on their way from the stream's lines to rows: from text to text, without an object per entry.

A line is what `redeem.lua` adds as `d`: verdict, ticket, function, status, remaining, first, decided_ms, jti, scan_id,
at_ms, operator, venue and terminal as one part, and for a scan that was uploaded later a "1"; a tab between the parts.
A row is a line of COPY.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from server.domain.redemption import SEPARATOR, WHERE_SEPARATOR, Verdict

COLUMNS: Final = (
    "event_id", "result", "reason", "ticket_code", "function_code", "ticket_status", "remaining", "first_event",
    "decided_at", "jti", "scan_id", "scanned_at", "operator", "venue_code", "terminal_device_id",
    "uploaded",
)  # fmt: skip
_NULL: Final = "\\N"
# What COPY takes for its own; the script writes none of them.
_SPECIAL: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_ESCAPES: Final = str.maketrans(_SPECIAL)
_SUCCESS: Final = str(int(Verdict.SUCCESS))
_RESULTS: Final = {  # verdict -> result and reason
    str(int(verdict)): f"success\t{_NULL}" if verdict is Verdict.SUCCESS else f"reject\t{verdict.name}"
    for verdict in Verdict
}
_UPLOADED: Final = ["1"]
_MS_DIGITS: Final = 13  # unix ms of the years 2001 to 2286


class EventRows(msgspec.Struct, frozen=True):
    """What a batch of lines means for the record."""

    rows: str  # of `redemption_events`, as COPY reads them, in the order of `COLUMNS`
    spent: Counter[tuple[str, str]]  # (ticket, function) -> uses
    refused: set[str]  # tickets of refusals


def read(shard: int, entries: Sequence[tuple[str, str | None]]) -> EventRows:
    """Read entries (stream id, line) of a shard. Raises ValueError for what the script never wrote."""
    lines = [line or "" for _, line in entries]
    together = "".join(lines)
    if any(special in together for special in _SPECIAL):
        lines = [line.translate(_ESCAPES) for line in lines]
    rows: list[str] = []
    spent: list[tuple[str, str]] = []
    refused: set[str] = set()
    seconds: dict[str, str] = {}
    for (entry_id, _), line in zip(entries, lines, strict=True):
        (
            verdict,
            code,
            function,
            status,
            remaining,
            first,
            decided,
            jti,
            scan_id,
            at,
            operator,
            where,
            *upload,
        ) = line.split(SEPARATOR)
        venue, terminal = where.split(WHERE_SEPARATOR)
        if verdict == _SUCCESS:
            spent.append((code, function))
        elif verdict in _RESULTS:
            refused.add(code)
        else:
            raise ValueError("no verdict of ours")
        if upload and upload != _UPLOADED:
            raise ValueError("no upload of ours")
        rows.append(
            f"{shard:02d}-{entry_id}\t{_RESULTS[verdict]}\t{code}\t{function}\t{status}\t{remaining}\t{first}\t"
            f"{_moment(decided, seconds)}\t{jti}\t{scan_id}\t{_moment(at, seconds)}\t{operator}\t"
            f"{venue or _NULL}\t{terminal or _NULL}\t{'t' if upload else 'f'}\n"
        )
    return EventRows("".join(rows), Counter(spent), refused)


def _moment(unix_ms: str, seconds: dict[str, str]) -> str:
    """As PostgreSQL reads a time. `seconds` remembers what whole seconds are called: a batch has few of them."""
    if len(unix_ms) != _MS_DIGITS or not (unix_ms.isascii() and unix_ms.isdigit()):
        raise ValueError("no time of ours")
    whole = unix_ms[:-3]
    named = seconds.get(whole)
    if named is None:
        named = seconds[whole] = datetime.fromtimestamp(int(whole), UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{named}.{unix_ms[-3:]}+00"
