"""Backup and restore, with real servers destroyed: what was recorded is there again, and the gates go on from it."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest

from server.config import Config
from server.dev.embedded import EmbeddedPostgres, EmbeddedValkey
from server.jobs.recover import UNKNOWN_OPERATOR
from server.store.locks import Lock
from server.store.migrate import migrate_by_owner
from server.web import appkeys
from tests.conftest import Audit, Serve
from tests.processes import GATELINE, ROOT
from tests.road import PATIENCE_S, Answer, Road

PLACE = {"venue_code": "pier", "terminal_device_id": "gate-7"}


class Ran(NamedTuple):
    """How a command ended, and what it said."""

    status: int | None
    out: str
    err: str


class Installation:
    """Two servers of a test's own, and the `gateline` command on them."""

    def __init__(
        self, environment: dict[str, str], valkey: EmbeddedValkey, postgres: EmbeddedPostgres
    ) -> None:
        self._environment = environment
        self.valkey = valkey
        self.postgres = postgres

    @property
    def urls(self) -> dict[str, str]:
        """As fields of the configuration."""
        return {"redis_url": self.valkey.url, "database_url": self.postgres.url}

    async def gateline(self, *words: str) -> Ran:
        settings = self._environment | {
            "REDIS_URL": self.valkey.url,
            "DATABASE_URL": self.postgres.url,
            "GATELINE_OWNER_DATABASE_URL": self.postgres.owner_url,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, *GATELINE, *words, cwd=ROOT, env=settings,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
        return Ran(process.returncode, out.decode(), err.decode())

    async def lose_postgres(self) -> None:
        """Its disk is gone; a new server is there, empty."""
        await asyncio.to_thread(self.postgres.erase)
        await asyncio.to_thread(self.postgres.start)

    async def lose_valkey(self) -> None:
        """The same."""
        await asyncio.to_thread(self.valkey.erase)
        await asyncio.to_thread(self.valkey.start)


@pytest.fixture
async def installation(
    environment: dict[str, str], own_valkey: EmbeddedValkey, own_postgres: EmbeddedPostgres
) -> Installation:
    """Migrated, empty."""
    own_postgres.erase()  # of the test before
    own_postgres.start()
    await migrate_by_owner(own_postgres.url, own_postgres.owner_url)
    return Installation(environment, own_valkey, own_postgres)


class Past(NamedTuple):
    """What was sold and scanned: two tickets before the backup, of which one was scanned then and one afterwards."""

    product: int
    early: str
    early_qr: str
    early_told: Answer
    later: str
    later_qr: str
    later_told: Answer
    pending: Answer
    sold_later: str
    ordered_later: Answer


async def lived(serve: Serve, installation: Installation, file: Path) -> Past:
    """Sales and scans, the backup in their midst, taken while the server runs; then the servers stop."""
    road = await serve(**installation.urls)
    await road.venue("pier", ["bus"])
    product = await road.product({"bus": 5}, sellable=50)
    early, later = [ticket["ticket_code"] for ticket in await road.buy({product: 2})]
    early_qr = await road.qr(early)
    early_told = await road.scan(early_qr, "bus", scan_id="early", **PLACE)
    pending = await road.order({product: 3}, idempotency_key="pending")
    await road.flushed()

    pg: Any = await asyncpg.connect(installation.postgres.owner_url)
    await pg.execute("SELECT pg_advisory_lock($1)", Lock.OUTBOX)  # what Redis is to be told of these waits
    await road.buy({product: 1}, buyer="eve")
    backed_up = await installation.gateline("backup", str(file))
    assert backed_up.status == 0, backed_up
    assert await pg.fetchval("SELECT count(*) FROM outbox") == 2
    await pg.close()

    later_qr = await road.qr(later)
    later_told = await road.scan(later_qr, "bus", scan_id="later", **PLACE)
    await road.scan(await road.qr(later), "ferry", scan_id="refused")
    (sold_later,) = await road.buy({product: 1})
    await road.buy({await road.product({"bus": 1}, sku="LATER", sellable=5): 2}, buyer="eve")
    ordered_later = await road.order({product: 1}, idempotency_key="ordered-later")
    await road.flushed()
    other = await serve(jobs=False, **installation.urls)
    await road.stop()
    assert (await other.scan(await other.qr(later), "bus", scan_id="unflushed")).json["remaining_uses"] == 3
    await other.stop()
    return Past(
        product, early, early_qr, early_told, later, later_qr, later_told, pending, sold_later["ticket_code"],
        ordered_later,
    )  # fmt: skip


async def goes_on(road: Road, past: Past) -> None:
    """What was recorded before the backup holds, and everything goes on."""
    # A slow machine needs longer for all that lies between than a QR lives: here it is still a minute ago.
    road.app[appkeys.ADMISSION]._now = lambda: time.time() - 60
    again = await road.scan(past.early_qr, "bus", scan_id="early", **PLACE)
    assert again.raw == past.early_told.raw, "the first verdict, byte for byte"
    shown_again = await road.scan(past.early_qr, "bus", scan_id="shown-again")
    assert shown_again.json["reason"] == "ALREADY_REDEEMED"
    assert (await road.scan(await road.qr(past.early), "bus")).json["remaining_uses"] == 3
    order_id = past.pending.json["order_id"]
    assert (await road.order({past.product: 3}, idempotency_key="pending")).json["order_id"] == order_id
    assert (await road.notify(order_id, past.pending.json["total_fen"])).json["result"] == "PAID"
    anew = await road.order({past.product: 1}, idempotency_key="ordered-later")
    assert anew.status == 201 and anew.json["order_id"] != past.ordered_later.json["order_id"]
    (sold,) = await road.buy({past.product: 1}, buyer="bob")
    assert (await road.scan(await road.qr(sold["ticket_code"], buyer="bob"), "bus")).json[
        "result"
    ] == "success"
    await road.buy({await road.product({"bus": 1}, sku="ANEW", sellable=5): 5}, buyer="bob")
    assert (await road.call("GET", f"/qr/{past.sold_later}/info", headers=await road.gate())).status == 404


def lost_tickets(config: Config) -> list[Path]:
    """The files that name them."""
    return list(config.data_dir.glob("lost-tickets-*.jsonl"))


async def test_with_both_databases_destroyed_the_record_of_the_backup_is_what_there_is(
    serve: Serve, installation: Installation, audit: Audit, tmp_path: Path
) -> None:
    file = tmp_path / "record.dump"
    past = await lived(serve, installation, file)
    await installation.lose_postgres()
    await installation.lose_valkey()

    restored = await installation.gateline("restore", str(file))

    assert restored.status == 0, restored.out
    assert "The record is back: 3 orders, 3 tickets, 1 verdicts" in restored.out
    assert "Recovered from the gates: 0 redemptions" in restored.out
    assert "no breach" in restored.out.splitlines()[-1]
    road = await serve(**installation.urls)
    await goes_on(road, past)
    lost = await road.scan(past.later_qr, "bus", scan_id="later")
    assert lost.json["remaining_uses"] == 4, "nobody knows of that redemption any more: README says so"
    await audit(road)
    again = await installation.gateline("restore", str(file))
    assert again.status == 1 and "not empty" in again.err and "Traceback" not in again.err
    listed = await installation.gateline("audit")
    assert "RESTORED  record.dump: " in listed.out
    await road.stop()


async def test_where_redis_survives_what_it_alone_knows_is_recorded_before_it_is_loaded_anew(
    serve: Serve, installation: Installation, audit: Audit, tmp_path: Path, config: Config
) -> None:
    file = tmp_path / "record.dump"
    past = await lived(serve, installation, file)
    await installation.lose_postgres()

    restored = await installation.gateline("restore", str(file))

    assert restored.status == 0, restored.out
    assert "The record is back: 3 orders, 3 tickets, 1 verdicts" in restored.out
    assert "Recovered from the gates: 1 redemptions that the record had lost." in restored.out
    road = await serve(**installation.urls)
    await goes_on(road, past)
    again = await road.scan(past.later_qr, "bus", scan_id="later", **PLACE)
    assert again.raw == past.later_told.raw
    assert (await road.scan(past.later_qr, "bus", scan_id="other")).json["reason"] == "ALREADY_REDEEMED"
    assert (await road.scan(await road.qr(past.later), "bus")).json["remaining_uses"] == 2
    await audit(road)
    pg = await asyncpg.connect(installation.postgres.owner_url)
    rows = await pg.fetch(
        "SELECT scan_id, operator, venue_code FROM redemption_events WHERE ticket_code = $1", past.later
    )
    by_scan = {row["scan_id"]: (row["operator"], row["venue_code"]) for row in rows}
    assert by_scan["later"] == (UNKNOWN_OPERATOR, "pier")
    assert by_scan["unflushed"] == ("gina", None)
    assert "refused" not in by_scan
    await pg.close()
    (told,) = lost_tickets(config)
    lost = {line["ticket_code"]: line for line in map(json.loads, told.read_text().splitlines())}
    assert len(lost) == 3 and lost[past.sold_later]["buyer_id"] == "demo:ann"
    assert lost[past.sold_later]["remaining"] == ",bus=5,"
    assert stat.S_IMODE(told.stat().st_mode) == stat.S_IMODE(file.stat().st_mode) == 0o600
    await road.stop()


async def test_a_failover_that_lost_the_last_writes_is_made_good_from_the_gates(
    serve: Serve, installation: Installation, audit: Audit
) -> None:
    """As with a standby that was behind: what was flushed, and trimmed, is not in the Postgres that there is now."""
    road = await serve(**installation.urls)
    product = await road.product({"bus": 2}, sellable=50)
    (ticket,) = await road.buy({product: 1})
    code = ticket["ticket_code"]
    for number in range(2):
        assert (await road.scan(await road.qr(code), "bus", scan_id=f"s{number}")).json["result"] == "success"
    await road.flushed()
    pg: Any = await asyncpg.connect(installation.postgres.owner_url)
    await pg.execute("DELETE FROM redemption_events WHERE scan_id = 's1'")
    await pg.execute("UPDATE entitlements SET remaining_uses = 1")
    await pg.execute("UPDATE tickets SET status = 'ACTIVE'")

    recovered = await installation.gateline("rehydrate", "--recover")

    assert recovered.status == 0, recovered
    assert "Recovered from the gates: 1 redemptions" in recovered.out
    assert (await road.scan(await road.qr(code), "bus", scan_id="s2")).json["reason"] == "NO_REMAINING"
    assert await pg.fetchval("SELECT status FROM tickets") == "REDEEMED"
    await pg.close()
    await audit(road)
    await road.stop()
