"""Logs of a real process at its most talkative, over a whole road and everything that goes wrong on it.

No secret, password, token, QR or signature may stand in any line, also not in what an exception brings along.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest
from aiohttp import ClientSession
from yarl import URL

from server import config as configuration
from server.app import open_parts
from server.hot.backlog import Backlog
from server.web.auth import Audience, Tokens
from tests.conftest import eventually
from tests.road import PASSWORD, Road
from tests.web.process import gateline

WRONG_PASSWORD = "the wrong horse battery"


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What one run of the road leaves for the tests of this file."""
    return {}


async def _walk(road: Road, secrets: set[str], pg: asyncpg.Connection[Any]) -> None:
    """The road, and beside it: wrong logins, forged tokens, junk, and tables that are gone for a moment."""
    await road.until_ready()
    await road.venue("pier-1", ["bus"])
    gate, analyst, buyer = await road.gate(), await road.analyst(), road.buyer()
    product = await _on_sale(road, await road.product({"bus": 2}))
    (ticket,) = await road.buy({product: 1})
    shown = await road.call("POST", f"/qr/{ticket['ticket_code']}?image=svg", headers=road.buyer())
    token = shown.json["qr_token"]
    secrets |= {token, token[10:60], token.lower()}
    passed = await road.scan(token, "bus", venue_code="pier-1")
    assert passed.json["result"] == "success", passed
    secrets |= {each["Authorization"].removeprefix("Bearer ") for each in (gate, analyst, buyer)}
    demo = await road.call("POST", "/auth/demo/login", json={"buyer": "ann"})
    secrets.add(demo.json["token"])
    await road.call("POST", "/qr/decrypt", headers=gate, json={"qr_token": token})
    await road.call("GET", "/reports/redemptions?format=csv", headers=analyst)
    for login in (
        {"username": "gina", "password": WRONG_PASSWORD},
        {"username": "x", "password": WRONG_PASSWORD},
    ):
        assert (await road.call("POST", "/operators/login", json=login)).status == 401
    forged = Tokens((("k1", b"\x07" * 32),)).issue(Audience.GATE, "gina", seconds=60)
    secrets.add(forged)
    assert (await road.call("GET", "/venue", headers={"Authorization": f"Bearer {forged}"})).status == 401
    order = (await road.order({product: 1})).json["order_id"]
    assert (await road.notify(order, 1, txn="txn-mismatch")).status == 409  # an alert
    assert (await road.notify(order, 1000, secret=b"\x09" * 32)).status == 401
    _say_junk(road.url, gate["Authorization"])
    await _with_missing_tables(road, token, pg)


async def _on_sale(road: Road, product: int) -> int:
    """The product, once the other process has seen it."""

    async def followed() -> bool:
        shown = (await road.call("GET", "/catalog")).json["products"]
        return product in [each["id"] for each in shown]

    await eventually(followed)
    return product


def _say_junk(url: str, authorization: str) -> None:
    """What is no HTTP, from a client that sends its token with it."""
    address = URL(url)
    assert address.host is not None and address.port is not None
    for junk in ("\x00", "\x00" * 50, "x" * 9_000):
        with socket.create_connection((address.host, address.port)) as connection:
            connection.sendall(
                f"GET /venue HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}{junk}\r\n\r\n".encode()
            )
            assert b" 400 " in connection.recv(1_000)


async def _with_missing_tables(road: Road, token: str, pg: asyncpg.Connection[Any]) -> None:
    """Failures that no one expected, where tokens, passwords and signed bodies are on the stack."""
    product = await _on_sale(road, await road.product({"bus": 1}))
    order = (await road.order({product: 1})).json["order_id"]
    await road.flushed()
    for table in ("operators", "tickets", "orders"):
        await pg.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
    try:
        failures = [
            await road.call("POST", "/operators/login", json={"username": "gina", "password": PASSWORD}),
            await road.call("POST", "/qr/decrypt", headers=await road.gate(), json={"qr_token": token}),
            await road.call("GET", f"/orders/{order}", headers=road.buyer()),
            await road.notify(order, 1000, txn="txn-with-missing-table"),
        ]
    finally:
        for table in ("operators", "tickets", "orders"):
            await pg.execute(f"ALTER TABLE {table}_away RENAME TO {table}")
    assert [answer.status for answer in failures] == [500] * 4, failures


@pytest.fixture
async def logged(
    kept: dict[str, Any],
    environment: dict[str, str],
    database_url: str,
    pg: asyncpg.Connection[Any],
    tmp_path: Path,
) -> tuple[list[str], set[str]]:
    """Every line of one process that has seen everything, and what must not stand in any."""
    if not kept:
        environment |= {"GATELINE_LOG_LEVEL": "debug", "GATELINE_DATA_DIR": str(tmp_path)}
        config = configuration.load(environment)
        secrets = {PASSWORD, WRONG_PASSWORD, "$argon2id$", "v1=", "Bearer ", "Authorization"}
        for name in ("GATELINE_JWT_KEYS", "GATELINE_QR_KEYS", "GATELINE_GATEWAY_SECRETS"):
            secrets.add(environment[name].partition(":")[2] or environment[name])
        for name in ("REDIS_URL", "DATABASE_URL"):
            secrets.add(URL(environment[name]).password or environment[name])
        request_id = uuid4().hex
        async with (
            gateline(environment, "--with-jobs") as process,
            open_parts(config) as parts,
            ClientSession(base_url=process.address) as session,
        ):
            backlog = Backlog(
                parts.streams, parts.epochs, parts.stream_names, entries_max=10**9, memory_mb_max=0
            )
            await _walk(Road(session, config, parts, backlog, url=process.address), secrets, pg)
            await session.get("/catalog", headers={"X-Request-Id": request_id})
        kept["lines"], kept["secrets"], kept["request_id"] = process.lines, secrets, request_id
    return kept["lines"], kept["secrets"]


async def test_no_secret_password_token_qr_or_signature_stands_in_any_line(
    logged: tuple[list[str], set[str]],
) -> None:
    lines, secrets = logged
    assert len(secrets) > 15 and all(len(secret) >= 3 for secret in secrets)
    told = [(secret, line) for line in lines for secret in secrets if secret in line]
    assert not told, sorted({secret[:24] for secret, _ in told})
    jwt = re.compile(r"eyJ[A-Za-z0-9_-]{20,}\.")  # any token, also one that was cut
    assert not [line for line in lines if jwt.search(line)]


async def test_every_line_is_one_json_object_with_level_time_and_event(
    logged: tuple[list[str], set[str]],
) -> None:
    events = [msgspec.json.decode(line) for line in logged[0]]
    assert len(events) > 30
    for event in events:
        assert event["level"] in ("debug", "info", "warning", "error")
        assert event["timestamp"].endswith("Z")
        assert event["event"]


async def test_every_request_is_one_line_with_its_id_route_and_status(
    logged: tuple[list[str], set[str]], kept: dict[str, Any]
) -> None:
    requests = [event for event in map(msgspec.json.decode, logged[0]) if event["event"] == "request"]
    for request in requests:
        assert len(request["request_id"]) >= 8
        assert set(request) >= {"method", "route", "status", "ms"}
    seen = {(request["method"], request["route"]) for request in requests}
    assert {("POST", "/venue/scan"), ("POST", "/operators/login"), ("GET", "/readyz")} <= seen
    assert len([request for request in requests if request["request_id"] == kept["request_id"]]) == 1
    assert all("{" in route or "01" not in route for _, route in seen)  # the route, not the ids of a buyer


async def test_what_no_one_expected_is_found_by_its_request_id_with_the_place_where_it_failed(
    logged: tuple[list[str], set[str]],
) -> None:
    events = [msgspec.json.decode(line) for line in logged[0]]
    failures = [event for event in events if event["event"] == "request_failed"]
    assert len(failures) == 4
    for failure in failures:
        assert failure["request_id"] and failure["level"] == "error"
        innermost = failure["exception"][0]
        assert innermost["exc_type"] == "UndefinedTableError"
        assert any(frame["filename"].endswith("endpoint.py") for frame in innermost["frames"])
        assert not any(frame.get("locals") for frame in innermost["frames"])


async def test_what_is_no_http_is_a_warning_of_one_line_without_what_was_sent(
    logged: tuple[list[str], set[str]],
) -> None:
    events = [msgspec.json.decode(line) for line in logged[0]]
    junk = [event for event in events if event["event"] == "not_http"]
    assert len(junk) == 3
    assert {event["level"] for event in junk} == {"warning"}
    assert {event["kind"] for event in junk} == {"BadHttpMessage", "LineTooLong"}


async def test_an_alert_is_an_error_that_names_the_order_and_says_what_is_wrong(
    logged: tuple[list[str], set[str]],
) -> None:
    alerts = [event for event in map(msgspec.json.decode, logged[0]) if event["event"] == "alert"]
    (mismatch,) = [event for event in alerts if event["alert"] == "PAYMENT_AMOUNT_MISMATCH"]
    assert mismatch["level"] == "error" and mismatch["gateway_txn_id"] == "txn-mismatch"
    assert mismatch["request_id"]
