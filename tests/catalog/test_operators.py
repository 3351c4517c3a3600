"""Accounts of gate staff and analysts: added, disabled, given passwords, while servers are running."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from server.domain.catalog import Role
from server.domain.catalog_file import parse
from server.flows import operators
from server.flows.catalog_apply import apply
from server.flows.operators import OperatorError, OperatorFault
from server.limits import PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN
from server.store import catalog
from tests.conftest import Serve, eventually
from tests.road import Answer, Road

PASSWORD = "correct horse battery"
NEWER = "staple 电池 battery"


async def login(road: Road, username: str, password: str) -> Answer:
    """What the staff door answers."""
    return await road.call("POST", "/operators/login", json={"username": username, "password": password})


async def headers(road: Road, username: str, password: str) -> dict[str, str]:
    """Headers with a fresh token."""
    answer = await login(road, username, password)
    assert answer.status == 200, answer
    return {"Authorization": f"Bearer {answer.json['operator_token']}"}


async def until(road: Road, token: dict[str, str], path: str, status: int) -> Answer:
    """The first answer with this status: servers follow accounts within a second."""
    answers = []

    async def answered() -> bool:
        answers.append(await road.call("GET", path, headers=token))
        return answers[-1].status == status

    await eventually(answered)
    return answers[-1]


async def test_an_added_operator_logs_in_and_works_at_the_home_venue(road: Road) -> None:
    await road.venue("pier", ["bus"])
    await operators.add(road.parts.database, "gina@pier-1", Role.GATE, "pier", PASSWORD)
    token = await headers(road, "gina@pier-1", PASSWORD)

    assert (await until(road, token, "/venue", 200)).json["home_venue"] == "pier"
    assert (await login(road, "gina@pier-1", PASSWORD + "x")).json["code"] == "LOGIN_FAILED"


async def test_an_added_analyst_reads_reports_and_does_not_scan(road: Road) -> None:
    await operators.add(road.parts.database, "amy", Role.ANALYST, None, PASSWORD)
    token = await headers(road, "amy", PASSWORD)

    await until(road, token, "/reports/redemptions", 200)
    assert (await road.call("GET", "/venue", headers=token)).status == 403


async def test_a_disabled_operator_is_out_on_every_server_and_cannot_log_in(serve: Serve) -> None:
    roads = [await serve(), await serve(jobs=False)]
    await operators.add(roads[0].parts.database, "gina", Role.GATE, None, PASSWORD)
    token = await headers(roads[0], "gina", PASSWORD)
    for road in roads:
        await until(road, token, "/venue", 200)
    await operators.disable(roads[0].parts.database, "gina")

    for road in roads:
        assert (await until(road, token, "/venue", 401)).json["code"] == "OPERATOR_DISABLED"
        assert (await login(road, "gina", PASSWORD)).json["code"] == "LOGIN_FAILED"


async def test_a_new_password_ends_old_tokens_and_lets_a_disabled_operator_in_again(road: Road) -> None:
    await operators.add(road.parts.database, "gina", Role.GATE, None, PASSWORD)
    old = await headers(road, "gina", PASSWORD)
    await until(road, old, "/venue", 200)
    await operators.set_password(road.parts.database, "gina", NEWER)

    assert (await until(road, old, "/venue", 401)).json["code"] == "OPERATOR_DISABLED"
    assert (await login(road, "gina", PASSWORD)).status == 401
    await until(road, await headers(road, "gina", NEWER), "/venue", 200)
    await operators.disable(road.parts.database, "gina")
    await operators.set_password(road.parts.database, "gina", PASSWORD)
    await until(road, await headers(road, "gina", PASSWORD), "/venue", 200)
    assert (await road.call("GET", "/venue", headers=old)).json["code"] == "OPERATOR_DISABLED"


async def test_an_operator_from_a_catalog_file_logs_in_once_there_is_a_password(road: Road) -> None:
    file = parse("[[operators]]\nusername = 'gina'\nrole = 'gate'\n")
    await apply(road.parts.bulk_database, road.parts.stock, file)
    refused = await login(road, "gina", PASSWORD)
    await operators.set_password(road.parts.database, "gina", PASSWORD)

    assert refused.json["code"] == "LOGIN_FAILED"
    await until(road, await headers(road, "gina", PASSWORD), "/venue", 200)


async def test_passwords_are_kept_as_argon2id_hashes_and_never_as_they_are(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    await operators.add(road.parts.database, "gina", Role.GATE, None, PASSWORD)
    first = await pg.fetchval("SELECT password_hash FROM operators")
    await operators.set_password(road.parts.database, "gina", PASSWORD)
    second = await pg.fetchval("SELECT password_hash FROM operators")

    assert first.startswith("$argon2id$v=19$")
    assert PASSWORD not in first
    assert first != second


async def test_what_cannot_be_an_account_is_refused_and_nothing_is_written(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    await operators.add(road.parts.database, "taken", Role.ANALYST, None, PASSWORD)
    before = await pg.fetch("SELECT * FROM operators")
    for username, venue, password, fault in (
        ("gina", None, "x" * (PASSWORD_CHARS_MIN - 1), OperatorFault.PASSWORD_UNACCEPTABLE),
        ("gina", None, "x" * (PASSWORD_CHARS_MAX + 1), OperatorFault.PASSWORD_UNACCEPTABLE),
        ("gina", None, "no text: \udcff\udcfe", OperatorFault.PASSWORD_UNACCEPTABLE),
        ("", None, PASSWORD, OperatorFault.USERNAME_INVALID),
        ("gi na", None, PASSWORD, OperatorFault.USERNAME_INVALID),
        ("gina\n", None, PASSWORD, OperatorFault.USERNAME_INVALID),
        ("g" * 65, None, PASSWORD, OperatorFault.USERNAME_INVALID),
        ("gina", "nowhere", PASSWORD, OperatorFault.UNKNOWN_VENUE),
        ("taken", None, PASSWORD, OperatorFault.USERNAME_TAKEN),
    ):
        with pytest.raises(OperatorError) as refused:
            await operators.add(road.parts.database, username, Role.GATE, venue, password)
        assert refused.value.fault is fault, username
        assert str(refused.value) == fault.value
    assert await pg.fetch("SELECT * FROM operators") == before


async def test_an_unknown_operator_and_a_weak_password_are_refused(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    db = road.parts.database
    await operators.add(db, "gina", Role.GATE, None, PASSWORD)
    before = await pg.fetch("SELECT * FROM operators")
    for act, fault in (
        (operators.disable(db, "nobody"), OperatorFault.UNKNOWN_OPERATOR),
        (operators.set_password(db, "nobody", PASSWORD), OperatorFault.UNKNOWN_OPERATOR),
        (operators.set_password(db, "gina", "short"), OperatorFault.PASSWORD_UNACCEPTABLE),
    ):
        with pytest.raises(OperatorError) as refused:
            await act
        assert refused.value.fault is fault
    assert await pg.fetch("SELECT * FROM operators") == before


async def test_a_file_and_an_account_that_change_at_once_wait_for_one_another(
    road: Road, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    db = road.parts.database
    await operators.add(db, "gina", Role.ANALYST, None, PASSWORD)
    file = parse(
        "[[functions]]\ncode = 'bus'\nlabel = 'Bus'\n[[operators]]\nusername = 'gina'\nrole = 'gate'\n"
    )
    put_operator = catalog.put_operator
    others: list[asyncio.Task[None]] = []

    async def one_waits() -> bool:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return bool(await pg.fetchval(f"{waiting} AND datname = current_database()"))

    async def disabled_meanwhile(*arguments: Any) -> None:
        others.append(asyncio.create_task(operators.disable(db, "gina")))
        await eventually(one_waits)
        await put_operator(*arguments)

    monkeypatch.setattr(catalog, "put_operator", disabled_meanwhile)
    await apply(road.parts.bulk_database, road.parts.stock, file)
    await asyncio.gather(*others)
    row = await pg.fetchrow("SELECT role, enabled FROM operators")
    assert row is not None and tuple(row) == ("gate", False)
