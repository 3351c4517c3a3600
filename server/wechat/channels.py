"""Which channel pays, from what the client says of itself and from its User-Agent (pure).

A Mini Program must never be led to a page, a QR code or a browser's dialog: none of them can be paid there. So it is
enough that one of the two sources names it, and the other cannot take it back. Some User-Agents of Mini Programs on iOS
lack their marker, so whatever runs in WeChat never gets a QR code or an H5 page either, whatever the client claims.
"""

from __future__ import annotations

import enum
import itertools
import re
from typing import Final

import msgspec

from server.domain.errors import ErrorCode, Refusal
from server.domain.payments import Channel, ClientContext

_MOBILE: Final = re.compile(r"android|iphone|ipad|ipod|mobile", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[0-9]+")


class Environment(enum.Enum):
    """Where the client runs; the values are those of `environmentType`."""

    MINIPROGRAM = "miniprogram"
    WECHAT = "wechat"
    NONE = "none"


class ChannelRules(msgspec.Struct, frozen=True):
    """What the merchant decides: the oldest shell whose pay page is good, and whether there is H5 payment."""

    bridge_version_min: str
    h5: bool


def environment_of(context: ClientContext, user_agent: str) -> Environment:
    """The strictest of what the two sources say: a Mini Program before WeChat before anything else."""
    agent = user_agent.lower()
    told: set[str | None] = {context.environment_type}
    if "micromessenger" in agent:
        told.add("miniprogram" if "miniprogram" in agent else "wechat")
    return next((each for each in Environment if each.value in told), Environment.NONE)


def channel_for(context: ClientContext, user_agent: str, rules: ChannelRules) -> Channel:
    """The channel for this client. Raises Refusal(MINI_PROGRAM_BRIDGE_REQUIRED), with what would be good enough."""
    environment = environment_of(context, user_agent)
    if environment is Environment.MINIPROGRAM:
        if context.mini_program_bridge_supported is True and version_at_least(
            context.mini_program_bridge_version, rules.bridge_version_min
        ):
            return Channel.MINIPROGRAM_BRIDGE
        raise Refusal(
            ErrorCode.MINI_PROGRAM_BRIDGE_REQUIRED,
            requiresUpgrade=True,
            minBridgeVersion=rules.bridge_version_min,
        )
    if environment is Environment.WECHAT:
        return Channel.WECHAT_JSAPI
    if rules.h5 and _MOBILE.search(user_agent):
        return Channel.WECHAT_H5
    return Channel.WECHAT_NATIVE


def version_at_least(version: str | None, minimum: str) -> bool:
    """Compare dotted versions part by part as numbers; what is missing or no number is 0."""
    pairs = itertools.zip_longest(_parts(version or ""), _parts(minimum), fillvalue=(0, ""))
    return next((mine > least for mine, least in pairs if mine != least), True)


def _parts(version: str) -> list[tuple[int, str]]:
    """Each number as (count of digits, digits): compares as the number would, and int() has no bound to pass."""
    numbers = [part.lstrip("0") if _NUMBER.fullmatch(part) else "" for part in version.split(".")]
    return [(len(number), number) for number in numbers]
