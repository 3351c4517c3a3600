"""How often something may happen: counted in Redis, so that all workers count together.

It keeps guessing and hoarding slow, and protects no truth: where Redis is away, everything is let through uncounted,
since staff must be able to log in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec
from redis.asyncio import Redis

from server.domain.errors import ErrorCode, Refusal
from server.hot import keys
from server.hot.connection import ask
from server.hot.scripts import Script, ScriptRunner
from server.limits import (
    INQUIRIES_FORGET_S,
    INQUIRIES_FREE,
    LOGIN_ACCOUNT_TRIES_FREE,
    LOGIN_ADDRESS_FORGET_S,
    LOGIN_ADDRESS_TRIES_FREE,
    LOGIN_FORGET_S,
    LOGIN_HOME_S,
    LOGIN_PAUSE_S_MAX,
    LOGIN_PAUSE_S_MIN,
    LOGIN_TRIES_FREE,
    QR_SHOWN_FORGET_S,
    QR_SHOWN_FREE,
    WECHAT_CODES_FORGET_S,
    WECHAT_CODES_FREE,
)
from server.telemetry import LIMITED

LIMIT: Final = Script("limit")
_COUNT, _GIVE_BACK = 1, -1


class Pace(msgspec.Struct, frozen=True):
    """So many at once; behind each more a pause that doubles up to a longest one; one is forgotten every so often."""

    free: int
    forget_s: float
    pause_s_min: float
    pause_s_max: float
    turns: bool = False  # strangers share the bucket: see `limit.lua`

    def arguments(self) -> list[str | int]:
        """As the script takes them."""
        seconds = (self.forget_s, self.pause_s_min, self.pause_s_max)
        return [self.free, *(math.ceil(each * 1000) for each in seconds), int(self.turns)]


def steady(free: int, every_s: float) -> Pace:
    """So many at once, and from then on one in every so many seconds."""
    return Pace(free, every_s, every_s, every_s)


_TRIES: Final = Pace(LOGIN_TRIES_FREE, LOGIN_FORGET_S, LOGIN_PAUSE_S_MIN, LOGIN_PAUSE_S_MAX)
_TRIES_OF_ACCOUNT: Final = Pace(
    LOGIN_ACCOUNT_TRIES_FREE, LOGIN_FORGET_S, LOGIN_PAUSE_S_MIN, LOGIN_PAUSE_S_MAX, turns=True
)
_TRIES_FROM: Final = Pace(
    LOGIN_ADDRESS_TRIES_FREE, LOGIN_ADDRESS_FORGET_S, LOGIN_PAUSE_S_MIN, LOGIN_PAUSE_S_MAX
)
_CODES: Final = steady(WECHAT_CODES_FREE, WECHAT_CODES_FORGET_S)
_SHOWN: Final = steady(QR_SHOWN_FREE, QR_SHOWN_FORGET_S)
_INQUIRED: Final = steady(INQUIRIES_FREE, INQUIRIES_FORGET_S)
_Bucket = tuple[str, Pace]


class Try:
    """An attempt that was counted as a failure before it was looked at, so that a thousand at once are a thousand."""

    def __init__(self, throttle: Throttle, buckets: Sequence[_Bucket], home: str | None = None) -> None:
        self._throttle = throttle
        self._buckets = buckets
        self._home = home

    async def take_back(self) -> None:
        """It was none: it went well, or nothing was learnt of it."""
        await self._throttle.give_back(self._buckets)

    async def succeeded(self) -> None:
        """The account is at home at the address from now on, and what failed there before is forgotten."""
        await self._throttle.give_back(self._buckets[1:])
        if self._buckets and self._home is not None:
            await self._throttle.welcome(self._home, self._buckets[0][0])


class Throttle:
    """The bounds on how often. All methods raise Refusal, with the seconds to wait, when it was too often."""

    def __init__(self, redis: Redis, runner: ScriptRunner, *, guests_a_minute_max: int = 0) -> None:
        """`runner`: one that waits for no replica. `guests_a_minute_max`: 0: no bound."""
        self._redis = redis
        self._runner = runner
        self._guests = steady(guests_a_minute_max, 60 / guests_a_minute_max) if guests_a_minute_max else None

    async def login(self, account: str, address: str) -> Try:
        """A password is about to be tried. Raises Refusal(TOO_MANY_ATTEMPTS).

        Where the account logged in lately, only what failed there with this very account counts: nobody elsewhere, and
        no guessing at other accounts behind the same address, can keep its owner waiting.
        """
        home = keys.at_home(account, address)
        buckets = [(keys.tries(account, address), _TRIES)]
        try:
            known = await ask(self._redis.exists(home))
        except Refusal:
            LIMITED.labels("login", "uncounted").inc()
            return Try(self, [])
        if not known:
            buckets += (
                (keys.tries_of_account(account), _TRIES_OF_ACCOUNT),
                (keys.tries_from(address), _TRIES_FROM),
            )
        return await self._try("login", buckets, home)

    async def wechat_code(self, address: str) -> Try:
        """A code is about to be exchanged at WeChat. Raises Refusal(TOO_MANY_ATTEMPTS)."""
        buckets = [(keys.codes_from(address), _CODES)]
        return await self._try("wechat_code", buckets)

    async def guest(self, address: str) -> None:
        """A guest is about to be made. Raises Refusal(TOO_MANY_GUESTS)."""
        if self._guests is not None:
            bucket = (keys.guests_from(address), self._guests)
            await self._count("guest", ErrorCode.TOO_MANY_GUESTS, [bucket])

    async def qr(self, ticket_code: str) -> None:
        """A QR token is about to be made, for the ticket's owner. Raises Refusal(TOO_MANY_REQUESTS)."""
        await self._count("qr", ErrorCode.TOO_MANY_REQUESTS, [(keys.shown(ticket_code), _SHOWN)])

    async def inquiry(self, order_id: str) -> None:
        """The order's gateways are about to be asked, for its buyer. Raises Refusal(TOO_MANY_REQUESTS)."""
        await self._count("query", ErrorCode.TOO_MANY_REQUESTS, [(keys.inquired(order_id), _INQUIRED)])

    async def give_back(self, buckets: Sequence[_Bucket]) -> None:
        """Take one from each of these buckets."""
        if buckets:
            await self._run(_GIVE_BACK, buckets)

    async def welcome(self, home: str, own: str) -> None:
        """Note that an account is at home, and empty its own bucket there."""
        with suppress(Refusal):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(home, 1, ex=LOGIN_HOME_S)
                pipe.delete(own)
                await ask(pipe.execute())

    async def _try(self, limit: str, buckets: Sequence[_Bucket], home: str | None = None) -> Try:
        counted = await self._count(limit, ErrorCode.TOO_MANY_ATTEMPTS, buckets)
        return Try(self, buckets if counted else [], home)

    async def _count(self, limit: str, code: ErrorCode, buckets: Sequence[_Bucket]) -> bool:
        """Whether it was counted: not where Redis is away."""
        wait_ms = await self._run(_COUNT, buckets)
        if wait_ms is None:
            LIMITED.labels(limit, "uncounted").inc()
        elif wait_ms:
            LIMITED.labels(limit, "held").inc()
            raise Refusal(code, retry_after_s=math.ceil(wait_ms / 1000))
        return wait_ms is not None

    async def _run(self, act: int, buckets: Sequence[_Bucket]) -> int | None:
        """What the script says; None: Redis did not answer."""
        args: list[str | int] = [act]
        for _, pace in buckets:
            args += pace.arguments()
        try:
            return int(await self._runner.run(LIMIT, [name for name, _ in buckets], args))
        except Refusal:
            return None
