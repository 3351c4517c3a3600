"""Backups are complete or not there, and are read back into nothing but an empty database that nobody uses."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from server.dev.embedded import EmbeddedServers
from server.jobs.backup import BackupError, back_up, read_back
from tests.conftest import database_named

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
async def empty_url(servers: EmbeddedServers) -> AsyncIterator[str]:
    """A database without a table, as its owner."""
    assert servers.owner_database_url is not None
    name = f"empty_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(servers.owner_database_url)
    await admin.execute(f"CREATE DATABASE {name}")
    yield database_named(servers.owner_database_url, name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


def files(folder: Path) -> set[str]:
    """What is there, hidden files included."""
    return {path.name for path in folder.iterdir()}


async def test_a_backup_is_never_written_over_another_and_none_is_left_half_done(
    owner_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "record.dump"
    size = await back_up(owner_url, file, ENVIRONMENT)
    first = file.read_bytes()
    with pytest.raises(BackupError, match="never written over another"):
        await back_up(owner_url, file, ENVIRONMENT)
    with pytest.raises(BackupError, match="pg_dump gave up"):
        await back_up(database_named(owner_url, "none"), tmp_path / "none.dump", ENVIRONMENT)

    assert file.read_bytes() == first and len(first) == size
    assert files(tmp_path) == {"record.dump"}


async def test_only_a_whole_backup_is_read_into_an_empty_database_that_nobody_uses(
    owner_url: str, empty_url: str, pg: asyncpg.Connection[Any], tmp_path: Path
) -> None:
    file, half = tmp_path / "record.dump", tmp_path / "half.dump"
    # So that half of the file has the whole list of contents, and half of this table.
    await pg.execute(
        "INSERT INTO audit_trail (actor, action, subject)"
        " SELECT sha512(n::text::bytea)::text, 'RESTORED', '' FROM generate_series(1, 5000) AS n"
    )
    await back_up(owner_url, file, ENVIRONMENT)
    half.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BackupError, match="not empty"):
        await read_back(owner_url, file, ENVIRONMENT)
    client = await asyncpg.connect(empty_url)
    with pytest.raises(BackupError, match="1 other clients are connected"):
        await read_back(empty_url, file, ENVIRONMENT)
    await client.close()
    with pytest.raises(BackupError, match="end of file"):
        await read_back(empty_url, half, ENVIRONMENT)
    await read_back(empty_url, file, ENVIRONMENT)  # it is empty still

    restored = await asyncpg.connect(empty_url)
    assert await restored.fetchval("SELECT count(*) FROM audit_trail") == 5_000
    await restored.close()


async def test_a_password_is_not_among_the_arguments_of_a_program(owner_url: str, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("pg_dump", "pg_restore"):
        program = programs / name
        program.write_text(
            '#!/bin/sh\n[ "$1" = --version ] && echo "x (PostgreSQL) 99.1" && exit\n'
            f'echo "$@" >>{tmp_path}/arguments; echo "$PGPASSWORD" >>{tmp_path}/passwords\n'
        )
        program.chmod(0o755)
    await back_up(owner_url, tmp_path / "record.dump", {"PATH": f"{programs}:/usr/bin:/bin"})

    secret = owner_url.split(":")[2].partition("@")[0]
    assert secret in (tmp_path / "passwords").read_text(), "the newer program of the PATH was not used"
    arguments = (tmp_path / "arguments").read_text()
    assert "postgresql://gateline@127.0.0.1" in arguments and secret not in arguments
