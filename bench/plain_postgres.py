"""The gate in plain Postgres: `python -m bench.plain_postgres`, settings from the environment.

One statement per scan (`sql/plain_redeem.sql`) over a pool of asyncpg, with the guarantees that matter: a use is taken
only while one is left, a QR passes a function once, the event is written with it, and the commit waits for the disk
(synchronous_commit). A plain aiohttp handler with the checks of `bench.door`. It does less than the product: it tells
no reason of a refusal, and a lost answer asked for again is refused.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
from aiohttp import web

from bench.comparison import run, serve
from bench.door import Door
from server import config as configuration
from server.domain.redemption import EntitlementLeft, Scan
from server.store.pool import Database
from server.web.scanning import ScanAnswer

_SQL: Final = Path(__file__).parent / "sql"
_CONNECTIONS: Final = 16  # more do not help on the one core that Postgres has
_encode: Final = msgspec.json.Encoder().encode


async def create(url: str) -> None:
    """Make its tables, with all tickets that the product has now."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute((_SQL / "plain_create.sql").read_text(encoding="utf-8"))
    finally:
        await connection.close()


async def main() -> None:
    """Serve until SIGTERM."""
    config = configuration.load(os.environ)
    database = Database(config.database_url or "", size_max=1)
    door = await Door.open(config, database)
    redeem = (_SQL / "plain_redeem.sql").read_text(encoding="utf-8")

    url = config.owner_database_url  # its tables are none of the product's
    async with asyncpg.create_pool(url, min_size=_CONNECTIONS, max_size=_CONNECTIONS) as pool:

        async def handle(request: web.Request) -> web.Response:
            scan = await door.read(request)
            row = None
            if scan.ruled is None:
                try:
                    row = await pool.fetchrow(redeem, *_arguments(scan))
                except asyncpg.UniqueViolationError:  # the QR was spent
                    row = None
            return web.Response(body=_encode(_answer(scan, row)), content_type="application/json")

        app = web.Application()
        app.router.add_post("/venue/scan", handle)
        await serve(app)
    await database.close()


def _arguments(scan: Scan) -> tuple[object, ...]:
    scanned_at = datetime.fromtimestamp(scan.at_ms / 1000, UTC)
    who = (scan.operator, scan.venue_code, scan.terminal_device_id)
    return (scan.ticket_code, scan.function_code, scan.jti, scan.scan_id, *who, scanned_at)


def _answer(scan: Scan, row: Any) -> ScanAnswer:
    uses = tuple(EntitlementLeft(*each) for each in row["uses"]) if row else ()
    remaining = [left.remaining_uses for left in uses if left.function_code == scan.function_code]
    return ScanAnswer(
        result="success" if row else "reject",
        scan_id=scan.scan_id,
        ticket_code=scan.ticket_code,
        ticket_status=row["ticket_status"] if row else None,
        entitlements=uses,
        remaining_uses=remaining[0] if remaining else None,
        event_id=row["event_id"] if row else None,
        ts=row["decided_at"] if row else datetime.now(UTC),
        reason=None if row else "NO_REMAINING",
    )


if __name__ == "__main__":
    run(main())
