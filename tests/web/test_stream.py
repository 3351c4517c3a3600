"""The socket lane: many scans of one gate under way, each answered as the other lanes would, by its scan_id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, WSServerHandshakeError
from redis.asyncio import Redis

from server.domain.catalog import Role
from server.limits import STREAM_SCANS_MAX
from server.web.auth import Audience
from tests.conftest import Audit, Serve, redis_held
from tests.road import PATIENCE_S, Road

Postgres: TypeAlias = "asyncpg.Connection[Any]"
SENT_AWAY_S_MAX = 10.0  # half a second is usual, and without looking it would be never


@asynccontextmanager
async def a_gate(
    road: Road, operator: str = "gina", **options: Any
) -> AsyncIterator[ClientWebSocketResponse]:
    """An open socket."""
    options.setdefault("headers", await road.gate(operator))
    async with ClientSession(road.url) as session, session.ws_connect("/venue/stream", **options) as socket:
        yield socket


def frame(token: str, function: str = "bus", **more: Any) -> str:
    """A scan as a gate sends it."""
    return json.dumps({"qr_token": token, "function_code": function, "scan_id": uuid4().hex, **more})


async def told(socket: ClientWebSocketResponse, frames: list[str]) -> dict[str, dict[str, Any]]:
    """Send them all at once; the answers by scan_id."""
    for each in frames:
        await socket.send_str(each)
    answers = [json.loads((await socket.receive(PATIENCE_S)).data) for _ in frames]
    return {answer["scan_id"]: answer for answer in answers}


async def tokens(road: Road, uses: int, tickets: int = 1) -> list[str]:
    """A QR of each of so many tickets."""
    product = await road.product({"bus": uses, "ferry": 1}, sellable=1000)
    bought = await road.buy({product: tickets})
    return [await road.qr(ticket["ticket_code"]) for ticket in bought]


async def test_many_scans_at_once_are_all_answered_by_their_ids_and_recorded_once(
    road: Road, pg: Postgres, audit: Audit
) -> None:
    codes = await tokens(road, 1, 40)
    frames = [frame(code, function) for code in codes for function in ("bus", "ferry")]
    async with a_gate(road) as gate:
        answers = await told(gate, frames)

    assert {json.loads(each)["scan_id"] for each in frames} == set(answers)
    assert {answer["result"] for answer in answers.values()} == {"success"}
    await road.flushed()
    assert await pg.fetchval("SELECT count(*) FROM redemption_events WHERE result = 'success'") == 80
    await audit(road)


async def test_a_scan_gets_one_verdict_whichever_lane_asks_first(road: Road) -> None:
    (token,) = await tokens(road, 2)
    scan = {"qr_token": token, "function_code": "bus", "scan_id": "the-same", "terminal_device_id": "t-1"}
    async with a_gate(road) as gate:
        await gate.send_str(json.dumps(scan))
        by_socket = (await gate.receive(PATIENCE_S)).data
        by_http = await road.call("POST", "/venue/scan", headers=await road.gate(), json=scan)
        await gate.send_str(json.dumps(scan))
        again = (await gate.receive(PATIENCE_S)).data

    assert by_socket.encode() == by_http.raw == again.encode()
    assert by_http.json["remaining_uses"] == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"scan_id": None}, "VALIDATION_FAILED"),
        ({"function_code": "no such/code"}, "VALIDATION_FAILED"),
        ({"qr_token": 7}, "VALIDATION_FAILED"),
        ({"scan_id": "used-for-another"}, "SCAN_ID_CONFLICT"),
    ],
)
async def test_a_bad_frame_is_answered_with_its_error_and_the_socket_goes_on(
    road: Road, change: dict[str, Any], code: str
) -> None:
    first, second = await tokens(road, 2, 2)
    async with a_gate(road) as gate:
        await told(gate, [frame(second, scan_id="used-for-another")])
        bad = json.loads(frame(first)) | change
        answers = await told(gate, [json.dumps(bad)])
        (error,) = answers.values()
        good = await told(gate, [frame(first)])

    assert error["code"] == code
    assert error["scan_id"] == bad["scan_id"]
    assert error["request_id"]
    assert [answer["result"] for answer in good.values()] == ["success"]


async def test_what_is_no_json_is_answered_and_what_is_no_text_ends_the_socket(road: Road) -> None:
    async with a_gate(road) as gate:
        await gate.send_str("{")
        error = json.loads((await gate.receive(PATIENCE_S)).data)
        await gate.send_bytes(b"{}")
        end = await gate.receive(PATIENCE_S)

    assert (error["code"], error["scan_id"]) == ("INVALID_JSON", None)
    assert (end.type, end.data) == (WSMsgType.CLOSE, 1003)


async def test_a_ticket_that_redis_lost_is_loaded_and_passes(road: Road, redis: Redis) -> None:
    (token,) = await tokens(road, 1)
    await road.flushed()
    for name in await redis.keys("{s*}:t:*"):
        await redis.delete(name)
    async with a_gate(road) as gate:
        answers = await told(gate, [frame(token)])

    assert [answer["result"] for answer in answers.values()] == ["success"]


async def test_a_browser_shows_its_token_among_the_subprotocols(road: Road) -> None:
    (token,) = await tokens(road, 1)
    bearer = (await road.gate())["Authorization"].removeprefix("Bearer ")
    async with a_gate(road, headers={}, protocols=("gateline.v1", f"bearer.{bearer}")) as gate:
        answers = await told(gate, [frame(token)])

    assert gate.protocol == "gateline.v1"
    assert [answer["result"] for answer in answers.values()] == ["success"]


@pytest.mark.parametrize(
    ("who", "status"), [("nobody", 401), ("a buyer", 403), ("an analyst", 403), ("a gate", 101)]
)
async def test_only_gates_may_open_a_socket(road: Road, who: str, status: int) -> None:
    headers = {
        "nobody": {},
        "a buyer": road.buyer(),
        "an analyst": await road.analyst(),
        "a gate": await road.gate(),
    }[who]
    try:
        async with a_gate(road, headers=headers):
            seen = 101
    except WSServerHandshakeError as refused:
        seen = refused.status

    assert seen == status


async def test_who_asks_without_a_websocket_is_told_that_this_is_one(road: Road) -> None:
    answer = await road.call("GET", "/venue/stream", headers=await road.gate())

    assert (answer.status, answer.json["code"]) == (426, "UPGRADE_REQUIRED")
    assert answer.headers["Upgrade"] == "websocket"


async def test_an_operator_disabled_during_the_shift_is_sent_away_within_a_second_also_when_idle(
    road: Road, pg: Postgres
) -> None:
    (token,) = await tokens(road, 5)
    async with a_gate(road, "gus") as gate, a_gate(road, "gina") as other:
        await told(gate, [frame(token)])
        await pg.execute("UPDATE operators SET enabled = false WHERE username = 'gus'")
        end = await gate.receive(SENT_AWAY_S_MAX)
        goes_on = await told(other, [frame(token, "ferry")])

    assert (end.type, end.data, end.extra) == (WSMsgType.CLOSE, 4403, "OPERATOR_DISABLED")
    assert [answer["result"] for answer in goes_on.values()] == ["success"]


async def test_a_socket_ends_with_its_token(road: Road) -> None:
    await road.staff("gina", Role.GATE)
    from server.web import appkeys

    token = road.app[appkeys.TOKENS].issue(Audience.GATE, "gina", seconds=2, generation=1)
    async with a_gate(road, headers={"Authorization": f"Bearer {token}"}) as gate:
        end = await gate.receive(PATIENCE_S)

    assert (end.type, end.data, end.extra) == (WSMsgType.CLOSE, 4401, "TOKEN_EXPIRED")


async def test_a_server_that_stops_answers_what_is_under_way_and_sends_the_gate_away(
    serve: Serve, redis: Redis
) -> None:
    road = await serve()
    codes = await tokens(road, 1, 10)
    async with a_gate(road) as gate:
        async with redis_held(redis):
            for code in codes:
                await gate.send_str(frame(code))
            await gate.send_str("{")  # read behind all of them, and answered without Redis
            assert json.loads((await gate.receive(PATIENCE_S)).data)["code"] == "INVALID_JSON"
            stopping = asyncio.create_task(road.stop())
            await asyncio.sleep(0.1)  # it is being stopped
        heard = [await gate.receive(PATIENCE_S) for _ in range(11)]
        await gate.close()
        await stopping

    assert [json.loads(message.data)["result"] for message in heard[:10]] == ["success"] * 10
    assert (heard[10].type, heard[10].data) == (WSMsgType.CLOSE, 1001)


async def test_a_gate_that_sends_without_end_is_read_only_as_fast_as_it_is_answered(
    road: Road, redis: Redis
) -> None:
    (token,) = await tokens(road, 1)
    count = 16 * STREAM_SCANS_MAX  # more than are under way in Redis at a time
    async with a_gate(road) as gate:
        async with redis_held(redis):
            for _ in range(count):
                await gate.send_str(frame(token))
            await asyncio.sleep(0.2)
            waiting = road.parts.redeemer.waiting()
        answers = [json.loads((await gate.receive(PATIENCE_S)).data) for _ in range(count)]

    assert waiting <= STREAM_SCANS_MAX
    assert sorted(answer["result"] for answer in answers).count("success") == 1
    assert {answer.get("reason") for answer in answers} == {None, "ALREADY_REDEEMED"}


async def test_sockets_and_their_verdicts_are_counted(road: Road) -> None:
    async def metric(name: str) -> float:
        text = (await road.call("GET", "/metrics")).raw.decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    (token,) = await tokens(road, 1)
    frames_name = 'gateline_http_request_seconds_count{route="/venue/stream"}'
    before = await metric('gateline_scans_total{verdict="SUCCESS"}'), await metric(frames_name)
    async with a_gate(road) as gate:
        await told(gate, [frame(token)])
        open_now = await metric("gateline_gate_sockets")
        after = await metric('gateline_scans_total{verdict="SUCCESS"}'), await metric(frames_name)

    assert open_now == 1
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)
