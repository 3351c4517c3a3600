"""The audit: waits until nothing is on its way, reads all books, and holds them against every rule."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.chaos.audit import gate, sales, scans
from tests.chaos.audit.books import Books, ordinal, read_books
from tests.chaos.audit.findings import Finding, Findings, Kind

QUIET_S_MAX = 60.0
ENDED_S_MAX = 15.0
RULES: tuple[Callable[[Books], Findings], ...] = (
    gate.caught_up,
    gate.stock,
    gate.tickets,
    gate.remembered,
    scans.told_scans,
    scans.recorded_events,
    scans.uses,
    sales.told_orders,
    sales.told_payments,
    sales.recorded_payments,
    sales.settled_once,
    sales.money,
)


def hold(books: Books) -> list[Finding]:
    """Everything that must not be, by every rule."""
    return [finding for rule in RULES for finding in rule(books)]


def count(findings: list[Finding]) -> dict[str, int]:
    """{"lost": 0, "doubled": 0, "breaches": 0}."""
    counted = Counter(finding.kind for finding in findings)
    return {kind.value: counted[kind] for kind in Kind}


async def quiet(database_url: str, redis_url: str, *, seconds: float = QUIET_S_MAX) -> float:
    """Wait until streams and outbox are empty and no order is open; how many seconds that took.

    After that time it goes on all the same: what has not been written by then is found by the rules. An order that was
    made by a clock that was ahead stays open for longer than others: it is not waited for.
    """
    began = time.monotonic()
    while (waited := time.monotonic() - began) < seconds:
        try:
            written, ended = await _is_quiet(database_url, redis_url)
            if written and (ended or waited > ENDED_S_MAX):
                break
        except (OSError, RedisError, asyncpg.PostgresError, TimeoutError):
            pass  # still coming up
        await asyncio.sleep(0.2)
    return time.monotonic() - began


async def _is_quiet(database_url: str, redis_url: str) -> tuple[bool, bool]:
    """Whether all is written, and whether every order has ended."""
    pg = await asyncpg.connect(database_url, timeout=5)
    try:
        cursors = {row["stream"]: row["last_id"] for row in await pg.fetch("SELECT * FROM stream_cursors")}
        waiting = await pg.fetchval("SELECT count(*) FROM outbox")
        pending = await pg.fetchval("SELECT count(*) FROM orders WHERE status = 'PENDING_PAYMENT'")
    finally:
        await pg.close()
    written = bool(cursors) and not waiting
    async with Redis.from_url(redis_url, decode_responses=True, socket_timeout=5) as redis:
        for stream, cursor in cursors.items():
            epoch = str(await redis.get(f"{stream.partition(':')[0]}:epoch") or "shut")
            last = "0-0"
            if await redis.exists(stream):
                last = (await redis.xinfo_stream(stream))["last-generated-id"]
            written = written and epoch[-1].isdigit() and ordinal(last) <= ordinal(cursor)
    return written, not pending


async def audit(database_url: str, redis_url: str, diaries: Path) -> list[Finding]:
    """Read and hold. What is found is looked at once more when all is quiet: an order may have ended meanwhile."""
    findings = hold(await read_books(database_url, redis_url, diaries))
    if findings:
        await asyncio.sleep(1.0)
        await quiet(database_url, redis_url, seconds=5.0)
        findings = hold(await read_books(database_url, redis_url, diaries))
    return findings
