"""How often something may happen: counted in Redis, so that all workers count together.

It keeps guessing and hoarding slow. Where Redis is away, or takes no writes, each process counts for itself: staff must
be able to log in, and buyers to show their codes. Where it is slow, logins are refused: else whoever slows us could
guess in each process anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import Redis

from server.domain.errors import ErrorCode, Refusal
from server.hot import keys
from server.hot.connection import Slow, ask
from server.hot.pace import Bucket, LocalBuckets, Pace, steady
from server.hot.scripts import Script, ScriptRunner
from server.limits import (
    CHECK_PAGE,
    INQUIRIES_FORGET_S,
    INQUIRIES_FREE,
    LOGIN_ACCOUNT_TRIES_FREE,
    LOGIN_ADDRESS_FORGET_S,
    LOGIN_ADDRESS_TRIES_FREE,
    LOGIN_DEVICE_TRIES_FREE,
    LOGIN_FORGET_S,
    LOGIN_HELD_REMEMBERED_S,
    LOGIN_HOME_S,
    LOGIN_PAUSE_S_MAX,
    LOGIN_PAUSE_S_MIN,
    LOGIN_TRIES_FREE,
    LOGINS_HELD_MAX,
    QR_SHOWN_FORGET_S,
    QR_SHOWN_FREE,
    WECHAT_CODES_FORGET_S,
    WECHAT_CODES_FREE,
)
from server.telemetry import LIMITED

LIMIT: Final = Script("limit")
_COUNT, _GIVE_BACK = 1, -1
_TRIES: Final = Pace(LOGIN_TRIES_FREE, LOGIN_FORGET_S, LOGIN_PAUSE_S_MIN, LOGIN_PAUSE_S_MAX)
_TRIES_OF_ACCOUNT: Final = Pace(
    LOGIN_ACCOUNT_TRIES_FREE, LOGIN_FORGET_S, LOGIN_PAUSE_S_MIN, LOGIN_PAUSE_S_MAX, turns=True
)
_TRIES_FROM: Final = Pace(
    LOGIN_ADDRESS_TRIES_FREE, LOGIN_ADDRESS_FORGET_S, LOGIN_PAUSE_S_MIN, LOGIN_PAUSE_S_MAX
)
_TRIES_ON_DEVICE: Final = steady(LOGIN_DEVICE_TRIES_FREE, LOGIN_FORGET_S)
_CODES: Final = steady(WECHAT_CODES_FREE, WECHAT_CODES_FORGET_S)
_SHOWN: Final = steady(QR_SHOWN_FREE, QR_SHOWN_FORGET_S)
_INQUIRED: Final = steady(INQUIRIES_FREE, INQUIRIES_FORGET_S)


class Try:
    """An attempt that was counted as a failure before it was looked at, so that a thousand at once are a thousand.

    `known`: the account logged in from this device, or from this address, before.
    """

    def __init__(
        self, throttle: Throttle, buckets: Sequence[Bucket], home: str | None = None, *, known: bool = False
    ) -> None:
        self.known = known
        self._throttle = throttle
        self._buckets = buckets
        self._home = home

    async def take_back(self) -> None:
        """It was none: it went well, or nothing was learnt of it."""
        await self._throttle.give_back(self._buckets)

    async def succeeded(self) -> None:
        """The account is at home at the address from now on, and what failed there before is forgotten."""
        await self._throttle.give_back(self._buckets[1:])
        if self._home is not None:
            await self._throttle.welcome(self._home, self._buckets[0])


class Throttle:
    """The bounds on how often. What counts raises Refusal, with the seconds to wait, when it was too often.

    `login` raises Refusal(REDIS_UNAVAILABLE) besides, when Redis was not heard in time.
    """

    def __init__(
        self,
        redis: Redis,
        runner: ScriptRunner,
        *,
        guests_a_minute_max: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`runner`: one that waits for no replica. `guests_a_minute_max`: 0: no bound."""
        self._redis = redis
        self._runner = runner
        self._guests = steady(guests_a_minute_max, 60 / guests_a_minute_max) if guests_a_minute_max else None
        self._now = now
        self._here = LocalBuckets(now)
        self._held: dict[str, tuple[float, float]] = {}  # own bucket -> held until, and asked again from (s)

    async def login(self, account: str, address: str, device: str | None = None) -> Try:
        """A password is about to be tried. Raises Refusal(TOO_MANY_ATTEMPTS).

        On a `device` where the account logged in before, its tries there count first, which nobody else can use up;
        beyond them it is asked like a stranger. Where the account logged in lately by address, only what failed there
        with this very account counts: nobody elsewhere, and no guessing at other accounts behind the same address, can
        keep its owner waiting.
        """
        home = keys.at_home(account, address)
        if device is not None:
            buckets = [(keys.tries(account, device), _TRIES_ON_DEVICE)]
            if not await self._wait_s("login", buckets, slow_is_away=False):
                return Try(self, buckets, home, known=True)
        own = keys.tries(account, address)
        self._still_held(own)
        known = await self._is_at_home(home)
        buckets = [(own, _TRIES)]
        if not known:
            buckets += (
                (keys.tries_of_account(account), _TRIES_OF_ACCOUNT),
                (keys.tries_from(address), _TRIES_FROM),
            )
        if wait_s := await self._wait_s("login", buckets, slow_is_away=False):
            self._note_held(own, wait_s)
            raise _too_often("login", ErrorCode.TOO_MANY_ATTEMPTS, wait_s)
        return Try(self, buckets, home, known=known)

    async def wechat_code(self, address: str) -> Try:
        """A code is about to be exchanged at WeChat. Raises Refusal(TOO_MANY_ATTEMPTS)."""
        bucket = (keys.codes_from(address), _CODES)
        await self._count("wechat_code", ErrorCode.TOO_MANY_ATTEMPTS, bucket)
        return Try(self, [bucket])

    async def guest(self, address: str) -> None:
        """A guest is about to be made. Raises Refusal(TOO_MANY_GUESTS)."""
        if self._guests is not None:
            await self._count("guest", ErrorCode.TOO_MANY_GUESTS, (keys.guests_from(address), self._guests))

    async def qr(self, ticket_code: str) -> None:
        """A QR token is about to be made, for the ticket's owner. Raises Refusal(TOO_MANY_REQUESTS)."""
        await self._count("qr", ErrorCode.TOO_MANY_REQUESTS, (keys.shown(ticket_code), _SHOWN))

    async def inquiry(self, order_id: str) -> None:
        """The order's gateways are about to be asked, for its buyer. Raises Refusal(TOO_MANY_REQUESTS)."""
        await self._count("query", ErrorCode.TOO_MANY_REQUESTS, (keys.inquired(order_id), _INQUIRED))

    async def give_back(self, buckets: Sequence[Bucket]) -> None:
        """Take one from each of these buckets; where Redis is slow, they forget it in their time."""
        self._here.give_back(buckets)
        if buckets:
            with suppress(Refusal):
                await self._run(_GIVE_BACK, buckets)

    async def welcome(self, home: str, own: Bucket) -> None:
        """Note that an account is at home, and empty its own bucket there."""
        self._here.forget(own)
        with suppress(Refusal):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(home, 1, ex=LOGIN_HOME_S)
                pipe.delete(own[0])
                await ask(pipe.execute())

    async def forgive(self, account: str) -> None:
        """Forget what failed with this account, wherever: who waits may try now. Raises Refusal(REDIS_UNAVAILABLE)."""
        names = [keys.tries_of_account(account)]
        pattern, cursor = keys.any_tries(account), -1
        while cursor:
            page: Any = await ask(self._redis.scan(max(0, cursor), match=pattern, count=CHECK_PAGE))
            cursor = page[0]
            names += page[1]
        await ask(self._redis.delete(*names))

    def _still_held(self, own: str) -> None:
        """Refuse without Redis who was told to wait a moment ago: a flood of them must not cost a round trip each."""
        now = self._now()
        until, ask_from = self._held.get(own, (now, now))
        if now < ask_from:
            raise _too_often("login", ErrorCode.TOO_MANY_ATTEMPTS, until - now)

    def _note_held(self, own: str, wait_s: float) -> None:
        now = self._now()
        if len(self._held) >= LOGINS_HELD_MAX:
            self._held.clear()
        self._held[own] = (now + wait_s, now + min(wait_s, LOGIN_HELD_REMEMBERED_S))

    async def _is_at_home(self, home: str) -> bool:
        try:
            return bool(await ask(self._redis.exists(home)))
        except Slow:
            raise
        except Refusal:
            return False

    async def _count(self, limit: str, code: ErrorCode, bucket: Bucket) -> None:
        if wait_s := await self._wait_s(limit, [bucket]):
            raise _too_often(limit, code, wait_s)

    async def _wait_s(self, limit: str, buckets: Sequence[Bucket], *, slow_is_away: bool = True) -> float:
        """The seconds to wait, by Redis; by this process's own buckets where it is away or takes no writes."""
        try:
            return await self._run(_COUNT, buckets) / 1000
        except Refusal as refusal:
            if isinstance(refusal, Slow) and not slow_is_away:
                raise
            LIMITED.labels(limit, "local").inc()
            return self._here.count(buckets)

    async def _run(self, act: int, buckets: Sequence[Bucket]) -> int:
        args: list[str | int] = [act]
        for _, pace in buckets:
            args += pace.arguments()
        return int(await self._runner.run(LIMIT, [name for name, _ in buckets], args))


def _too_often(limit: str, code: ErrorCode, wait_s: float) -> Refusal:
    LIMITED.labels(limit, "held").inc()
    return Refusal(code, retry_after_s=math.ceil(wait_s))
