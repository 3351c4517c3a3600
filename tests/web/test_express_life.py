"""The life of a connection with the lane: clients that go, servers that stop, a Redis that fails; on both ways."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from redis.asyncio import Redis
from structlog.testing import capture_logs

from server.app import build_app
from server.dev.embedded import EmbeddedValkey
from server.service import CONNECTION
from server.web import connection
from server.web.connection import ExpressRunner, ScanConnection
from server.web.express import Lane
from tests.conftest import Serve, eventually, redis_given_up_after, redis_held
from tests.road import PATIENCE_S, Answer, Road
from tests.web.process import gateline
from tests.web.stage import refused
from tests.web.wire import posted, wire

pytest_plugins = ("tests.outage.conftest",)

IDLE_S = 1.0  # a connection that is silent for so long is closed
LONGER_S = 1.3


async def gate_body(road: Road, *, uses: int = 5, qr: str | None = None) -> dict[str, Any]:
    """An honest scan of a fresh ticket."""
    if qr is None:
        (ticket,) = await road.buy({await road.product({"bus": uses}): 1})
        qr = await road.qr(ticket["ticket_code"])
        await road.flushed()  # Redis knows the ticket
    return {"qr_token": qr, "function_code": "bus", "scan_id": uuid4().hex}


def both_ways(body: dict[str, Any], gate: dict[str, str]) -> tuple[bytes, bytes]:
    """The same scan for the lane, and spelled so that it goes the ordinary way."""
    return posted(body, gate), posted(body, gate, kind="application/json; charset=utf-8")


async def until_under_way(number: int = 1) -> None:
    async def under_way() -> bool:
        held = [each for each in gc.get_objects() if isinstance(each, ScanConnection)]
        return sum(each._under_way for each in held) >= number

    await eventually(under_way)


# --- Clients that go ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [True, False])
async def test_a_client_that_goes_while_its_scan_is_under_way_finds_the_verdict_when_it_is_back(
    road: Road, redis: Redis, reset: bool
) -> None:
    gate, body = await road.gate(), await gate_body(road)
    with capture_logs() as logs:
        async with redis_held(redis):
            async with wire(road.url) as line:
                await line.send(posted(body, gate))
                await until_under_way()
                if reset:
                    line.writer.transport.abort()
            await asyncio.sleep(0.05)
        await road.parts.redeemer.drain()
        async with wire(road.url) as line:
            await line.send(posted(body, gate))
            told = await line.answer()
    assert (told.json["result"], told.json["remaining_uses"]) == ("success", 4)
    assert [each for each in logs if each["log_level"] in ("error", "critical")] == []


async def test_connections_that_end_in_any_state_leave_nothing_behind(road: Road, redis: Redis) -> None:
    gate, body = await road.gate(), await gate_body(road)
    raw = posted(body, gate)

    def left() -> tuple[int, int]:
        gc.collect()
        held = [each for each in gc.get_objects() if isinstance(each, ScanConnection)]
        tasks = [task for task in asyncio.all_tasks() if "RequestHandler" in repr(task.get_coro())]
        return len(held), len(tasks)

    before = left()
    for said in (b"", raw[:20], raw[:-5], raw, raw * 3, raw * 3 + raw[:-1], raw + b"NO HTTP\r\n\r\n"):
        async with redis_held(redis):
            for _ in range(5):
                async with wire(road.url, settled=len(said) % 2 == 0) as line:
                    await line.send(said)
            await asyncio.sleep(0.05)
    await road.parts.redeemer.drain()

    async def gone() -> bool:
        return left() <= before

    await eventually(gone)


# --- Idle or not --------------------------------------------------------------------------------------------


@asynccontextmanager
async def impatient(road: Road, **options: Any) -> AsyncIterator[str]:
    """Another server on the same parts, whose idle connections end after `IDLE_S`."""
    runner = ExpressRunner(build_app(road.parts), **{**CONNECTION, "keepalive_timeout": IDLE_S, **options})
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_an_idle_connection_is_closed_after_its_time_and_one_that_scans_is_not(road: Road) -> None:
    gate, body = await road.gate(), await gate_body(road)
    async with impatient(road) as url, wire(url) as idle, wire(url) as busy, wire(url) as once:
        await once.send(posted(body, gate))
        assert (await once.answer()).status == 200
        for _ in range(int(LONGER_S / 0.1)):
            await busy.send(posted(body, gate))
            assert (await busy.answer()).status == 200
            await asyncio.sleep(0.1)
        assert await busy.alive()
        for line in (idle, once, busy):
            assert await line.closed()


async def test_a_scan_that_takes_longer_than_an_idle_connection_may_live_is_answered(
    road: Road, redis: Redis
) -> None:
    gate, body = await road.gate(), await gate_body(road)
    async with impatient(road) as url, wire(url) as line:
        async with redis_held(redis):
            await line.send(posted(body, gate))
            await asyncio.sleep(LONGER_S)
        assert (await line.answer()).status == 200
        assert await line.alive()
        assert await line.closed()  # and is idle again


async def test_a_body_that_takes_longer_than_an_idle_connection_may_live_is_read(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, body = await road.gate(), await gate_body(road)
    raw = posted(body, gate)
    for rest_s in (0.05, 5.0):  # read the ordinary way, and still waited for by the lane
        monkeypatch.setattr(connection, "BODY_REST_S_MAX", rest_s)
        async with impatient(road) as url, wire(url) as line:
            await line.send(raw[:-10])
            await asyncio.sleep(LONGER_S)
            await line.send(raw[-10:])
            assert (await line.answer()).status == 200
            assert await line.alive()


async def test_a_client_that_does_not_read_is_closed_as_idle(
    road: Road, narrow: list[ScanConnection]
) -> None:
    packet = posted(await gate_body(road, qr="x"), await road.gate()) * 30

    async def given_up() -> bool:
        return narrow[-1].transport is None

    async with impatient(road) as url, wire(url, deaf=True) as deaf:
        async with asyncio.timeout(PATIENCE_S):
            while not narrow:
                deaf.writer.write(packet)
                await asyncio.sleep(0.01)
        await eventually(given_up)
        deaf.writer.transport.abort()


# --- Stopping -----------------------------------------------------------------------------------------------


async def test_sigterm_while_scans_are_under_way_answers_them_and_then_closes(
    environment: dict[str, str], road: Road, redis: Redis
) -> None:
    gate = await road.gate()
    bodies = [await gate_body(road) for _ in range(3)]
    async with AsyncExitStack() as lines:
        async with gateline(environment | {"GATELINE_LOG_LEVEL": "warning"}) as process:
            opened = [await lines.enter_async_context(wire(process.address)) for _ in range(4)]
            for line in opened:  # each has proved itself
                assert await line.alive()
            await redis.client_pause(1_000)
            for line, body in zip(opened[:2], bodies, strict=False):
                await line.send(posted(body, gate))
            await opened[2].send(both_ways(bodies[2], gate)[1])
            assert await opened[3].alive()  # it was read behind them: the server has taken them up
        for line in opened[:3]:
            told = await line.answer()
            assert (told.status, told.json["result"]) == (200, "success")
            assert await line.closed()
        assert await opened[3].closed()
    assert [event for event in process.events if event["level"] != "warning"] == []


async def test_what_is_undecided_when_the_server_stops_is_told_to_come_back(road: Road, redis: Redis) -> None:
    """Redis does not know the ticket, and the ordinary way, which would load it, takes nothing up any more."""
    gate, body = await road.gate(), await gate_body(road)
    await road.flushed()
    await redis.delete(*await redis.keys("{s00}:t:*"))
    async with AsyncExitStack() as stopping:
        url = await stopping.enter_async_context(impatient(road, shutdown_timeout=5))
        async with wire(url) as line:
            async with redis_held(redis):
                await line.send(posted(body, gate))
                await until_under_way()
                stopped = asyncio.create_task(stopping.aclose())
                await asyncio.sleep(0.2)  # it is being stopped
            await stopped
            told = await line.answer()
            assert refused(told, 503, "GATE_CLOSED")["scan_id"] == body["scan_id"]
            assert told.headers["Connection"] == "close"
            assert await line.closed()
    async with wire(road.url) as line:
        await line.send(posted(body, gate))
        assert (await line.answer()).json["result"] == "success"


# --- What fails ---------------------------------------------------------------------------------------------


async def on_both_ways(road: Road, body: dict[str, Any], *, number: int = 1) -> list[Answer]:
    """The answers to a scan on each way, and to a request behind each: the connection lives on."""
    gate, told = await road.gate(), []
    for way in range(2):
        async with wire(road.url) as line:
            for _ in range(number):
                await line.send(both_ways(body | {"scan_id": uuid4().hex}, gate)[way])
                told.append(await line.answer())
            assert await line.alive()
    return told


async def test_a_closed_gate_says_so_on_both_ways(serve: Serve) -> None:
    road = await serve(jobs=False)
    for answer in await on_both_ways(road, await gate_body(road, qr="x")):
        refused(answer, 503, "GATE_CLOSED")
        assert answer.headers["Retry-After"] == "1"


async def test_a_full_queue_and_a_full_backlog_say_so_on_both_ways(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = await gate_body(road)
    for batcher in road.parts.redeemer._batchers:
        monkeypatch.setattr(batcher, "_queue_max", 0)
    for answer in await on_both_ways(road, body):
        refused(answer, 503, "OVERLOADED")
    monkeypatch.setattr(type(road.backlog), "full", lambda self: True)
    for answer in await on_both_ways(road, body):
        assert refused(answer, 503, "BACKLOG_FULL")["scan_id"]
        assert answer.headers["Retry-After"] == "1"


async def test_a_redis_that_hangs_or_dies_is_told_in_time_on_both_ways_and_both_go_on_when_it_is_back(
    serve: Serve, own_valkey: EmbeddedValkey
) -> None:
    road = await serve(redis_url=own_valkey.url)
    body = await gate_body(road, uses=50)
    await road.gate()  # a login would take some of the time
    async with Redis.from_url(own_valkey.url) as redis, redis_held(redis):
        with redis_given_up_after(1.0):
            hung = await on_both_ways(road, body)
        for answer in hung:
            refused(answer, 503, "REDIS_UNAVAILABLE")
    assert [answer.status for answer in await on_both_ways(road, body)] == [200, 200]
    own_valkey.kill()
    for answer in await on_both_ways(road, body):
        refused(answer, 503, "REDIS_UNAVAILABLE")
        assert answer.headers["Retry-After"] == "1"
    own_valkey.start()

    async def open_again() -> bool:
        return {answer.status for answer in await on_both_ways(road, body)} == {200}

    await eventually(open_again)


async def test_of_a_batch_that_fails_each_is_told_its_own_scan_id(
    serve: Serve, own_valkey: EmbeddedValkey
) -> None:
    road = await serve(redis_url=own_valkey.url)
    gate, body = await road.gate(), await gate_body(road)
    own_valkey.kill()

    async def one(number: int) -> None:
        asked = body | {"scan_id": f"scan-{number}"}
        async with wire(road.url) as line:
            await line.send(both_ways(asked, gate)[number % 2])
            told = refused(await line.answer(), 503, ("REDIS_UNAVAILABLE", "OVERLOADED"))
            assert told["scan_id"] == f"scan-{number}"

    await asyncio.gather(*(one(number) for number in range(60)))


async def test_a_ticket_that_redis_does_not_know_is_loaded_and_passes_on_both_ways(
    road: Road, redis: Redis
) -> None:
    body, gate = await gate_body(road), await road.gate()
    await road.flushed()
    (key,) = await redis.keys("{s00}:t:*")
    left = []
    for way in range(2):
        await redis.delete(key)
        fresh = body | {"qr_token": await road.qr(key.rpartition(":")[2]), "scan_id": f"way-{way}"}
        async with wire(road.url) as line:
            await line.send(both_ways(fresh, gate)[way] * 2)
            first, again = await line.answers(2)
            assert first.raw == again.raw
            assert await line.alive()
        assert first.json["result"] == "success"
        left.append(first.json["remaining_uses"])
        await road.flushed()
    assert left == [4, 3]


@pytest.mark.parametrize("place", ["read", "verdict", "ask", "decide"])
async def test_a_fault_that_no_one_expected_is_told_and_logged_and_the_connection_lives_on(
    road: Road, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    gate, body = await road.gate(), await gate_body(road)

    def fail(*args: Any, **options: Any) -> Any:
        raise ArithmeticError("unexpected")

    async def fail_later(*args: Any) -> Any:
        raise ArithmeticError("unexpected")

    with monkeypatch.context() as patch:
        if place == "read":
            patch.setattr("server.web.express.staff", fail)
        elif place == "verdict":
            patch.setattr(Lane, "verdict", fail)
        elif place == "ask":
            patch.setattr(road.parts.redeemer, "post", fail)
        else:
            for batcher in road.parts.redeemer._batchers:
                patch.setattr(batcher, "_decide", fail_later)
        with capture_logs() as logs:
            async with wire(road.url) as line:
                await line.send(posted(body, gate) * 2)
                first, second = await line.answers(2)
                assert await line.alive()
        if place == "read":  # the ordinary way can
            assert (first.status, second.raw) == (200, first.raw)
        else:
            refused(first, 500, "INTERNAL")
            refused(second, 500, "INTERNAL")
            failed = [each for each in logs if each["event"] == "request_failed"]
            assert len(failed) == 2 and all(each["request_id"] for each in failed)
    async with wire(road.url) as line:
        await line.send(posted(body, gate))
        assert (await line.answer()).json["result"] == "success"
