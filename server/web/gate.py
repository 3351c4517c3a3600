"""What gate staff may ask: to log in, where they can work, and whether this ticket passes."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import uuid4

import msgspec
from aiohttp import web

from server.domain.catalog import Operator, Role
from server.domain.errors import Refusal
from server.domain.redemption import WHERE_SEPARATOR, Decision, EntitlementLeft, Verdict
from server.flows.admit import Presented
from server.limits import (
    CODE_CHARS_MAX,
    LOGIN_NAME_CHARS_MAX,
    PASSWORD_CHARS_MAX,
    QR_TOKEN_CHARS_MAX,
    SCAN_ID_CHARS_MAX,
    TERMINAL_ID_CHARS_MAX,
)
from server.web import appkeys
from server.web.auth import Audience, Caller
from server.web.body import Time, ticket_code
from server.web.tickets import TicketAnswer, from_unix_ms, ticket_answer

Code = Annotated[str, msgspec.Meta(pattern=rf"^[A-Za-z0-9_-]{{1,{CODE_CHARS_MAX}}}\Z")]
QrToken = Annotated[str, msgspec.Meta(min_length=1, max_length=QR_TOKEN_CHARS_MAX)]


class Login(msgspec.Struct, frozen=True):
    """A member of the staff."""

    username: Annotated[str, msgspec.Meta(pattern=rf"^[A-Za-z0-9._@-]{{1,{LOGIN_NAME_CHARS_MAX}}}\Z")]
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=PASSWORD_CHARS_MAX)]


class OperatorToken(msgspec.Struct, frozen=True):
    """A token for gate or reports, and nothing else."""

    operator_token: str


class VenueFunction(msgspec.Struct, frozen=True):
    """Something that a venue serves."""

    function_code: str
    label: str


class VenueAnswer(msgspec.Struct, frozen=True):
    """A place with gates."""

    venue_code: str
    name: str
    functions: list[VenueFunction]


class VenuesAnswer(msgspec.Struct, frozen=True):
    """`home_venue`: where a scan of this operator happens when it names no venue."""

    venues: list[VenueAnswer]
    home_venue: str | None


class ScanRequest(msgspec.Struct, frozen=True):
    """`scan_id` is made by the gate before it sends, so that a lost answer can be asked for again."""

    qr_token: QrToken
    function_code: Code
    scan_id: Annotated[str, msgspec.Meta(pattern=rf"^[A-Za-z0-9._:-]{{1,{SCAN_ID_CHARS_MAX}}}\Z")] | None = (
        None
    )
    venue_code: Code | None = None
    terminal_device_id: (
        Annotated[str, msgspec.Meta(pattern=rf"^[A-Za-z0-9._:-]{{1,{TERMINAL_ID_CHARS_MAX}}}\Z")] | None
    ) = None


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
    entitlements: list[EntitlementLeft]
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


class DecryptRequest(msgspec.Struct, frozen=True):
    """A QR token as it was read."""

    qr_token: QrToken


class DecryptAnswer(msgspec.Struct, frozen=True):
    """What the token says, and the ticket behind it."""

    ticket: TicketAnswer
    jti: str
    expires_at: Time


async def login(request: web.Request, caller: None, body: Login) -> OperatorToken:
    """A token for gate staff or analysts, by their role, and nothing else."""
    role, generation = await request.app[appkeys.STAFF_DOOR].enter(body.username, body.password)
    audience = Audience.GATE if role is Role.GATE else Audience.ANALYST
    seconds = request.app[appkeys.CONFIG].operator_token_s
    tokens = request.app[appkeys.TOKENS]
    return OperatorToken(tokens.issue(audience, body.username, seconds=seconds, generation=generation))


async def venues(request: web.Request, caller: Operator, body: None) -> VenuesAnswer:
    """Venues and the functions that each serves."""
    directory = request.app[appkeys.DIRECTORY].current
    return VenuesAnswer(
        [
            VenueAnswer(
                venue.code,
                venue.name,
                [VenueFunction(code, directory.functions[code]) for code in sorted(venue.functions)],
            )
            for venue in sorted(directory.venues.values(), key=lambda venue: venue.code)
        ],
        caller.venue_code,
    )


async def scan(request: web.Request, caller: Operator, body: ScanRequest) -> ScanAnswer:
    """Judge one scan: 200 for every verdict, pass or refusal."""
    scan_id = body.scan_id or uuid4().hex
    try:
        decision = await request.app[appkeys.ADMISSION].admit(
            Presented(
                qr_token=body.qr_token,
                function_code=body.function_code,
                scan_id=scan_id,
                venue_code=body.venue_code or "",
                terminal_device_id=body.terminal_device_id or "",
            ),
            caller,
        )
    except Refusal as refusal:
        refusal.detail["scan_id"] = scan_id  # what a retry has to carry
        raise
    return scan_answer(decision, scan_id)


async def ticket_info(request: web.Request, caller: Caller | Operator, body: None) -> TicketAnswer:
    """The ticket, nothing consumed: for its owner and for operators."""
    wallet, code = request.app[appkeys.WALLET], ticket_code(request)
    if isinstance(caller, Operator):
        return ticket_answer(await wallet.find(code))
    return ticket_answer(await wallet.of_owner(code, caller.subject))


async def decrypt(request: web.Request, caller: Operator, body: DecryptRequest) -> DecryptAnswer:
    """The ticket behind a QR token, nothing consumed."""
    content, ticket = await request.app[appkeys.WALLET].behind(body.qr_token)
    return DecryptAnswer(ticket_answer(ticket), content.jti, from_unix_ms(content.expires_at_ms))


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
