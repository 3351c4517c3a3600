"""The server's role adds to the record and changes nothing that is there. Every other test runs as it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from server.dev.embedded_postgres import OWNER_ROLE, SERVER_ROLE
from server.store.migrate import MIGRATIONS_DIR, may_change_verdicts, migrate, migrate_by_owner
from server.store.pool import Database

PROTECTED = ("redemption_events", "audit_trail")
ROWS = """
INSERT INTO redemption_events (event_id, ticket_code, function_code, result, ticket_status, remaining, first_event, jti,
                               scan_id, operator, scanned_at, decided_at)
VALUES ('00-1-0', 'T', 'bus', 'success', 'ACTIVE', ',bus=1,', '', 'J', 'S', 'gina', now(), now());
INSERT INTO audit_trail (actor, action, subject) VALUES ('alice@host', 'OPERATOR_DISABLED', 'gina');
"""
# %s: the table. What would change a row, empty the table, or change what the table is.
ATTACKS = {
    "update": "UPDATE %s SET {column} = 'x'",
    "delete": "DELETE FROM %s",
    "truncate": "TRUNCATE %s",
    "delete within a question": "WITH gone AS (DELETE FROM %s RETURNING 1) SELECT count(*) FROM gone",
    "update on conflict": (
        "INSERT INTO %s OVERRIDING SYSTEM VALUE SELECT * FROM %s ON CONFLICT ({key}) DO UPDATE SET {column} = 'x'"
    ),
    "merge": "MERGE INTO %s AS old USING %s AS new ON old.{key} = new.{key} WHEN MATCHED THEN DELETE",
    "by a block": "DO $$ BEGIN DELETE FROM %s; END $$",
    "by a block, spelled by it": "DO $$ BEGIN EXECUTE 'DELETE FROM ' || '%s'; END $$",
    "by a function of its own": (
        "CREATE FUNCTION pg_temp.gone() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM public.%s';"
        " SELECT pg_temp.gone()"
    ),
    "by a view of its own": (
        "CREATE TEMPORARY VIEW seen AS SELECT * FROM %s; UPDATE seen SET {column} = 'x'"
    ),
    "lock out others": "LOCK TABLE %s IN ACCESS EXCLUSIVE MODE",
    "lock a row": "SELECT * FROM %s FOR UPDATE",
    "drop": "DROP TABLE %s",
    "rename": "ALTER TABLE %s RENAME TO gone",
    "another column": "ALTER TABLE %s ADD extra integer",
    "drop a constraint": "ALTER TABLE %s DROP CONSTRAINT %s_pkey",
    "another owner": "ALTER TABLE %s OWNER TO CURRENT_USER",
    "a trigger": (
        "CREATE TRIGGER t BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    ),
    "a rule": "CREATE RULE r AS ON INSERT TO %s DO INSTEAD NOTHING",
    "an index": "CREATE UNIQUE INDEX one ON %s ({column})",
    "a policy": "ALTER TABLE %s ENABLE ROW LEVEL SECURITY",
    "a child": "CREATE TEMPORARY TABLE child () INHERITS (%s)",
    "in the system's tables": "UPDATE pg_class SET relacl = NULL WHERE relname = '%s'",
}
# What needs no table.
ESCAPES = {
    "a table": "CREATE TABLE public.own ()",
    "a view": "CREATE VIEW public.own AS SELECT 1",
    "a function": "CREATE FUNCTION public.own() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "a schema": "CREATE SCHEMA own",
    "another body for our function": (
        "CREATE OR REPLACE FUNCTION raise_directory_version() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN DELETE FROM redemption_events; RETURN NULL; END $$"
    ),
    "the owner": f"SET ROLE {OWNER_ROLE}",
    "the owner's session": f"SET SESSION AUTHORIZATION {OWNER_ROLE}",
    "the owner's right": f"GRANT {OWNER_ROLE} TO {SERVER_ROLE}",
    "another attribute": f"ALTER ROLE {SERVER_ROLE} CREATEDB",
    "no triggers": "SET session_replication_role = replica",
    "a program": "COPY audit_trail (actor) FROM PROGRAM 'true'",
    "a file": "COPY audit_trail TO '/tmp/trail'",
    "the migrations": "DELETE FROM schema_migrations",
    "the database": "ALTER DATABASE gateline RENAME TO gone",
}
COLUMNS = {
    "redemption_events": {"key": "event_id", "column": "result"},
    "audit_trail": {"key": "id", "column": "actor"},
}


@pytest.fixture
async def server_role(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A session as the server's, with a verdict and an entry of the trail that it has written."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(ROWS)
    yield connection
    await connection.close()


async def everything(pg: asyncpg.Connection[Any]) -> list[Any]:
    return [await pg.fetch(f"SELECT * FROM {table}") for table in PROTECTED]  # noqa: S608


@pytest.mark.parametrize("table", PROTECTED)
async def test_what_is_recorded_cannot_be_changed_in_any_way(
    table: str, server_role: asyncpg.Connection[Any], pg: asyncpg.Connection[Any]
) -> None:
    before = await everything(pg)
    passed = []
    for name, attack in ATTACKS.items():
        try:
            async with server_role.transaction():
                await server_role.execute(attack.replace("%s", table).format(**COLUMNS[table]))
        except asyncpg.InsufficientPrivilegeError:
            continue
        passed.append(name)

    # Postgres only warns of a grant that grants nothing.
    await server_role.execute(f"GRANT UPDATE, DELETE, TRUNCATE ON {table} TO CURRENT_USER")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await server_role.execute(f"DELETE FROM {table}")  # noqa: S608
    assert passed == []
    assert await everything(pg) == before
    assert [len(rows) for rows in before] == [1, 1]


async def test_neither_the_schema_nor_a_role_can_be_changed(server_role: asyncpg.Connection[Any]) -> None:
    passed = []
    for name, escape in ESCAPES.items():
        try:
            async with server_role.transaction():
                await server_role.execute(escape)
        except asyncpg.InsufficientPrivilegeError:
            continue
        passed.append(name)

    assert passed == []


async def test_only_a_few_tables_may_be_written_anew_and_none_emptied(pg: asyncpg.Connection[Any]) -> None:
    """A table that a migration brings is in none of these lists, so it is read and no more, until grants.sql says."""
    granted = await pg.fetch(
        "SELECT relname, privilege_type FROM pg_class CROSS JOIN aclexplode(relacl) AS granted"
        " WHERE relnamespace = 'public'::regnamespace AND grantee = $1::regrole",
        SERVER_ROLE,
    )
    columns = await pg.fetch(
        "SELECT relname, attname, privilege_type FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        " CROSS JOIN aclexplode(attacl) AS granted"
        " WHERE relnamespace = 'public'::regnamespace AND grantee = $1::regrole",
        SERVER_ROLE,
    )
    relations = await pg.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
    )
    by_right: dict[str, set[str]] = {}
    for name, right in granted:
        by_right.setdefault(right, set()).add(name)

    assert by_right.keys() == {"SELECT", "INSERT", "UPDATE", "DELETE"}
    assert by_right["SELECT"] == {name for (name,) in relations}
    assert by_right["UPDATE"] == {"functions", "venues", "products", "operators"}
    assert by_right["DELETE"] == {"venue_functions", "product_functions", "outbox"}
    assert by_right["INSERT"] >= set(PROTECTED) - {"audit_trail"} | {
        "payments",
        "order_lines",
        "dead_letters",
    }
    assert {right for table, _, right in columns if table != "audit_trail"} == {"UPDATE"}
    trail = {(column, right) for table, column, right in columns if table == "audit_trail"}
    assert trail == {(column, "INSERT") for column in ("actor", "action", "subject", "details")}, "not when"
    assert {f"{table}.{column}" for table, column, right in columns if right == "UPDATE"} == {
        "directory_version.version",
        "orders.status", "orders.ended_at", "orders.asked_at",
        "wechat_identities.unionid",
        "payment_attempts.phase", "payment_attempts.launch", "payment_attempts.launch_expires_at",
        "payment_attempts.asked_at",
        "tickets.status",
        "entitlements.remaining_uses",
        "stream_cursors.last_id", "stream_cursors.updated_at",
    }  # fmt: skip


async def test_a_migration_takes_back_what_a_careless_hand_gave(
    database_url: str, owner_url: str, pg: asyncpg.Connection[Any]
) -> None:
    server, owner = Database(database_url, size_max=1), Database(owner_url, size_max=1)
    assert not await may_change_verdicts(server)
    assert await may_change_verdicts(owner)
    await pg.execute(f"GRANT ALL ON redemption_events TO {SERVER_ROLE}")
    assert await may_change_verdicts(server)
    await migrate(owner)
    assert not await may_change_verdicts(server)
    await pg.execute(f"GRANT UPDATE (result) ON redemption_events TO {SERVER_ROLE}")
    assert await may_change_verdicts(server)
    await migrate_by_owner(database_url, owner_url)
    assert not await may_change_verdicts(server)
    for database in (server, owner):
        await database.close()


async def test_a_table_of_a_later_migration_is_granted_to_the_role_that_is_known(
    database_url: str, owner_url: str, pg: asyncpg.Connection[Any]
) -> None:
    """As after an upgrade, where the owner migrates and does not say again who the server is."""
    await pg.execute("DROP TABLE audit_trail")
    await pg.execute("DELETE FROM schema_migrations WHERE name = '0005_audit_trail'")
    owner = Database(owner_url, size_max=1)
    assert await migrate(owner) == [file.stem for file in sorted(MIGRATIONS_DIR.glob("0005*"))]
    await owner.close()
    connection = await asyncpg.connect(database_url)
    await connection.execute(ROWS)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DELETE FROM audit_trail")
    await connection.close()
