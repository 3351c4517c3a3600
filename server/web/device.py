"""The devices on which members of the staff logged in before: each has tries of its own that nobody else can use up.

A device is known by a cookie that a login sets and the next one brings along. It opens nothing, and is looked at
nowhere else: the password is still asked for. Source: OWASP, "Slow Down Online Guessing Attacks with Device Cookies".
"""

from __future__ import annotations

from contextlib import suppress
from secrets import token_hex
from typing import Final

import msgspec
from aiohttp import web

from server.domain.catalog import Directory
from server.domain.errors import Refusal
from server.limits import DEVICE_ACCOUNTS_MAX, DEVICE_ID_BYTES, DEVICE_S
from server.web import appkeys

COOKIE: Final = "gateline_device"
# None of `auth.Audience`: it is no bearer token, and none of those is one.
_AUDIENCE: Final = "gateline:device"


class Device(msgspec.Struct, frozen=True):
    """`accounts`: who logged in there, the latest last: user name -> the account's generation then."""

    id: str
    accounts: dict[str, int]

    def knows(self, username: str, directory: Directory) -> bool:
        """Whether this account logged in there before, and has had no new password since."""
        operator = directory.operators.get(username)
        return operator is not None and self.accounts.get(username) == operator.generation


def device_of(request: web.Request) -> Device:
    """What the request's cookie says; else a new device."""
    with suppress(Refusal):
        claims = request.app[appkeys.TOKENS].read(request.cookies.get(COOKIE, ""), _AUDIENCE)
        return Device(claims["sub"], claims["who"])
    return Device(token_hex(DEVICE_ID_BYTES), {})


def remember(
    request: web.Request, response: web.Response, device: Device, username: str, generation: int
) -> None:
    """Let the device bring along with its next login that this account has logged in there."""
    others = [(name, known) for name, known in device.accounts.items() if name != username]
    accounts = dict([*others, (username, generation)][-DEVICE_ACCOUNTS_MAX:])
    response.set_cookie(
        COOKIE,
        request.app[appkeys.TOKENS].sign(_AUDIENCE, device.id, seconds=DEVICE_S, who=accounts),
        max_age=DEVICE_S,
        path=request.path,
        secure=request.app[appkeys.CONFIG].public_url.startswith("https:"),
        httponly=True,
        samesite="Strict",
    )
