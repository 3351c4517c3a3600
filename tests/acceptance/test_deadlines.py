"""A client may say how long it waits (`X-Deadline-Ms`): in time it hears a verdict, or that there is none.

What was refused while it waited in line is not done; what Redis had been asked is recorded, and told to a retry.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import ClientSession, WSServerHandshakeError

from server.flows.lookup import TicketLoader
from server.flows.shop import Shop
from server.hot.scripts import ScriptRunner
from server.limits import ORDER_UNITS_MAX, SCAN_CALLS_IN_FLIGHT_MAX, UPLOADED_SCANS_AT_ONCE_MAX
from server.web import deadline
from server.web.line import Comer, Line
from tests.conftest import Audit, eventually
from tests.road import Answer, Road
from tests.web.wire import posted, wire

PATIENCE_MS = 250
LONGER_MS = 1_000
SOON_S = 10.0  # a busy machine; the bound of a server itself is longer here
HURRIED = {"X-Deadline-Ms": str(PATIENCE_MS)}
Ask: TypeAlias = Callable[[Road, dict[str, Any]], Awaitable[dict[str, Any]]]


async def express(road: Road, scan: dict[str, Any]) -> dict[str, Any]:
    """Plain JSON: answered on its connection."""
    return told(await road.call("POST", "/venue/scan", headers=await road.gate() | HURRIED, json=scan))


async def ordinary(road: Road, scan: dict[str, Any]) -> dict[str, Any]:
    """With a charset the express lane leaves it to aiohttp."""
    headers = await road.gate() | HURRIED | {"Content-Type": "application/json; charset=utf-8"}
    return told(await road.call("POST", "/venue/scan", headers=headers, data=json.dumps(scan).encode()))


async def socket(road: Road, scan: dict[str, Any]) -> dict[str, Any]:
    """Its handshake says how long it waits for each frame."""
    headers = await road.gate() | HURRIED
    async with (
        ClientSession(road.url) as session,
        session.ws_connect("/venue/stream", headers=headers) as gate,
    ):
        await gate.send_str(json.dumps(scan))
        answer: dict[str, Any] = json.loads((await gate.receive(SOON_S)).data)
        return answer


def told(answer: Answer) -> dict[str, Any]:
    """A verdict, or a 503 that says when to come back."""
    assert (answer.status, answer.headers.get("Retry-After")) in ((200, None), (503, "1"))
    body: dict[str, Any] = answer.json
    return body


def longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall of the machine must not pass the deadline before Redis was asked."""
    monkeypatch.setitem(HURRIED, "X-Deadline-Ms", str(LONGER_MS))


LANES = pytest.mark.parametrize("ask", [express, ordinary, socket], ids=lambda ask: str(ask.__name__))


class Redis:
    """A Redis that answers the calls of one script when it is let."""

    def __init__(self) -> None:
        self.calls = 0
        self.answers = asyncio.Event()


@asynccontextmanager
async def standing_still(monkeypatch: pytest.MonkeyPatch, script_name: str) -> AsyncIterator[Redis]:
    """Redis decides, but its answers to this script do not come until the end of the block."""
    redis, run = Redis(), ScriptRunner.run

    async def late(self: ScriptRunner, script: Any, *arguments: Any) -> Any:
        answer = await run(self, script, *arguments)
        if script.name == script_name:
            redis.calls += 1
            await redis.answers.wait()
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(ScriptRunner, "run", late)
        try:
            yield redis
        finally:
            redis.answers.set()


async def tokens(road: Road, number: int, uses: int = 1) -> list[str]:
    """A QR of each of so many tickets."""
    product, codes = await road.product({"bus": uses}), []
    while number > len(codes):
        bought = await road.buy({product: min(number - len(codes), ORDER_UNITS_MAX)})
        codes += [await road.qr(ticket["ticket_code"]) for ticket in bought]
    await road.flushed()  # Redis knows them: none has to be looked up
    return codes


def scan_of(token: str) -> dict[str, Any]:
    """A scan with an id of its own."""
    return {"qr_token": token, "function_code": "bus", "scan_id": uuid4().hex}


async def passes(pg: asyncpg.Connection[Any]) -> int:
    """How many uses the record has."""
    number: int = await pg.fetchval("SELECT count(*) FROM redemption_events WHERE result = 'success'")
    return number


@LANES
async def test_what_waits_in_line_past_its_deadline_is_refused_and_not_done(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    *before, mine = await tokens(road, SCAN_CALLS_IN_FLIGHT_MAX + 1)
    await road.gate()
    scan = scan_of(mine)
    async with standing_still(monkeypatch, "redeem") as redis:
        inside = []
        for number, token in enumerate(before, 1):
            inside.append(asyncio.create_task(road.scan(token, "bus")))
            await eventually(lambda: asyncio.sleep(0, redis.calls == number))  # noqa: B023  (awaited at once)
        began = time.perf_counter()
        refusal = await asyncio.wait_for(ask(road, scan), SOON_S)
        took_ms = (time.perf_counter() - began) * 1000

    assert (refusal["code"], refusal["scan_id"]) == ("DEADLINE_PASSED", scan["scan_id"])
    assert took_ms >= PATIENCE_MS * 0.9
    assert [answer.json["result"] for answer in await asyncio.gather(*inside)] == ["success"] * len(before)
    await road.flushed()
    assert await passes(pg) == len(before), "the one that was refused is not done"
    again = await road.call("POST", "/venue/scan", headers=await road.gate(), json=scan)
    assert again.json["result"] == "success"
    await audit(road)


@LANES
async def test_what_redis_was_asked_is_refused_in_time_too_and_its_retry_is_told_the_verdict(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    (token,) = await tokens(road, 1)
    await road.gate()
    scan = scan_of(token)
    longer(monkeypatch)
    async with standing_still(monkeypatch, "redeem"):
        refusal = await asyncio.wait_for(ask(road, scan), SOON_S)
    assert refusal["code"] == "DEADLINE_PASSED"

    await road.flushed()
    assert await passes(pg) == 1
    again = await road.call("POST", "/venue/scan", headers=await road.gate(), json=scan)
    assert (again.json["result"], again.json["remaining_uses"]) == ("success", 0)
    assert await passes(pg) == 1
    await audit(road)


@LANES
async def test_the_time_that_a_request_or_a_frame_stands_in_line_is_counted(
    road: Road, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    (token,) = await tokens(road, 1)
    await road.gate()
    scan = scan_of(token)

    def wait(self: Line, cost: int, comer: Comer, *, scans: bool) -> None:
        asyncio.get_running_loop().call_later(PATIENCE_MS / 1000 * 1.2, comer.come_up)

    with monkeypatch.context() as patch:
        patch.setattr(Line, "admits", lambda self, cost: False)
        patch.setattr(Line, "wait", wait)
        refusal = await asyncio.wait_for(ask(road, scan), SOON_S)
    assert (refusal["code"], refusal["scan_id"]) == ("DEADLINE_PASSED", scan["scan_id"])
    await road.flushed()
    assert await passes(pg) == 0


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8"])
async def test_the_time_in_which_a_body_comes_is_counted(
    road: Road, pg: asyncpg.Connection[Any], kind: str
) -> None:
    (token,) = await tokens(road, 1)
    product = await road.product(sellable=3)
    gate, now = await road.gate() | HURRIED, datetime.now(UTC).isoformat()
    order = {"items": [{"product_id": product, "qty": 1}], "gateway": "hosted"}
    buyer = road.buyer() | HURRIED | {"Idempotency-Key": "k"}

    async def refused(path: str, headers: dict[str, str], body: dict[str, Any]) -> None:
        raw = posted(body, headers, first=f"POST {path} HTTP/1.1", kind=kind)
        async with wire(road.url) as line:
            await line.send(raw[:-9], raw[-9:], pause_s=PATIENCE_MS / 1000 * 1.2)
            answer = await line.answer()
        assert (answer.status, answer.json["code"]) == (503, "DEADLINE_PASSED"), path

    await asyncio.gather(
        refused("/venue/scan", gate, scan_of(token)),
        refused("/venue/scans", gate, {"scans": [scan_of(token) | {"scanned_at": now}]}),
        refused("/orders", buyer, order),
    )
    await road.flushed()
    assert await passes(pg) == 0
    assert (await road.parts.stock.levels([product]))[product].reserved == 0


async def test_what_is_sent_behind_another_request_counts_from_when_it_came_itself(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = Shop.window

    async def slow(self: Shop) -> Any:
        await asyncio.sleep(PATIENCE_MS / 1000 * 1.2)
        return await window(self)

    arrivals, left = [], deadline.patience_left_s

    def look(patience_s: float | None, arrived: float) -> float | None:
        arrivals.append(arrived)
        return left(patience_s, arrived)

    monkeypatch.setattr(deadline, "patience_left_s", look)
    monkeypatch.setattr(Shop, "window", slow)
    (token,) = await tokens(road, 1)
    scan, gate = scan_of(token), await road.gate()
    catalog = posted(b"", {}, first="GET /catalog HTTP/1.1", kind=None, length=-1)
    async with wire(road.url) as line:
        await line.send(catalog + posted(scan, gate | HURRIED))
        await asyncio.sleep(PATIENCE_MS / 1000 / 2)
        await line.send(catalog + posted(scan, gate | {"X-Deadline-Ms": "60000"}))
        answers = await line.answers(4)
    assert [answer.status for answer in answers] == [200, 503, 200, 200]
    assert answers[1].json["code"] == "DEADLINE_PASSED"
    assert answers[3].json["result"] == "success"
    assert arrivals[-1] > arrivals[-2]


@LANES
async def test_whoever_waits_long_enough_is_told_the_verdict(
    road: Road, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    (token,) = await tokens(road, 1)
    monkeypatch.setitem(HURRIED, "X-Deadline-Ms", "60000")
    assert (await ask(road, scan_of(token)))["result"] == "success"


async def test_a_ticket_that_has_to_be_looked_up_is_waited_for_no_longer_than_that(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    (token,) = await tokens(road, 1)
    await road.gate()
    await road.flushed()
    for key in await road.parts.redis.keys("*:t:*"):
        await road.parts.redis.delete(key)
    load, looking = TicketLoader.load_unknown, asyncio.Event()

    async def slow(self: TicketLoader, code: str) -> bool:
        looking.set()
        await asyncio.sleep(30)
        return await load(self, code)

    scan = scan_of(token)
    longer(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(TicketLoader, "load_unknown", slow)
        refusal = await asyncio.wait_for(express(road, scan), SOON_S)
    assert looking.is_set()
    assert refusal["code"] == "DEADLINE_PASSED"
    again = await road.call("POST", "/venue/scan", headers=await road.gate(), json=scan)
    assert again.json["result"] == "success"


async def test_an_order_that_is_not_held_in_time_is_refused_and_held_once_for_its_key(
    road: Road, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = await road.product(sellable=3)
    asked: dict[str, Any] = {
        "headers": road.buyer() | HURRIED | {"Idempotency-Key": "the-same"},
        "json": {"items": [{"product_id": product, "qty": 1}], "gateway": "hosted"},
    }
    async with standing_still(monkeypatch, "hold"):
        refusal = await asyncio.wait_for(road.call("POST", "/orders", **asked), SOON_S)
    assert (refusal.status, refusal.json["code"]) == (503, "DEADLINE_PASSED")

    asked["headers"] |= {"X-Deadline-Ms": "30000"}
    made = await road.call("POST", "/orders", **asked)
    assert made.status == 201
    assert (await road.parts.stock.levels([product]))[product].reserved == 1
    await audit(road)


async def test_of_an_upload_what_found_no_place_in_time_is_told_so_one_by_one(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = 3
    codes = await tokens(road, UPLOADED_SCANS_AT_ONCE_MAX + late)
    at = datetime.now(UTC).isoformat()
    scans = [scan_of(token) | {"scanned_at": at} for token in codes]
    longer(monkeypatch)
    headers = await road.gate() | HURRIED
    async with standing_still(monkeypatch, "redeem") as redis:
        asking = asyncio.create_task(
            road.call("POST", "/venue/scans", headers=headers, json={"scans": scans})
        )
        await eventually(lambda: asyncio.sleep(0, redis.calls > 0))
        await asyncio.sleep(LONGER_MS / 1000 * 1.1)
    answers = (await asking).json["answers"]

    assert [answer.get("result") for answer in answers[:-late]] == ["success"] * UPLOADED_SCANS_AT_ONCE_MAX
    assert [answer["code"] for answer in answers[-late:]] == ["DEADLINE_PASSED"] * late
    again = await road.call("POST", "/venue/scans", headers=await road.gate(), json={"scans": scans[-late:]})
    assert [answer["result"] for answer in again.json["answers"]] == ["success"] * late
    await road.flushed()
    assert await passes(pg) == len(scans)
    await audit(road)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "60001", "9999999999", "soon", "", "١٢"])
async def test_a_deadline_that_is_none_is_refused_on_every_lane(road: Road, value: str) -> None:
    headers = await road.gate() | {"X-Deadline-Ms": value}
    scan = {"qr_token": "x", "function_code": "bus"}
    upload = {"scans": [scan | {"scan_id": "a", "scanned_at": "2026-11-22T08:00:00Z"}]}
    order = {"items": [{"product_id": 1, "qty": 1}]}
    buyer = road.buyer() | {"X-Deadline-Ms": value, "Idempotency-Key": "k"}
    for path, body, given in (
        ("/venue/scan", scan, headers),
        ("/venue/scans", upload, headers),
        ("/orders", order, buyer),
    ):
        answer = await road.call("POST", path, headers=given, json=body)
        assert (answer.status, answer.json["code"]) == (400, "VALIDATION_FAILED"), path
        assert "X-Deadline-Ms" in answer.json["message"]
    async with ClientSession(road.url) as session:
        with pytest.raises(WSServerHandshakeError) as refused:
            await session.ws_connect("/venue/stream", headers=headers)
    assert refused.value.status == 400
