"""The audit trail: who changed the catalog, its people and the keys, and when; in the transaction of the change."""

from __future__ import annotations

import asyncio
import base64
import getpass
import json
import re
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from server import service
from server.config import Config
from server.config.fingerprints import keys_in_use
from server.domain.audit import Action, Entry
from server.domain.catalog import Role
from server.domain.catalog_file import parse
from server.flows import operators
from server.flows.catalog_apply import apply
from server.flows.keys_in_use import tell_keys
from server.store import audit
from server.store.pool import Database
from tests.conftest import Serve, eventually
from tests.road import Road

PASSWORD = "correct horse battery"
ME = f"{getpass.getuser()}@{socket.gethostname()}"
FILE = """
[[functions]]
code = "bus"
label = "Bus"

[[venues]]
code = "stop"
name = "Stop"
functions = ["bus"]

[[products]]
sku = "RIDE"
name = "Ride"
price_fen = 300
sellable = 10
sale_end_at = 2027-01-01T00:00:00Z
functions = { bus = 2 }

[[operators]]
username = "gina"
role = "gate"
"""


async def applied(road: Road, text: str, *, dry_run: bool = False) -> None:
    await apply(road.parts.bulk_database, road.parts.stock, parse(text), dry_run=dry_run)


async def acts(db: Database) -> list[Entry]:
    """The whole trail; empties nothing."""
    async with db.connection() as connection:
        return await audit.trail(connection, None, 1_000)


def told(entries: list[Entry]) -> list[tuple[str, str, Any]]:
    return [(entry.action.value, entry.subject, entry.details) for entry in entries]


@pytest.fixture
async def quiet(serve: Serve) -> Road:
    """A server whose keys are not told: only what a test does is in the trail."""
    return await serve()


async def test_a_catalog_file_is_written_down_entry_by_entry_with_old_and_new(quiet: Road) -> None:
    db = quiet.parts.database
    await applied(quiet, FILE, dry_run=True)
    assert await acts(db) == []
    await applied(quiet, FILE)
    added = await acts(db)
    await applied(quiet, FILE)
    assert await acts(db) == added, "nothing changed, so nothing is told"
    changed = FILE.replace("300", "250").replace("bus = 2", "bus = 3").replace('"gate"', '"analyst"')
    await applied(quiet, changed)
    entries = await acts(db)

    assert told(added) == [
        ("CATALOG_ADDED", "function bus", {"label": {"new": "Bus"}}),
        ("CATALOG_ADDED", "venue stop", {"name": {"new": "Stop"}, "functions": {"new": ["bus"]}}),
        (
            "CATALOG_ADDED",
            "product RIDE",
            {
                "name": {"new": "Ride"},
                "price_fen": {"new": 300},
                "sellable": {"new": 10},
                "status": {"new": "ACTIVE"},
                "sale_end_at": {"new": "2027-01-01T00:00:00Z"},
                "functions": {"new": {"bus": 2}},
            },
        ),
        ("OPERATOR_ADDED", "gina", {"role": {"new": "gate"}}),
    ]
    assert told(entries[len(added) :]) == [
        (
            "CATALOG_CHANGED",
            "product RIDE",
            {"price_fen": {"old": 300, "new": 250}, "functions": {"old": {"bus": 2}, "new": {"bus": 3}}},
        ),
        ("OPERATOR_CHANGED", "gina", {"role": {"old": "gate", "new": "analyst"}}),
    ]
    assert {(entry.actor, entry.database_role) for entry in entries} == {(ME, "gateline_server")}
    assert len({entry.at for entry in added}) == 1, "one file, one moment"
    assert abs(datetime.now(UTC) - entries[-1].at) < timedelta(minutes=1)
    line = str(entries[-2])
    assert line.endswith(
        'CATALOG_CHANGED  product RIDE: functions {"bus":2} -> {"bus":3}, price_fen 300 -> 250'
    )


async def test_what_is_done_to_accounts_is_written_down_without_a_password(
    quiet: Road, pg: asyncpg.Connection[Any]
) -> None:
    db = quiet.parts.database
    await operators.add(db, "amy", Role.ANALYST, None, PASSWORD)
    await operators.set_password(db, "amy", PASSWORD + "!")
    await operators.disable(db, "amy")
    with pytest.raises(operators.OperatorError):
        await operators.disable(db, "nobody")

    assert told(await acts(db)) == [
        ("OPERATOR_ADDED", "amy", {"role": {"new": "analyst"}, "venue": {"new": None}}),
        ("PASSWORD_CHANGED", "amy", {}),
        ("OPERATOR_DISABLED", "amy", {}),
    ]
    everything = str(await pg.fetch("SELECT * FROM audit_trail"))
    assert PASSWORD not in everything and "argon2" not in everything


async def test_a_change_and_its_entry_are_there_together_or_not_at_all(
    quiet: Road, pg: asyncpg.Connection[Any]
) -> None:
    db = quiet.parts.database
    await applied(quiet, FILE)
    before = told(await acts(db))
    await pg.execute("ALTER TABLE audit_trail ADD CONSTRAINT full_disk CHECK (action = 'NOTHING') NOT VALID")
    for change in (
        applied(quiet, FILE.replace("300", "250")),
        operators.add(db, "amy", Role.ANALYST, None, PASSWORD),
        operators.disable(db, "gina"),
        operators.set_password(db, "gina", PASSWORD),
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await change

    assert await pg.fetchval("SELECT price_fen FROM products") == 300
    assert await pg.fetch("SELECT username, enabled, generation FROM operators") == [("gina", True, 1)]
    assert told(await acts(db)) == before


def rotated(config: Config) -> Config:
    """A new QR key in front of the old one; the webhook secret replaced."""
    return msgspec.structs.replace(
        config, qr_keys=((2, b"n" * 32), *config.qr_keys), gateway_secrets=(b"w" * 32,)
    )


async def test_keys_are_told_once_however_many_servers_start_and_again_when_they_change(
    config: Config, database_url: str, pg: asyncpg.Connection[Any]
) -> None:
    db = Database(database_url, size_max=8)
    first = await asyncio.gather(*(tell_keys(db, config, f"server {n}") for n in range(8)))
    after = rotated(config)
    second = await asyncio.gather(*(tell_keys(db, after, f"server {n}") for n in range(8)))
    back = await tell_keys(db, config, "server 9")
    entries = await acts(db)

    assert [sum(first), sum(second), back] == [1, 1, True]
    old, new = keys_in_use(config), keys_in_use(after)
    assert [entry.action for entry in entries] == [Action.KEYS_CHANGED] * 3
    assert entries[0].details == {purpose: {"new": keys} for purpose, keys in old.items()}
    assert entries[1].details == {
        "qr": {"old": old["qr"], "new": new["qr"]},
        "jwt": {"new": old["jwt"]},
        "webhook": {"old": old["webhook"], "new": new["webhook"]},
    }
    assert new["qr"][1:] == old["qr"] and new["qr"][0].startswith("2 (")
    assert entries[1].actor.startswith("server ")
    everything = str(await pg.fetch("SELECT * FROM audit_trail"))
    for key in (*dict(after.qr_keys).values(), *dict(after.jwt_keys).values(), *after.gateway_secrets):
        assert base64.b64encode(key).decode() not in everything
        assert key.hex() not in everything
    await db.close()


def test_a_key_that_is_replaced_under_its_id_is_another_key(config: Config) -> None:
    other = msgspec.structs.replace(config, jwt_keys=((config.jwt_keys[0][0], b"o" * 32),))

    assert keys_in_use(config)["jwt"] != keys_in_use(other)["jwt"]
    assert all(
        re.fullmatch(r"(\w+ )?\(?[0-9a-f]{8}\)?", key)
        for keys in keys_in_use(config).values()
        for key in keys
    )


async def test_a_server_tells_its_keys_as_soon_as_postgres_is_there(
    serve: Serve, pg: asyncpg.Connection[Any], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RETRY_S_MAX", 0.05)
    road = await serve(jobs=False)
    name = database_url.rpartition("/")[2]
    assert await pg.fetchval("SELECT count(*) FROM audit_trail") == 0
    await pg.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
    await pg.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename <> user", name
    )
    async with service.listening(road.parts, with_jobs=False) as address:
        async with road.session.get(f"{address}/healthz") as answer:
            assert answer.status == 200
        await asyncio.sleep(0.2)
        assert await pg.fetchval("SELECT count(*) FROM audit_trail") == 0
        await pg.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1")

        async def written() -> bool:
            return await pg.fetchval("SELECT count(*) FROM audit_trail") == 1

        await eventually(written)
    (entry,) = await acts(road.parts.database)
    assert entry.action is Action.KEYS_CHANGED
    assert re.fullmatch(rf"gateline serve \d+@{re.escape(socket.gethostname())}", entry.actor)


async def test_the_trail_is_listed_newest_last_since_a_time_and_at_most_so_many(quiet: Road) -> None:
    db = quiet.parts.database
    await operators.add(db, "amy", Role.ANALYST, None, PASSWORD)
    await operators.disable(db, "amy")
    entries = await acts(db)
    async with db.connection() as connection:
        assert await audit.trail(connection, None, 1) == entries[1:]
        assert await audit.trail(connection, entries[1].at, 10) == entries[1:]
        assert await audit.trail(connection, datetime.now(UTC) + timedelta(days=1), 10) == []
    assert json.loads(msgspec.json.encode(entries[0]))["action"] == "OPERATOR_ADDED"


async def test_the_table_takes_every_action_and_no_other(pg: asyncpg.Connection[Any]) -> None:
    check = await pg.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'audit_trail_action'"
    )

    assert set(re.findall(r"'(\w+)'", check)) == {action.value for action in Action}
