"""One ticket, many gates at the same moment: each use is spent once, and a retry hears what was said first."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from server.domain.catalog import Role
from server.hot import keys
from server.store import catalog
from server.web import appkeys
from tests.conftest import Audit, Serve
from tests.road import Answer, Road

GATES = 64


async def many_qrs(road: Road, code: str) -> list[str]:
    """A QR token of its own for every gate."""
    return [await road.qr(code), *(road.sealed(code) for _ in range(GATES - 1))]


def reasons(answers: list[Answer]) -> Counter[str]:
    """How often each verdict was told; every answer must be one."""
    assert {answer.status for answer in answers} == {200}, answers[0]
    return Counter(answer.json.get("reason", "SUCCESS") for answer in answers)


async def recorded(pg: asyncpg.Connection[Any], code: str) -> Counter[str]:
    """How often each verdict on the ticket stands in the record."""
    rows = await pg.fetch("SELECT reason FROM redemption_events WHERE ticket_code = $1", code)
    return Counter(row["reason"] or "SUCCESS" for row in rows)


async def left(pg: asyncpg.Connection[Any], code: str) -> dict[str, int]:
    """What is left on the ticket according to the record."""
    rows = await pg.fetch(
        "SELECT function_code, remaining_uses FROM entitlements WHERE ticket_code = $1", code
    )
    return {row["function_code"]: row["remaining_uses"] for row in rows}


@pytest.mark.parametrize("uses", [1, 3, 10])
async def test_a_ticket_passes_as_often_as_it_has_uses_however_many_gates_scan_it_at_once(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit, uses: int
) -> None:
    (ticket,) = await road.buy({await road.product({"bus": uses, "ferry": 1}): 1})
    code = ticket["ticket_code"]
    qrs = await many_qrs(road, code)
    await road.gate()
    answers = await asyncio.gather(*(road.scan(qr, "bus") for qr in qrs))

    told = Counter({"SUCCESS": uses, "NO_REMAINING": GATES - uses})
    assert reasons(answers) == told
    passed = [answer.json["remaining_uses"] for answer in answers if answer.json["result"] == "success"]
    assert sorted(passed) == list(range(uses))
    assert len({answer.json["event_id"] for answer in answers}) == GATES
    await audit(road)
    assert await recorded(pg, code) == told
    assert await left(pg, code) == {"bus": 0, "ferry": 1}


async def test_the_last_use_of_the_last_function_redeems_the_ticket(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    (ticket,) = await road.buy({await road.product({"bus": 1, "ferry": 1}): 1})
    code = ticket["ticket_code"]
    first, last = [await road.scan(await road.qr(code), function) for function in ("bus", "ferry")]

    assert (first.json["ticket_status"], last.json["ticket_status"]) == ("ACTIVE", "REDEEMED")
    await road.flushed()
    assert await pg.fetchval("SELECT status FROM tickets WHERE code = $1", code) == "REDEEMED"
    late = await road.scan(await road.qr(code), "bus")
    assert (late.json["reason"], late.json["ticket_status"]) == ("NO_REMAINING", "REDEEMED")


async def test_one_qr_at_many_gates_passes_once_and_the_others_hear_where_it_did(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    await road.venue("pier", ["bus"])
    (ticket,) = await road.buy({await road.product({"bus": 10}): 1})
    code = ticket["ticket_code"]
    qr = await road.qr(code)
    await road.gate()
    answers = await asyncio.gather(
        *(road.scan(qr, "bus", venue_code="pier", terminal_device_id=f"gate-{n}") for n in range(GATES))
    )

    told = Counter({"SUCCESS": 1, "ALREADY_REDEEMED": GATES - 1})
    assert reasons(answers) == told
    (winner,) = [answer for answer in answers if answer.json["result"] == "success"]
    first = {
        "event_id": winner.json["event_id"],
        "ts": winner.json["ts"],
        "venue_code": "pier",
        "terminal_device_id": f"gate-{answers.index(winner)}",
    }
    assert all(answer.json["first_redemption"] == first for answer in answers if answer is not winner)
    await audit(road)
    assert await recorded(pg, code) == told
    assert await left(pg, code) == {"bus": 9}


async def test_one_qr_opens_each_function_of_its_ticket_once(road: Road) -> None:
    (ticket,) = await road.buy({await road.product({"bus": 2, "ferry": 2}): 1})
    qr = await road.qr(ticket["ticket_code"])
    told = [(await road.scan(qr, function)).json for function in ("bus", "ferry", "bus", "ferry")]

    assert [each.get("reason") for each in told] == [None, None, "ALREADY_REDEEMED", "ALREADY_REDEEMED"]
    assert [each["remaining_uses"] for each in told] == [1, 1, 1, 1]


async def test_one_scan_id_sent_many_times_at_once_spends_once_and_is_answered_equally(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    (ticket,) = await road.buy({await road.product({"bus": 10}): 1})
    code = ticket["ticket_code"]
    qr = await road.qr(code)
    await road.gate()
    answers = await asyncio.gather(*(road.scan(qr, "bus", scan_id="once") for _ in range(GATES)))

    assert {answer.raw for answer in answers} == {answers[0].raw}
    assert answers[0].json["result"] == "success"
    await audit(road)
    assert await recorded(pg, code) == Counter({"SUCCESS": 1})
    assert await left(pg, code) == {"bus": 9}


async def test_two_servers_on_the_same_databases_are_one_gate(
    serve: Serve, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    one, other = await serve(), await serve()
    (ticket,) = await one.buy({await one.product({"bus": 3, "ferry": 3, "museum": 9}): 1})
    code = ticket["ticket_code"]
    qrs = await many_qrs(one, code)
    gate = await one.gate()
    await other.parts.directory.refresh()

    async def scan(number: int, token: str, function: str, scan_id: str) -> Answer:
        road = (one, other)[number % 2]
        body = {"qr_token": token, "function_code": function, "scan_id": scan_id}
        return await road.call("POST", "/venue/scan", headers=gate, json=body)

    fresh = await asyncio.gather(*(scan(n, qr, "bus", uuid4().hex) for n, qr in enumerate(qrs)))
    same_qr = await asyncio.gather(*(scan(n, qrs[0], "ferry", uuid4().hex) for n in range(GATES)))
    same_scan = await asyncio.gather(*(scan(n, qrs[0], "museum", "shared") for n in range(GATES)))

    assert reasons(fresh) == Counter({"SUCCESS": 3, "NO_REMAINING": GATES - 3})
    assert reasons(same_qr) == Counter({"SUCCESS": 1, "ALREADY_REDEEMED": GATES - 1})
    assert {answer.raw for answer in same_scan} == {same_scan[0].raw}
    assert same_scan[0].json["result"] == "success"
    await audit(one)
    assert await left(pg, code) == {"bus": 0, "ferry": 2, "museum": 8}
    assert (await recorded(pg, code))["SUCCESS"] == 5


@pytest.mark.parametrize("first", ["success", "reject"])
async def test_a_repeated_scan_id_hears_its_first_verdict_whatever_has_changed_since(
    road: Road, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    await road.venue("pier", ["bus", "ferry"])
    await road.venue("hall", ["museum"])
    (ticket,) = await road.buy({await road.product({"bus": 1}): 1})
    code = ticket["ticket_code"]
    gate = await road.gate(venue="pier")
    qr = await road.qr(code)
    function = "bus" if first == "success" else "ferry"
    told = await road.scan(qr, function, scan_id="again")
    assert told.json["result"] == first

    # Every rule says otherwise by now: the uses ran out, the operator stands elsewhere, the QR is over.
    await road.scan(await road.qr(code), "bus")
    async with road.parts.database.transaction() as connection:
        await catalog.put_operator(connection, "gina", Role.GATE, "hall")
    await road.parts.directory.refresh()
    admission = road.app[appkeys.ADMISSION]
    monkeypatch.setattr(admission, "_now", lambda: time.time() + road.config.qr_ttl_s + 1)
    new = {"qr_token": qr, "function_code": function, "scan_id": "new"}
    assert (await road.call("POST", "/venue/scan", headers=gate, json=new)).json["reason"] == "QR_EXPIRED"
    before = await road.parts.streams.last_id("{s00}:redemptions")

    assert (await road.scan(qr, function, scan_id="again")).raw == told.raw
    assert (await road.scan(qr, function, scan_id="again", venue_code="nowhere")).raw == told.raw
    assert (await road.scan(await road.qr(code), function, scan_id="again")).raw == told.raw
    assert await road.parts.streams.last_id("{s00}:redemptions") == before


async def test_a_scan_id_that_redis_forgot_still_passes_once(road: Road, pg: asyncpg.Connection[Any]) -> None:
    """What a scan_id was told is kept for a day; that it spent this QR, as long as the ticket's hash."""
    (ticket,) = await road.buy({await road.product({"bus": 3}): 1})
    qr = await road.qr(ticket["ticket_code"])
    told = await road.scan(qr, "bus", scan_id="old")
    assert sum([await road.parts.redis.hdel(said, "old") for said in keys.said(0)]) == 1

    assert (await road.scan(qr, "bus", scan_id="old")).raw == told.raw
    await road.flushed()
    assert await recorded(pg, ticket["ticket_code"]) == Counter({"SUCCESS": 1})


async def test_a_scan_id_used_for_another_ticket_or_function_is_a_conflict_and_changes_nothing(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    product = await road.product({"bus": 2, "ferry": 2})
    ann, bob = [(await road.buy({product: 1}, buyer=name))[0]["ticket_code"] for name in ("ann", "bob")]
    anns, bobs = await road.qr(ann), await road.qr(bob, buyer="bob")
    told = await road.scan(anns, "bus", scan_id="mine")
    refused = [
        await road.scan(anns, "ferry", scan_id="mine"),
        await road.scan(bobs, "bus", scan_id="mine"),
        await road.scan("not a token", "bus", scan_id="mine"),
    ]

    assert [(each.status, each.json["code"]) for each in refused] == [(409, "SCAN_ID_CONFLICT")] * 3
    assert (await road.scan(anns, "bus", scan_id="mine")).raw == told.raw
    await road.flushed()
    assert await pg.fetchval("SELECT count(*) FROM redemption_events") == 1
    assert [await left(pg, code) for code in (ann, bob)] == [{"bus": 1, "ferry": 2}, {"bus": 2, "ferry": 2}]
    # And the other way round: what an unreadable token was told is not handed to a ticket.
    await road.scan("not a token", "bus", scan_id="unread")
    assert (await road.scan(anns, "bus", scan_id="unread")).json["code"] == "SCAN_ID_CONFLICT"


async def test_many_gates_at_a_ticket_that_redis_does_not_have_load_it_and_spend_it_rightly(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    (ticket,) = await road.buy({await road.product({"bus": 5}): 1})
    code = ticket["ticket_code"]
    qrs = await many_qrs(road, code)
    await road.gate()
    await road.flushed()  # the ticket has been published: from now on only a scan can load it
    assert reasons([await road.scan(qrs[0], "bus")]) == Counter({"SUCCESS": 1})
    # That redemption may still be on its way to Postgres: loading must wait for it.
    assert await road.parts.redis.delete(f"{{s00}}:t:{code}") == 1
    answers = await asyncio.gather(*(road.scan(qr, "bus") for qr in qrs))

    assert reasons(answers) == Counter({"SUCCESS": 4, "NO_REMAINING": GATES - 5, "ALREADY_REDEEMED": 1})
    await audit(road)
    assert await left(pg, code) == {"bus": 0}
