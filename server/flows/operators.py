"""The accounts of gate staff and analysts: to add one, to disable one, to set a password, to end a wait.

Servers follow within a second: whoever is disabled, or has a new password, is out with every token issued before. Each
change of an account takes the catalog's lock, so that it and a catalog file that is being applied wait for one another,
and is written into the audit trail with who runs the command.
"""

from __future__ import annotations

import asyncio
import enum

from server.domain.audit import Act, Action
from server.domain.catalog import Role
from server.domain.passwords import acceptable, hash_password
from server.domain.toml_table import USERNAME
from server.hot.throttle import Throttle
from server.limits import LOGIN_NAME_CHARS_MAX, PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN
from server.store import audit, catalog
from server.store.pool import Database


class OperatorFault(enum.Enum):
    """Why an account was not changed, and what to tell the person who asked."""

    USERNAME_INVALID = f"A user name takes 1 to {LOGIN_NAME_CHARS_MAX} of A-Z a-z 0-9 . _ @ -"
    USERNAME_TAKEN = "There is an operator of this name already."
    UNKNOWN_OPERATOR = "There is no operator of this name."
    UNKNOWN_VENUE = "There is no such venue."
    PASSWORD_UNACCEPTABLE = f"A password takes {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters."


class OperatorError(Exception):
    """The account was not changed; `fault` says why."""

    def __init__(self, fault: OperatorFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


async def add(db: Database, username: str, role: Role, venue: str | None, password: str) -> None:
    """A new account that can log in at once; `venue`: where its scans happen that name none.

    Raises OperatorError: USERNAME_INVALID, PASSWORD_UNACCEPTABLE, UNKNOWN_VENUE, USERNAME_TAKEN;
    Refusal(POSTGRES_UNAVAILABLE), as all here.
    """
    if not USERNAME.fullmatch(username):
        raise OperatorError(OperatorFault.USERNAME_INVALID)
    password_hash = await _hash(password)
    async with db.transaction() as connection:
        await catalog.lock_catalog(connection)
        if venue is not None and not await catalog.has_venue(connection, venue):
            raise OperatorError(OperatorFault.UNKNOWN_VENUE)
        if not await catalog.add_operator(connection, username, role, venue, password_hash):
            raise OperatorError(OperatorFault.USERNAME_TAKEN)
        details = {"role": {"new": role.value}, "venue": {"new": venue}}
        await audit.record(connection, [Act(Action.OPERATOR_ADDED, username, details)])


async def disable(db: Database, username: str) -> None:
    """End all tokens of the operator, and refuse logins until a new password is set.

    Raises OperatorError: UNKNOWN_OPERATOR.
    """
    async with db.transaction() as connection:
        await catalog.lock_catalog(connection)
        if not await catalog.disable_operator(connection, username):
            raise OperatorError(OperatorFault.UNKNOWN_OPERATOR)
        await audit.record(connection, [Act(Action.OPERATOR_DISABLED, username)])


async def set_password(db: Database, username: str, password: str) -> None:
    """Set the password, end all tokens issued before, and enable the operator if need be.

    Raises OperatorError: PASSWORD_UNACCEPTABLE, UNKNOWN_OPERATOR.
    """
    password_hash = await _hash(password)
    async with db.transaction() as connection:
        await catalog.lock_catalog(connection)
        if not await catalog.set_password(connection, username, password_hash):
            raise OperatorError(OperatorFault.UNKNOWN_OPERATOR)
        await audit.record(connection, [Act(Action.PASSWORD_CHANGED, username)])


async def unblock(db: Database, throttle: Throttle, username: str) -> None:
    """Forget the failed logins of the operator, wherever they were made: who waits may try again within a second.

    Raises OperatorError: UNKNOWN_OPERATOR; Refusal(REDIS_UNAVAILABLE).
    """
    async with db.connection() as connection:
        if await catalog.password_of(connection, username) is None:
            raise OperatorError(OperatorFault.UNKNOWN_OPERATOR)
    await throttle.forgive(username)


async def _hash(password: str) -> str:
    if not acceptable(password):
        raise OperatorError(OperatorFault.PASSWORD_UNACCEPTABLE)
    try:
        return await asyncio.to_thread(hash_password, password)
    except UnicodeEncodeError:  # bytes of a terminal that are no text
        raise OperatorError(OperatorFault.PASSWORD_UNACCEPTABLE) from None
