"""A scan, its verdict, and the one line of text that keeps a verdict for ever.

The numbers of `Verdict` are shared with `hot/lua/redeem.lua` (a test holds the two together) and are stored: a number
is never reused. What the script answers, what it remembers for a retry and what the client is told are made from the
same line (`Decision.parse`), so a retried scan is answered byte for byte.
"""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import Final

import msgspec

SEPARATOR: Final = "\t"  # between the parts of a line; no code, id or label may contain a control character
WHERE_SEPARATOR: Final = "\x1f"  # between venue and terminal
FUNCTION_SEPARATOR: Final = "\x1e"  # between the functions of `terms`


class Verdict(enum.IntEnum):
    """What the gate is told. `SUCCESS` and every refusal reason; all are final for their scan_id.

    A refusal is `transient` when a NEW scan of the same ticket may pass without anyone changing the ticket: a fresh QR,
    another function or venue, or another time.
    """

    SUCCESS = 0
    QR_MALFORMED = 1
    QR_TAMPERED = 2
    QR_EXPIRED = 3
    QR_UNKNOWN_KEY = 4
    TICKET_NOT_FOUND = 5
    TICKET_NOT_VALID = 6
    WRONG_FUNCTION = 7
    VENUE_NOT_FOUND = 8
    WRONG_VENUE_FUNCTION = 9
    ALREADY_REDEEMED = 10
    NO_REMAINING = 11

    @property
    def transient(self) -> bool:
        """True when another scan of the same ticket can pass later or elsewhere."""
        return self in _TRANSIENT

    @property
    def names_ticket(self) -> bool:
        """False for the refusals that concern no known ticket; those are answered but not recorded."""
        return self not in _WITHOUT_TICKET


_TRANSIENT = frozenset(
    {
        Verdict.QR_MALFORMED,
        Verdict.QR_TAMPERED,
        Verdict.QR_EXPIRED,
        Verdict.QR_UNKNOWN_KEY,
        Verdict.TICKET_NOT_VALID,
        Verdict.WRONG_FUNCTION,
        Verdict.VENUE_NOT_FOUND,
        Verdict.WRONG_VENUE_FUNCTION,
        Verdict.ALREADY_REDEEMED,
    }
)
_VERDICTS: Final = tuple(Verdict)  # by number: quicker than asking the enum
_WITHOUT_TICKET = frozenset(
    {Verdict.QR_MALFORMED, Verdict.QR_TAMPERED, Verdict.QR_UNKNOWN_KEY, Verdict.TICKET_NOT_FOUND}
)


class Undecided(enum.IntEnum):
    """What `redeem.lua` returns instead of a line when it decided nothing. Numbers below zero, never reused."""

    GATE_CLOSED = -1  # the shard's epoch is absent: Redis is being loaded
    TICKET_ABSENT = -2  # the ticket is not in Redis: load it from Postgres, then ask again
    SCAN_ID_CONFLICT = -3  # the scan_id was used for another ticket or function
    OUTSIDE_WINDOW = -4  # scanned too long ago, or in the future, and never told anything


class Scan(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One presentation of a QR at a gate, decoded and ready to be judged by the script.

    `ruled` is the verdict that rules outside of Redis already gave (an expired token, an unknown venue), or None. It is
    handed to the script all the same, because the memory of `scan_id` is looked at before any rule.

    `at_ms` is when the QR was shown, in unix ms: now, or, of a scan that is uploaded later, when its gate says.
    """

    scan_id: str
    ticket_code: str  # "" when the token named none
    function_code: str
    jti: str
    at_ms: int
    operator: str
    venue_code: str
    terminal_device_id: str
    ruled: Verdict | None = None
    uploaded: bool = False  # later, by a gate that was offline
    outside_window: bool = False  # uploaded too late, or from the future: only repeated, never judged


class EntitlementLeft(msgspec.Struct, frozen=True, gc=False):
    """One function of a ticket as it stood after a decision."""

    function_code: str
    label: str
    total_uses: int
    remaining_uses: int


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A verdict as it was decided, read back from its line."""

    verdict: Verdict
    event_id: str  # "<shard>-<stream id>"; "" when nothing was recorded
    ticket_code: str
    function_code: str
    ticket_status: str  # ACTIVE, REDEEMED, VOID, NOT_YET_VALID or EXPIRED; "" when the ticket is unknown
    remaining: str  # remaining uses per function, see `pack_remaining`
    first: str  # for ALREADY_REDEEMED: event id, venue and terminal of the redemption that spent the QR
    decided_ms: int
    terms: str  # the ticket's functions, see `pack_terms`

    @classmethod
    def parse(cls, line: str) -> Decision:
        """Read the line that `redeem.lua` wrote: 9 parts, separated by tabs."""
        verdict, event_id, code, function, status, remaining, first, decided, terms = line.split(SEPARATOR)
        return cls(
            verdict=_VERDICTS[int(verdict)],
            event_id=event_id,
            ticket_code=code,
            function_code=function,
            ticket_status=status,
            remaining=remaining,
            first=first,
            decided_ms=int(decided),
            terms=terms,
        )

    def line_without_terms(self) -> str:
        """The line as Redis remembers it: the terms stand in the ticket's own hash."""
        return SEPARATOR.join(
            (
                str(int(self.verdict)),
                self.event_id,
                self.ticket_code,
                self.function_code,
                self.ticket_status,
                self.remaining,
                self.first,
                str(self.decided_ms),
                "",
            )
        )

    def entitlements(self) -> tuple[EntitlementLeft, ...]:
        """The ticket's functions with what was left right after this decision."""
        return _unpacked(self.terms, self.remaining)


def pack_terms(functions: list[tuple[str, str, int]]) -> str:
    """`[(function code, label, total uses)]` -> the text kept in the ticket's hash, in the package's order."""
    return FUNCTION_SEPARATOR.join(
        f"{code}{WHERE_SEPARATOR}{total}{WHERE_SEPARATOR}{label}" for code, label, total in functions
    )


def pack_remaining(uses: list[tuple[str, int]]) -> str:
    """`[("bus", 2), ("ferry", 0)]` -> `",bus=2,ferry=0,"`: the script finds and replaces one number in place."""
    return "," + "".join(f"{code}={left}," for code, left in uses)


def unpack_remaining(remaining: str) -> dict[str, int]:
    """`",bus=2,ferry=0,"` -> `{"bus": 2, "ferry": 0}`; empty for an unknown ticket."""
    return {code: int(left) for code, left in (pair.split("=") for pair in remaining.split(",") if pair)}


def unpack_entitlements(terms: str, remaining: str) -> list[EntitlementLeft]:
    """The packed functions and remaining uses of a ticket, unpacked; empty for an unknown ticket."""
    return list(_unpacked(terms, remaining))


@lru_cache(maxsize=4_096)  # the products on sale, and the few ways of having used each
def _unpacked(terms: str, remaining: str) -> tuple[EntitlementLeft, ...]:
    if not terms:
        return ()
    uses = unpack_remaining(remaining)
    left = []
    for packed in terms.split(FUNCTION_SEPARATOR):
        code, total, label = packed.split(WHERE_SEPARATOR)
        left.append(EntitlementLeft(code, label, int(total), uses[code]))
    return tuple(left)
