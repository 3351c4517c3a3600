"""Writing and reading the audit trail."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from server.domain.audit import Act, Action, Entry
from server.store.locks import Lock
from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("audit")


def account() -> str:
    """Who runs this process: "alice@host"; "alice as root@host" where the terminal's login is another, as with sudo."""
    user = str(os.getuid())
    with suppress(KeyError):  # a container's user often has no name
        user = pwd.getpwuid(os.getuid()).pw_name
    with suppress(OSError):  # no terminal
        login = os.getlogin()
        user = user if login == user else f"{login} as {user}"
    return f"{user}@{socket.gethostname()}"


def process(name: str) -> str:
    """This process as an actor: "gateline serve 4711@host"."""
    return f"gateline {name} {os.getpid()}@{socket.gethostname()}"


async def record(connection: Connection, acts: Sequence[Act], *, actor: str | None = None) -> None:
    """Write what was done, in the transaction that does it. `actor` None: who runs this process."""
    if acts:
        await connection.execute(
            _Q["record"],
            actor or account(),
            [act.action.value for act in acts],
            [act.subject for act in acts],
            [dict(act.details) for act in acts],
        )


async def newest(connection: Connection, action: Action, subject: str) -> Mapping[str, Any] | None:
    """The details of the last entry of this kind, to compare with; until the transaction ends nobody else compares."""
    await connection.execute(_Q["lock_trail"], Lock.TRAIL)
    details: Mapping[str, Any] | None = await connection.fetchval(_Q["newest_of"], action.value, subject)
    return details


async def trail(connection: Connection, since: datetime | None, limit: int) -> list[Entry]:
    """The newest entries, oldest first."""
    return [
        Entry(
            row["at"].astimezone(UTC),
            row["actor"],
            row["database_role"],
            Action(row["action"]),
            row["subject"],
            row["details"],
        )
        for row in await connection.fetch(_Q["trail"], since, limit)
    ]
