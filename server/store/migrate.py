"""Migrations: `sql/migrations/NNNN_name.sql`, applied in order, each in its own transaction, each once.

`sql/schema.sql` is the whole truth; a test holds that the migrations add up to it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from server.store.pool import Connection, Database
from server.store.queries import SQL_DIR, load

MIGRATIONS_DIR: Final = SQL_DIR / "migrations"
_LOCK: Final = 0x6761_7465  # "gate": any number; two migrators at once must not meet
_Q: Final = load("migrations")


class MigrationError(Exception):
    """The database and the checkout disagree about the past; the message names the migration."""


async def migrate(db: Database) -> list[str]:
    """Bring the database up to the checkout. Returns the names applied now, oldest first; safe to run at once twice.

    Raises MigrationError when an applied migration was changed afterwards or is unknown to this checkout.
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
    return applied


async def pending(db: Database) -> list[str]:
    """The migrations of this checkout that the database lacks; nothing is changed."""
    async with db.connection() as connection:
        there = await connection.fetchval(_Q["has_migrations_table"])
        rows = await connection.fetch(_Q["applied_migrations"]) if there else []
    known = {row["name"] for row in rows}
    return sorted(file.stem for file in _files() if file.stem not in known)


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
