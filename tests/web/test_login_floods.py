"""Floods of logins: honest staff gets in while one address, or many, ask all the time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from server.domain.catalog import Role
from server.domain.errors import Refusal
from server.flows import staff
from server.flows.staff import StaffDoor
from server.limits import LOGINS_FROM_MAX
from server.web import appkeys
from tests.conftest import eventually
from tests.road import PASSWORD, PATIENCE_S, Road

FLOOD = 400


@pytest.fixture
async def door(road: Road) -> StaffDoor:
    for name in ("gina", "ben"):
        await road.staff(name, Role.GATE)
    return road.app[appkeys.STAFF_DOOR]


@asynccontextmanager
async def flood(door: StaffDoor, address: Callable[[int, int], str]) -> AsyncIterator[Counter[str]]:
    """So many strangers at once, each with a name of its own, who ask again and again; what they are told."""
    told: Counter[str] = Counter()

    async def ask(number: int) -> None:
        turn = 0
        while True:
            turn += 1
            try:
                await door.enter(f"name-{number}", "not the password", address(number, turn))
            except Refusal as refusal:
                told[refusal.code.name] += 1
            await asyncio.sleep(0.005)

    strangers = [asyncio.create_task(ask(number)) for number in range(FLOOD)]
    try:
        await asyncio.sleep(0.2)
        yield told
    finally:
        for each in strangers:
            each.cancel()
        await asyncio.gather(*strangers, return_exceptions=True)


async def staff_tries(
    door: StaffDoor, username: str, address: str, device: str | None = None, *, times: int = 25
) -> Counter[str]:
    """What a member of the staff is told who logs in ten times a second."""
    told: Counter[str] = Counter()
    for _ in range(times):
        try:
            await door.enter(username, PASSWORD, address, device)
            told["in"] += 1
        except Refusal as refusal:
            told[refusal.code.name] += 1
        await asyncio.sleep(0.1)
    return told


def nearly_all(told: Counter[str]) -> bool:
    return told["in"] >= 0.95 * told.total()


async def test_a_flood_from_one_address_keeps_out_nobody_elsewhere_and_no_known_device(
    door: StaffDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staff, "verify_password", lambda password, phc: password == PASSWORD)
    await door.enter("gina", PASSWORD, "198.51.100.7")
    async with flood(door, lambda number, turn: "203.0.113.9") as flooded:
        gina, stranger, ben = await asyncio.gather(
            staff_tries(door, "gina", "198.51.100.7"),
            staff_tries(door, "ben", "198.51.100.8"),  # for the first time from there
            staff_tries(door, "ben", "203.0.113.9", "device"),
        )

        async def a_flood() -> bool:
            return flooded["TOO_MANY_ATTEMPTS"] > FLOOD and flooded["LOGIN_FAILED"] >= 100

        await eventually(a_flood)
    assert all(map(nearly_all, (gina, stranger, ben))), (gina, stranger, ben, flooded)


async def test_a_flood_from_many_addresses_leaves_places_for_known_devices(
    door: StaffDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passwords are hashed here, as slowly as ever: the queue for it is full of strangers."""
    monkeypatch.setattr(staff, "PASSWORD_WAIT_S_MAX", PATIENCE_S)
    async with flood(
        door, lambda number, turn: f"203.{turn % 250}.{number // 250}.{number % 250}"
    ) as flooded:

        async def full() -> bool:
            waiting = door._waiting >= staff.PASSWORD_QUEUE_STRANGERS_MAX - 4
            return waiting and flooded["OVERLOADED"] > FLOOD

        await eventually(full)
        ben = await staff_tries(door, "ben", "192.0.2.1", "device", times=2)
        await eventually(full)
    assert ben == {"in": 2}, (ben, flooded)


async def test_one_address_has_a_few_places_and_whoever_is_done_gives_theirs_back(
    door: StaffDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()

    async def wait(*given: object, **named: object) -> tuple[Role, int]:
        await go_on.wait()
        return Role.GATE, 1

    monkeypatch.setattr(door, "_enter", wait)
    first = [asyncio.create_task(door.enter("gina", PASSWORD, "a")) for _ in range(LOGINS_FROM_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Refusal, match="Too many requests"):
        await door.enter("gina", PASSWORD, "a")
    other = asyncio.create_task(door.enter("gina", PASSWORD, "a", "device"))
    await asyncio.sleep(0)
    go_on.set()
    assert await asyncio.gather(*first, other) == [(Role.GATE, 1)] * (LOGINS_FROM_MAX + 1)
    await door.enter("gina", PASSWORD, "a")
    assert not door._entering, "no address is remembered"
