"""The staff door: a user name and a password for who they are."""

from __future__ import annotations

import asyncio
from collections import Counter

from server.domain.catalog import Role
from server.domain.errors import ErrorCode, Refusal
from server.domain.passwords import DECOY, verify_password
from server.hot.throttle import Throttle
from server.limits import (
    LOGINS_AT_ONCE_MAX,
    LOGINS_FROM_MAX,
    LOGINS_STRANGERS_MAX,
    PASSWORD_HASHES_AT_ONCE_MAX,
    PASSWORD_QUEUE_MAX,
    PASSWORD_QUEUE_STRANGERS_MAX,
    PASSWORD_WAIT_S_MAX,
)
from server.store import catalog
from server.store.pool import Database


class StaffDoor:
    """Checks passwords, a few at once: hashing is slow by intent.

    No address has more than a few places, and strangers only a part of all: so whoever floods us keeps no staff out.
    """

    def __init__(self, db: Database, throttle: Throttle) -> None:
        self._db = db
        self._throttle = throttle
        self._places = asyncio.Semaphore(PASSWORD_HASHES_AT_ONCE_MAX)
        self._entering: Counter[str] = Counter()  # by address, or by known device
        self._waiting = 0

    async def enter(
        self, username: str, password: str, address: str, device: str | None = None
    ) -> tuple[Role, int]:
        """(role, token generation) of this member of the staff, who asks from this address.

        `device`: on which the account logged in before. Raises Refusal: LOGIN_FAILED, the same for every reason and
        after the same time; TOO_MANY_ATTEMPTS, at once, whether there is such an account or not; OVERLOADED when too
        many others are logging in; REDIS_UNAVAILABLE, POSTGRES_UNAVAILABLE.
        """
        place = device or address
        places = LOGINS_STRANGERS_MAX if device is None else LOGINS_AT_ONCE_MAX
        if self._entering[place] >= LOGINS_FROM_MAX or self._entering.total() >= places:
            raise Refusal(ErrorCode.OVERLOADED)
        self._entering[place] += 1
        try:
            return await self._enter(username, password, address, device)
        finally:
            self._entering[place] -= 1
            if not self._entering[place]:
                del self._entering[place]

    async def _enter(
        self, username: str, password: str, address: str, device: str | None
    ) -> tuple[Role, int]:
        attempt = await self._throttle.login(username, address, device)
        try:
            who = await self._look(username, password, known=attempt.known)
        except Refusal as refusal:
            if refusal.code is not ErrorCode.LOGIN_FAILED:
                await attempt.take_back()
            raise
        await attempt.succeeded()
        return who

    async def _look(self, username: str, password: str, *, known: bool) -> tuple[Role, int]:
        async with self._db.connection() as connection:
            stored = await catalog.password_of(connection, username)
        phc = stored.password_hash if stored is not None and stored.enabled else None
        right = await self._verify(password, phc or DECOY, known=known)
        if stored is None or phc is None or not right:
            raise Refusal(ErrorCode.LOGIN_FAILED)
        return stored.role, stored.generation

    async def _verify(self, password: str, phc: str, *, known: bool) -> bool:
        if self._waiting >= (PASSWORD_QUEUE_MAX if known else PASSWORD_QUEUE_STRANGERS_MAX):
            raise Refusal(ErrorCode.OVERLOADED)
        self._waiting += 1
        try:
            async with asyncio.timeout(PASSWORD_WAIT_S_MAX):
                await self._places.acquire()
        except TimeoutError as fault:
            raise Refusal(ErrorCode.OVERLOADED) from fault
        finally:
            self._waiting -= 1
        try:  # without a timeout: a thread that hashes cannot be stopped, and keeps its place until it is done
            return await asyncio.to_thread(verify_password, password, phc)
        finally:
            self._places.release()
