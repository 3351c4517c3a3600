"""The staff door: a user name and a password for who they are."""

from __future__ import annotations

import asyncio

from server.domain.catalog import Role
from server.domain.errors import ErrorCode, Refusal
from server.domain.passwords import DECOY, verify_password
from server.hot.throttle import Throttle
from server.limits import (
    LOGINS_AT_ONCE_MAX,
    PASSWORD_HASHES_AT_ONCE_MAX,
    PASSWORD_QUEUE_MAX,
    PASSWORD_WAIT_S_MAX,
)
from server.store import catalog
from server.store.pool import Database


class StaffDoor:
    """Checks passwords, a few at once: hashing is slow by intent."""

    def __init__(self, db: Database, throttle: Throttle) -> None:
        self._db = db
        self._throttle = throttle
        self._places = asyncio.Semaphore(PASSWORD_HASHES_AT_ONCE_MAX)
        self._entering = 0
        self._waiting = 0

    async def enter(self, username: str, password: str, address: str) -> tuple[Role, int]:
        """(role, token generation) of this member of the staff, who asks from this address.

        Raises Refusal: LOGIN_FAILED, the same for every reason and after the same time; TOO_MANY_ATTEMPTS, at once,
        whether there is such an account or not; OVERLOADED when too many others are logging in.
        """
        if self._entering >= LOGINS_AT_ONCE_MAX:
            raise Refusal(ErrorCode.OVERLOADED)
        self._entering += 1
        try:
            return await self._enter(username, password, address)
        finally:
            self._entering -= 1

    async def _enter(self, username: str, password: str, address: str) -> tuple[Role, int]:
        attempt = await self._throttle.login(username, address)
        try:
            who = await self._look(username, password)
        except Refusal as refusal:
            if refusal.code is not ErrorCode.LOGIN_FAILED:
                await attempt.take_back()
            raise
        await attempt.succeeded()
        return who

    async def _look(self, username: str, password: str) -> tuple[Role, int]:
        async with self._db.connection() as connection:
            stored = await catalog.password_of(connection, username)
        phc = stored.password_hash if stored is not None and stored.enabled else None
        right = await self._verify(password, phc or DECOY)
        if stored is None or phc is None or not right:
            raise Refusal(ErrorCode.LOGIN_FAILED)
        return stored.role, stored.generation

    async def _verify(self, password: str, phc: str) -> bool:
        if self._waiting >= PASSWORD_QUEUE_MAX:
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
