"""One scan, however it came: what a gate sends, what it is told, and the ordinary handler of `POST /venue/scan`."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec
from aiohttp import web

from server.domain.catalog import Operator
from server.domain.errors import Refusal
from server.domain.redemption import WHERE_SEPARATOR, Decision, EntitlementLeft, Verdict
from server.flows.admit import Presented
from server.limits import (
    CODE_CHARS_MAX,
    PLACES_KNOWN_MAX,
    QR_TOKEN_CHARS_MAX,
    SCAN_ID_CHARS_MAX,
    TERMINAL_ID_CHARS_MAX,
)
from server.web import appkeys
from server.web.body import Time
from server.web.deadline import left_s
from server.web.errors import new_id
from server.web.tickets import from_unix_ms

PATH: Final = "/venue/scan"
Code = Annotated[str, msgspec.Meta(pattern=rf"^[A-Za-z0-9_-]{{1,{CODE_CHARS_MAX}}}\Z")]
ScanId = Annotated[str, msgspec.Meta(pattern=rf"^[A-Za-z0-9._:-]{{1,{SCAN_ID_CHARS_MAX}}}\Z")]
QrToken = Annotated[str, msgspec.Meta(min_length=1, max_length=QR_TOKEN_CHARS_MAX)]
TerminalId = Annotated[str, msgspec.Meta(pattern=rf"^[A-Za-z0-9._:-]{{1,{TERMINAL_ID_CHARS_MAX}}}\Z")]


class ScanRequest(msgspec.Struct, frozen=True):
    """`scan_id` is made by the gate before it sends, so that a lost answer can be asked for again."""

    qr_token: QrToken
    function_code: Code
    scan_id: ScanId | None = None
    venue_code: Code | None = None
    terminal_device_id: TerminalId | None = None


class _Loose(msgspec.Struct, frozen=True):
    """The same fields, their texts not yet looked at."""

    qr_token: str
    function_code: str
    scan_id: str | None = None
    venue_code: str | None = None
    terminal_device_id: str | None = None


_loosely: Final = msgspec.json.Decoder(_Loose).decode
_strictly: Final = msgspec.json.Decoder(ScanRequest).decode
_scan_id: Final = re.compile(rf"[A-Za-z0-9._:-]{{1,{SCAN_ID_CHARS_MAX}}}").fullmatch
_known_places: set[tuple[str, str | None, str | None]] = set()


def read_scan(body: bytes) -> ScanRequest:
    """A scan from its JSON. Raises what msgspec raises: DecodeError, ValidationError for a bad field, and the like.

    Function, venue and terminal are a few texts that come again and again: those that were found good once are known.
    Looking at each text by its pattern costs more than all the rest of the decoding.
    """
    loose = _loosely(body)
    place = (loose.function_code, loose.venue_code, loose.terminal_device_id)
    if (
        place not in _known_places
        or not 0 < len(loose.qr_token) <= QR_TOKEN_CHARS_MAX
        or (loose.scan_id is not None and _scan_id(loose.scan_id) is None)
    ):
        strict = _strictly(body)
        if len(_known_places) >= PLACES_KNOWN_MAX:
            _known_places.clear()
        _known_places.add(place)
        return strict
    return ScanRequest(
        loose.qr_token, loose.function_code, loose.scan_id, loose.venue_code, loose.terminal_device_id
    )


class FirstRedemption(msgspec.Struct, frozen=True):
    """When and where the QR that is shown again was redeemed."""

    event_id: str
    ts: Time
    venue_code: str | None
    terminal_device_id: str | None


class ScanAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A verdict. `remaining_uses`: of the scanned function; `event_id`: null when no known ticket is concerned."""

    result: Literal["success", "reject"]
    scan_id: str
    ticket_code: str | None
    ticket_status: str | None
    entitlements: tuple[EntitlementLeft, ...]
    remaining_uses: int | None
    event_id: str | None
    ts: Time
    reason: (
        Literal[
            "QR_MALFORMED",
            "QR_TAMPERED",
            "QR_EXPIRED",
            "QR_UNKNOWN_KEY",
            "TICKET_NOT_FOUND",
            "TICKET_NOT_VALID",
            "WRONG_FUNCTION",
            "VENUE_NOT_FOUND",
            "WRONG_VENUE_FUNCTION",
            "ALREADY_REDEEMED",
            "NO_REMAINING",
        ]
        | None
    ) = None
    first_redemption: FirstRedemption | None = None


async def scan(request: web.Request, caller: Operator, body: ScanRequest) -> ScanAnswer:
    """Judge one scan: 200 for every verdict, pass or refusal."""
    scan_id = body.scan_id or new_id()
    try:
        decision = await request.app[appkeys.ADMISSION].admit(
            presented(body, scan_id), caller, left_s(request)
        )
    except Refusal as refusal:
        # With what a retry has to carry; a copy, since all scans of a batch that failed share one refusal.
        raise Refusal(refusal.code, refusal.message, **{**refusal.detail, "scan_id": scan_id}) from refusal
    return scan_answer(decision, scan_id)


def presented(asked: ScanRequest, scan_id: str) -> Presented:
    """The request as admission takes it."""
    return Presented(
        qr_token=asked.qr_token,
        function_code=asked.function_code,
        scan_id=scan_id,
        venue_code=asked.venue_code or "",
        terminal_device_id=asked.terminal_device_id or "",
    )


def scan_answer(decision: Decision, scan_id: str) -> ScanAnswer:
    """The verdict as the gate is told: made from the decision's line alone, so that a replay is equal to the byte."""
    passed = decision.verdict is Verdict.SUCCESS
    entitlements = decision.entitlements()
    return ScanAnswer(
        result="success" if passed else "reject",
        scan_id=scan_id,
        ticket_code=decision.ticket_code or None,
        ticket_status=decision.ticket_status or None,
        entitlements=entitlements,
        remaining_uses=next(
            (left.remaining_uses for left in entitlements if left.function_code == decision.function_code),
            None,
        ),
        event_id=decision.event_id or None,
        ts=from_unix_ms(decision.decided_ms),
        reason=None if passed else decision.verdict.name,  # type: ignore[arg-type]
        first_redemption=_first(decision.first),
    )


def _first(first: str) -> FirstRedemption | None:
    if not first:
        return None
    event_id, venue_code, terminal = first.split(WHERE_SEPARATOR)
    return FirstRedemption(
        event_id=event_id,
        ts=from_unix_ms(int(event_id.split("-")[1])),
        venue_code=venue_code or None,
        terminal_device_id=terminal or None,
    )
