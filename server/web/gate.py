"""What gate staff may ask beside scans: to log in, where they can work, and what is behind a ticket."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from server.domain.catalog import Operator, Role
from server.limits import LOGIN_NAME_CHARS_MAX, PASSWORD_CHARS_MAX
from server.web import appkeys
from server.web.address import client_network
from server.web.auth import Audience, Caller
from server.web.body import Time, ticket_code
from server.web.device import device_of, remember
from server.web.scanning import QrToken
from server.web.tickets import TicketAnswer, from_unix_ms, ticket_answer


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


class DecryptRequest(msgspec.Struct, frozen=True):
    """A QR token as it was read."""

    qr_token: QrToken


class DecryptAnswer(msgspec.Struct, frozen=True):
    """What the token says, and the ticket behind it."""

    ticket: TicketAnswer
    jti: str
    expires_at: Time


async def login(request: web.Request, caller: None, body: Login) -> web.Response:
    """A token for gate staff or analysts, by their role, and nothing else.

    The cookie is optional. Whoever keeps it, and sends it with the next login, is known as a device of this account,
    which no wrong passwords but its own can keep waiting. It opens nothing, and ends with a new password.
    """
    device = device_of(request)
    known = device.knows(body.username, request.app[appkeys.DIRECTORY].current)
    door = request.app[appkeys.STAFF_DOOR]
    role, generation = await door.enter(
        body.username, body.password, client_network(request), device.id if known else None
    )
    audience = Audience.GATE if role is Role.GATE else Audience.ANALYST
    seconds = request.app[appkeys.CONFIG].operator_token_s
    token = request.app[appkeys.TOKENS].issue(audience, body.username, seconds=seconds, generation=generation)
    answer = web.Response(body=msgspec.json.encode(OperatorToken(token)), content_type="application/json")
    remember(request, answer, device, body.username, generation)
    return answer


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
