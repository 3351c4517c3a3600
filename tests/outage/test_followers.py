"""What follows the databases in the background goes on following, whatever happens to it."""

from __future__ import annotations

from typing import Any

import pytest

from server.domain.catalog import Role
from server.hot.backlog import Backlog
from server.store import catalog
from tests.conftest import Serve, eventually
from tests.road import Road


async def test_a_disabled_operator_is_out_even_after_the_follower_met_an_unexpected_fault(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = await road.gate()
    before = await road.alerts("DIRECTORY_STALE")
    read, faults = catalog.directory_version, 0

    async def fail_twice(connection: Any) -> int:
        nonlocal faults
        faults += 1
        if faults <= 2:
            raise ArithmeticError("unexpected")
        return await read(connection)

    monkeypatch.setattr(catalog, "directory_version", fail_twice)
    async with road.parts.database.transaction() as connection:
        assert await catalog.disable_operator(connection, "gina")

    async def out() -> bool:
        return (await road.call("GET", "/venue", headers=gate)).status == 401

    await eventually(out)
    assert await road.alerts("DIRECTORY_STALE") == before + 1, "once per outage"


async def test_an_operator_moved_to_another_role_loses_the_old_one(road: Road) -> None:
    gate = await road.gate()
    async with road.parts.database.transaction() as connection:
        await catalog.put_operator(connection, "gina", Role.ANALYST, None)

    async def out() -> bool:
        return (await road.call("GET", "/venue", headers=gate)).status == 401

    await eventually(out)


async def test_the_watch_over_the_backlog_goes_on_after_an_unexpected_fault(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    road = await serve()
    look, looks = Backlog.look, 0

    async def fail_once(self: Backlog) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise KeyError("run_id")
        await look(self)

    before = await road.alerts("BACKLOG_UNSEEN")
    monkeypatch.setattr(Backlog, "look", fail_once)

    async def seen_again() -> bool:
        return looks >= 2

    await eventually(seen_again)
    assert await road.alerts("BACKLOG_UNSEEN") == before + 1
