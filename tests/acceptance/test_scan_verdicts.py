"""Every refusal of a gate: what it is told, what is recorded of it, and that it consumes nothing."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg

from server.domain.ids import new_ticket_code
from server.domain.qr import QrKeys, issue
from server.domain.redemption import Verdict
from tests.conftest import Audit
from tests.road import Road

FOREIGN_KEY = QrKeys({1: secrets.token_bytes(32)})
RETIRED_KEY = QrKeys({200: secrets.token_bytes(32)})


def mint(road: Road, code: str, *, age_s: int = 0, keys: QrKeys | None = None) -> str:
    """A token as the server makes it, `age_s` seconds old."""
    now_ms = int(time.time() * 1000) - age_s * 1000
    return issue(keys or QrKeys(dict(road.config.qr_keys)), code, now_ms=now_ms, ttl_ms=60_000).token


# --- one presentation per refusal, of a ticket for two bus rides: the token, and what the gate sends with it ----

Presentation = tuple[str, dict[str, str]]


def malformed(road: Road, code: str) -> Presentation:
    return "https://example.org/not-a-ticket", {"function": "bus"}


def tampered(road: Road, code: str) -> Presentation:
    return mint(road, code, keys=FOREIGN_KEY), {"function": "bus"}


def unknown_key(road: Road, code: str) -> Presentation:
    return mint(road, code, keys=RETIRED_KEY), {"function": "bus"}


def unknown_ticket(road: Road, code: str) -> Presentation:
    return mint(road, new_ticket_code()), {"function": "bus"}


def expired_qr(road: Road, code: str) -> Presentation:
    return mint(road, code, age_s=61), {"function": "bus"}


def wrong_function(road: Road, code: str) -> Presentation:
    return mint(road, code), {"function": "ferry"}


def unknown_venue(road: Road, code: str) -> Presentation:
    return mint(road, code), {"function": "bus", "venue_code": "nowhere"}


def wrong_venue(road: Road, code: str) -> Presentation:
    return mint(road, code), {"function": "bus", "venue_code": "hall"}


def wrong_home_venue(road: Road, code: str) -> Presentation:
    return mint(road, code), {"function": "bus", "gate": "hal"}


REFUSALS = (  # how it is presented, what is told, and whether a known ticket is concerned
    (malformed, "QR_MALFORMED", False),
    (tampered, "QR_TAMPERED", False),
    (unknown_key, "QR_UNKNOWN_KEY", False),
    (unknown_ticket, "TICKET_NOT_FOUND", False),
    (expired_qr, "QR_EXPIRED", True),
    (wrong_function, "WRONG_FUNCTION", True),
    (unknown_venue, "VENUE_NOT_FOUND", True),
    (wrong_venue, "WRONG_VENUE_FUNCTION", True),
    (wrong_home_venue, "WRONG_VENUE_FUNCTION", True),
)


async def test_a_refusal_consumes_nothing_and_is_recorded_once_when_it_concerns_a_known_ticket(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    product = await road.product({"bus": 2}, sellable=len(REFUSALS))
    await road.venue("hall", ["museum"])
    await road.gate("hal", venue="hall")
    for present, reason, recorded in REFUSALS:
        (ticket,) = await road.buy({product: 1})
        code = ticket["ticket_code"]
        token, asked = present(road, code)
        scan = {"scan_id": uuid4().hex, **asked}
        told, repeated = await road.scan(token, **scan), await road.scan(token, **scan)

        assert told.status == 200, told
        assert (told.json["result"], told.json["reason"]) == ("reject", reason)
        assert "first_redemption" not in told.json
        assert repeated.raw == told.raw, reason
        await road.flushed()
        events = await pg.fetch("SELECT * FROM redemption_events WHERE scan_id = $1", told.json["scan_id"])
        if recorded:
            assert (told.json["ticket_code"], told.json["ticket_status"]) == (code, "ACTIVE")
            assert [(e["event_id"], e["ticket_code"], e["result"], e["reason"]) for e in events] == [
                (told.json["event_id"], code, "reject", reason)
            ]
            assert told.json["entitlements"] == ticket["entitlements"]
        else:
            assert events == [], reason
            assert told.json["event_id"] is None
            assert told.json["ticket_status"] is None
            assert told.json["entitlements"] == []
        assert await pg.fetchval("SELECT remaining_uses FROM entitlements WHERE ticket_code = $1", code) == 2
        assert (await road.scan(mint(road, code), "bus")).json["remaining_uses"] == 1
    await audit(road)


def test_every_verdict_of_the_contract_is_shown_in_this_file() -> None:
    elsewhere = {"SUCCESS", "TICKET_NOT_VALID", "ALREADY_REDEEMED", "NO_REMAINING"}
    assert {reason for _, reason, _ in REFUSALS} | elsewhere == set(Verdict.__members__)


HOUR = timedelta(hours=1)


async def test_outside_its_validity_a_ticket_does_not_pass(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    now = datetime.now(UTC)
    for valid_from, valid_until, status in (
        (now + HOUR, None, "NOT_YET_VALID"),
        (None, now - HOUR, "EXPIRED"),
        (now - 2 * HOUR, now - HOUR, "EXPIRED"),
    ):
        product = await road.product({"bus": 1}, valid_from=valid_from, valid_until=valid_until)
        (ticket,) = await road.buy({product: 1})
        told = await road.scan(mint(road, ticket["ticket_code"]), "bus")

        assert (told.json["reason"], told.json["ticket_status"]) == ("TICKET_NOT_VALID", status)
        assert told.json["remaining_uses"] == 1
    await audit(road)
    recorded = await pg.fetch("SELECT reason, ticket_status FROM redemption_events ORDER BY decided_at")
    assert [tuple(row) for row in recorded] == [
        ("TICKET_NOT_VALID", "NOT_YET_VALID"),
        ("TICKET_NOT_VALID", "EXPIRED"),
        ("TICKET_NOT_VALID", "EXPIRED"),
    ]


async def test_inside_its_validity_a_ticket_passes(road: Road) -> None:
    now = datetime.now(UTC)
    product = await road.product({"bus": 1}, valid_from=now - HOUR, valid_until=now + HOUR, valid_days=1)
    (ticket,) = await road.buy({product: 1})

    assert (await road.scan(mint(road, ticket["ticket_code"]), "bus")).json["result"] == "success"


async def test_a_void_ticket_does_not_pass(road: Road, pg: asyncpg.Connection[Any], audit: Audit) -> None:
    (ticket,) = await road.buy({await road.product({"bus": 1}): 1})
    code = ticket["ticket_code"]
    await road.flushed()
    await pg.execute("UPDATE tickets SET status = 'VOID' WHERE code = $1", code)
    await road.parts.redis.delete(f"{{s00}}:t:{code}")  # the gate learns of it when it loads the ticket
    told = await road.scan(mint(road, code), "bus")

    assert (told.json["reason"], told.json["ticket_status"]) == ("TICKET_NOT_VALID", "VOID")
    shown = await road.call("POST", f"/qr/{code}", headers=road.buyer())
    assert (shown.status, shown.json["code"]) == (409, "TICKET_NOT_USABLE")
    await audit(road)
    assert await pg.fetchval("SELECT reason FROM redemption_events") == "TICKET_NOT_VALID"
    assert await pg.fetchval("SELECT status FROM tickets") == "VOID"


async def test_a_qr_shown_again_is_told_so_even_when_no_use_is_left(road: Road) -> None:
    (ticket,) = await road.buy({await road.product({"bus": 1}): 1})
    qr = mint(road, ticket["ticket_code"])
    passed = await road.scan(qr, "bus")
    again, other = await road.scan(qr, "bus"), await road.scan(mint(road, ticket["ticket_code"]), "bus")

    assert again.json["reason"] == "ALREADY_REDEEMED"
    assert again.json["first_redemption"]["event_id"] == passed.json["event_id"]
    assert other.json["reason"] == "NO_REMAINING"
    assert "first_redemption" not in other.json


async def test_a_refused_qr_may_pass_where_the_refusal_does_not_hold(road: Road) -> None:
    """A refusal at the wrong door does not spend the QR."""
    await road.venue("hall", ["museum"])
    await road.venue("stop", ["bus"])
    (ticket,) = await road.buy({await road.product({"bus": 1}): 1})
    qr = mint(road, ticket["ticket_code"])
    told = [(await road.scan(qr, "bus", venue_code=venue)).json for venue in ("hall", "stop")]

    assert [each.get("reason") for each in told] == ["WRONG_VENUE_FUNCTION", None]


async def test_a_scan_without_an_id_gets_one_that_can_be_repeated(road: Road) -> None:
    (ticket,) = await road.buy({await road.product({"bus": 3}): 1})
    body = {"qr_token": mint(road, ticket["ticket_code"]), "function_code": "bus"}
    told = await road.call("POST", "/venue/scan", headers=await road.gate(), json=body)

    assert told.json["result"] == "success"
    again = await road.scan(body["qr_token"], "bus", scan_id=told.json["scan_id"])
    assert again.raw == told.raw
