"""Putting an installation back on its feet: the record from a backup, and Redis from the record."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from server.app import Parts
from server.config import Config
from server.domain.audit import Act, Action
from server.jobs.backup import read_back
from server.jobs.check import check
from server.jobs.findings import exit_code, render
from server.jobs.recover import LostTicket, Recovered, recover
from server.limits import CHECK_CATCH_UP_S_MAX, OUTBOX_POLL_S
from server.store import audit, backup, outbox
from server.store.migrate import migrate_by_owner

_encode = msgspec.json.Encoder().encode


async def restore(parts: Parts, file: Path, environment: Mapping[str, str]) -> int:
    """Fill an empty database from the file, load Redis, hold both against every invariant; the exit code of that.

    What survives of Redis is used first: entries that the backup does not have are flushed, and what only the gates
    know was redeemed is recorded. Raises BackupError, MigrationError, Refusal; after the last, when the record is
    there, `gateline rehydrate --recover` does the rest.
    """
    config = parts.config
    await read_back(owner_url(config), file, environment)
    await migrate_by_owner(config.database_url or "", config.owner_database_url)
    async with parts.bulk_database.transaction() as connection:
        contents = await backup.contents(connection)
        details = msgspec.to_builtins(contents)
        await audit.record(connection, [Act(Action.RESTORED, file.name, details)])
    print(
        f"The record is back: {contents.orders:,} orders, {contents.tickets:,} tickets, "
        f"{contents.redemptions:,} verdicts{_until(contents.ends_at)}."
    )
    await rehydrate(parts, use_gates=True)
    await _publish(parts)
    findings = await check(parts.bulk_database, parts.redis, parts.streams, parts.epochs, config.shards)
    print(render(findings))
    return exit_code(findings)


async def rehydrate(parts: Parts, *, use_gates: bool) -> None:
    """Load Redis from the record. `use_gates`: what they know and the record has lost is recorded before."""

    async def drained() -> None:
        _tell(await recover(parts.bulk_database, parts.redis), parts.config.data_dir)

    await parts.rehydration.rehydrate(_progress_bar, drained=drained if use_gates else None)
    print("Redis is loaded, the gates are open.")


async def _publish(parts: Parts) -> None:
    """Tell Redis what it was to be told when the backup was made: no job is here to do it. What is left, check tells.

    The lock of the rehydration may outlast it by a moment, until Postgres has seen its session end.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(CHECK_CATCH_UP_S_MAX):
            while True:
                while await parts.publisher.publish():
                    pass
                async with parts.bulk_database.connection() as connection:
                    waiting, _ = await outbox.backlog(connection)
                if not waiting:
                    return
                await asyncio.sleep(OUTBOX_POLL_S)


def _until(moment: datetime | None) -> str:
    return "" if moment is None else f", until {moment:%Y-%m-%d %H:%M:%SZ}"


def owner_url(config: Config) -> str:
    """The database as its owner, who may be the server, too."""
    return config.owner_database_url or config.database_url or ""


def _tell(found: Recovered, data_dir: Path) -> None:
    print(f"Recovered from the gates: {found.redemptions:,} redemptions that the record had lost.")
    for line in found.refused:
        print(f"spent at the gate, and the record cannot hold it: {line}")
    if found.lost:
        file = data_dir / f"lost-tickets-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"
        _keep(file, found.lost.values())
        print(f"{len(found.lost):,} tickets were sold after the record ends, and are not in it: see {file}")


def _keep(file: Path, lost: Iterable[LostTicket]) -> None:
    """Who bought what: for this user's eyes only."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.writelines(_encode(ticket) + b"\n" for ticket in lost)


def _progress_bar(what: str, done: int, total: int) -> None:
    share = done / total if total else 1.0
    bar = "█" * round(share * 30)
    end = "\n" if done >= total else ""
    print(f"\r{what} {bar:<30} {done:,} of {total:,}", end=end, file=sys.stderr, flush=True)
