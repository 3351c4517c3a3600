"""Migrations: `sql/migrations/NNNN_name.sql`, applied in order, each once, and then the rights of the server's role.

`sql/schema.sql` is the whole truth; a test holds that the migrations add up to it. Two roles share a database: the
owner migrates it; the server's role has what `sql/grants.sql` says. One role may do both, but can rewrite the record.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import asyncpg

from server.limits import MIGRATION_S_MAX
from server.store.pool import Connection, Database
from server.store.queries import SQL_DIR, load

MIGRATIONS_DIR: Final = SQL_DIR / "migrations"
_GRANTS: Final = SQL_DIR / "grants.sql"
_SERVER_ROLE: Final = ':"server_role"'
_LOCK: Final = 0x6761_7465  # "gate": any number; two migrators at once must not meet
_Q: Final = load("migrations")


class MigrationError(Exception):
    """The database and the checkout disagree about the past; the message names the migration."""


async def migrate_by_owner(server_url: str, owner_url: str | None) -> list[str]:
    """Bring the database up to the checkout as its owner, and give the role of `server_url` a server's rights.

    `owner_url` None: the role of `server_url` owns the database, too. Returns and raises as `migrate`.
    """
    server_role = None
    if owner_url is not None:
        server = Database(server_url, size_max=1)
        try:
            server_role = await _own_role(server)
        finally:
            await server.close()
    owner = Database(owner_url or server_url, size_max=1, call_s=MIGRATION_S_MAX)
    try:
        return await migrate(owner, server_role=server_role)
    finally:
        await owner.close()


async def migrate(db: Database, *, server_role: str | None = None) -> list[str]:
    """Bring the database up to the checkout. Returns the names applied now, oldest first; safe to run at once twice.

    `server_role` gets a server's rights, and no others; so does every role that had them before, since a migration may
    have brought a table. Raises MigrationError when an applied migration was changed afterwards or is unknown to this
    checkout.
    """
    applied = []
    async with db.transaction() as connection:
        await connection.execute(_Q["lock_migrations"], _LOCK)
        await connection.execute(_Q["create_migrations_table"])
        known = {row["name"]: row["checksum"] for row in await connection.fetch(_Q["applied_migrations"])}
        files = _files()
        unknown = known.keys() - {file.stem for file in files}
        if unknown:
            raise MigrationError(f"the database is newer than this checkout: {', '.join(sorted(unknown))}")
        for file in files:
            text = file.read_text(encoding="utf-8")
            if await _apply(connection, file.stem, text, known.get(file.stem)):
                applied.append(file.stem)
        await _grant(connection, server_role)
    return applied


async def pending(db: Database) -> list[str]:
    """The migrations of this checkout that the database lacks; nothing is changed.

    Raises MigrationError when the role was given no rights here.
    """
    try:
        async with db.connection() as connection:
            there = await connection.fetchval(_Q["has_migrations_table"])
            rows = await connection.fetch(_Q["applied_migrations"]) if there else []
    except asyncpg.InsufficientPrivilegeError as fault:
        raise MigrationError(
            "the role of DATABASE_URL has no rights here: run `gateline migrate` with the owner's address in "
            "GATELINE_OWNER_DATABASE_URL"
        ) from fault
    known = {row["name"] for row in rows}
    return sorted(file.stem for file in _files() if file.stem not in known)


async def may_change_verdicts(db: Database) -> bool:
    """Whether the role of these connections could rewrite the record: it owns it, or was given too much."""
    async with db.connection() as connection:
        may: bool = await connection.fetchval(_Q["may_change_verdicts"])
    return may


async def _own_role(db: Database) -> str:
    async with db.connection() as connection:
        role: str = await connection.fetchval(_Q["own_role"])
    return role


async def _grant(connection: Connection, server_role: str | None) -> None:
    """Rights are given anew as a whole: what was granted by an earlier version goes."""
    roles = {row[0] for row in await connection.fetch(_Q["server_roles"])}
    if server_role is not None and server_role != await connection.fetchval(_Q["own_role"]):
        roles.add(await connection.fetchval(_Q["quoted"], server_role))
    text = _GRANTS.read_text(encoding="utf-8")
    for role in sorted(roles):
        await connection.execute(text.replace(_SERVER_ROLE, role))


def _files() -> list[Path]:
    return sorted(MIGRATIONS_DIR.glob("[0-9][0-9][0-9][0-9]_*.sql"))


async def _apply(connection: Connection, name: str, text: str, recorded: str | None) -> bool:
    checksum = hashlib.sha256(text.encode()).hexdigest()
    if recorded is not None:
        if recorded != checksum:
            raise MigrationError(f"{name} was changed after it had been applied")
        return False
    await connection.execute(text)
    await connection.execute(_Q["record_migration"], name, checksum)
    return True
