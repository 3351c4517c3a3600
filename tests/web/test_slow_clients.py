"""Clients that send half a head, take no answer, say nothing or are too many: each costs a place for a bounded time."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from typing import Any

import pytest
from aiohttp import ClientSession, web
from multidict import CIMultiDict
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from server.app import build_app
from server.service import CONNECTION
from server.web import slow_clients
from server.web.connection import ExpressRunner, ScanConnection
from tests.conftest import eventually
from tests.road import PATIENCE_S, Road
from tests.web.stage import refused
from tests.web.wire import Wire, posted, wire

HEAD_S = 0.8
LONGER_S = 1.0
NOW_S_MAX = 5.0  # where nobody ends a connection it is minutes, or never
HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Padding: 1\r\n\r\n"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head has less than a second, and so has an answer to be taken."""
    monkeypatch.setattr(slow_clients, "HEAD_READ_S_MAX", HEAD_S)
    monkeypatch.setattr(slow_clients, "ANSWER_TAKEN_S_MAX", 1.0)


class Door:
    """A server of the test's own, on the same parts."""

    def __init__(self, url: str, runner: ExpressRunner) -> None:
        self.url = url
        self._runner = runner

    def connected(self) -> int:
        """How many connections the server still has, those too that it has closed and not got rid of."""
        assert self._runner.server is not None
        return len(self._runner.server.connections)


@asynccontextmanager
async def opened(road: Road, **options: Any) -> AsyncIterator[Door]:
    runner = ExpressRunner(build_app(road.parts), **{**CONNECTION, **options})
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Door(f"http://127.0.0.1:{runner.addresses[0][1]}/", runner)
    finally:
        await runner.cleanup()


def cut(reason: str) -> float:
    return REGISTRY.get_sample_value("gateline_connections_cut_total", {"reason": reason}) or 0.0


async def closed_now(line: Wire) -> bool:
    """Whether the server ends the connection, soon enough to be no accident."""
    with suppress(ConnectionResetError):
        async with asyncio.timeout(NOW_S_MAX):
            return await line.closed()
    return True


# --- Heads --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("settled", [False, True], ids=["first", "later"])
async def test_half_a_head_is_cut_after_its_time_wherever_it_ends(road: Road, settled: bool) -> None:
    halves = (1, 10, len(HEAD) - 20, len(HEAD) - 1)
    before = cut("HALF_HEAD")

    async def half(end: int) -> float:
        async with wire(road.url, settled=settled) as line:
            began = time.monotonic()
            await line.send(HEAD[:end])
            assert await closed_now(line)
            return time.monotonic() - began

    assert min(await asyncio.gather(*(half(end) for end in halves))) > HEAD_S * 0.8
    assert cut("HALF_HEAD") - before == len(halves)


@pytest.mark.usefixtures("hasty")
async def test_a_head_that_dribbles_has_no_more_time_than_one_that_stops(road: Road) -> None:
    async def dribble(line: Wire) -> None:
        await line.send(*(HEAD[at : at + 1] for at in range(len(HEAD) - 1)), pause_s=0.2)  # 9 s

    async with wire(road.url) as line:
        began = time.monotonic()
        dribbling = asyncio.create_task(dribble(line))
        assert await closed_now(line)
        assert time.monotonic() - began > HEAD_S * 0.8
        dribbling.cancel()
        await asyncio.gather(dribbling, return_exceptions=True)


@pytest.mark.usefixtures("hasty")
async def test_a_head_in_pieces_that_comes_in_time_is_answered_and_its_connection_lives_on(
    road: Road,
) -> None:
    async with wire(road.url) as line:
        for _ in range(3):
            await line.send(HEAD[:9], HEAD[9:30], HEAD[30:], pause_s=0.02)
            assert (await line.answer()).json == {"status": "alive"}
        await asyncio.sleep(LONGER_S)
        assert await line.alive()
        await line.send(b"\r\n")  # some clients end a body with a blank line that is no part of it
        await asyncio.sleep(LONGER_S)
        assert await line.alive()


@pytest.mark.usefixtures("hasty")
async def test_what_waits_for_a_body_or_for_redis_is_no_half_head(road: Road, redis: Redis) -> None:
    gate = await road.gate()
    raw = posted({"qr_token": "x", "function_code": "bus", "scan_id": "1"}, gate)
    ordinary = posted(
        {"qr_token": "x", "function_code": "bus", "scan_id": "2"},
        gate,
        kind="application/json; charset=utf-8",
    )
    for request in (raw, ordinary):
        async with wire(road.url) as line:
            await line.send(request[:-5], request[-5:], pause_s=LONGER_S)
            assert (await line.answer()).status == 200
            await redis.client_pause(int(LONGER_S * 1000))
            await line.send(request)
            assert (await line.answer()).status == 200
            assert await line.alive()


@pytest.mark.usefixtures("hasty")
async def test_a_gates_socket_that_is_silent_is_no_half_head(road: Road) -> None:
    gate = await road.gate()
    async with road.session.ws_connect(
        "/venue/stream", headers=gate, protocols=("gateline.v1",)
    ) as gate_socket:
        await asyncio.sleep(LONGER_S)
        await gate_socket.send_json({"qr_token": "x", "function_code": "bus", "scan_id": "7"})
        assert (await gate_socket.receive_json(timeout=PATIENCE_S))["reason"] == "QR_MALFORMED"


# --- Answers ------------------------------------------------------------------------------------------------


BIG = b"GET /openapi/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"  # an answer of more than 100 KB, for anybody


@pytest.mark.usefixtures("hasty")
async def test_who_takes_nothing_of_an_answer_is_cut_and_the_answer_thrown_away(
    road: Road, narrow: list[ScanConnection]
) -> None:
    before = cut("DEAF")
    async with opened(road) as door, AsyncExitStack() as lines:
        for _ in range(5):
            line = await lines.enter_async_context(wire(door.url, settled=False, deaf=True))
            await line.send(BIG * 3)
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
        await eventually(lambda: asyncio.sleep(0, len(narrow) == 5))
        await eventually(lambda: asyncio.sleep(0, door.connected() == 0))
    assert cut("DEAF") - before == 5


@pytest.mark.usefixtures("hasty")
async def test_who_takes_an_answer_slowly_gets_it_all(
    road: Road, narrow: list[ScanConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_clients, "ANSWER_TAKEN_BYTES_MIN", 4_096)  # far less than is taken here
    whole = (await road.call("GET", "/openapi/openapi.json")).raw
    assert len(whole) > 100_000
    async with opened(road) as door:
        before, plug, loop = cut("DEAF"), socket.socket(), asyncio.get_running_loop()
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        plug.setblocking(False)
        with closing(plug):
            await loop.sock_connect(plug, ("127.0.0.1", int(door.url.rstrip("/").rpartition(":")[2])))
            await loop.sock_sendall(plug, BIG)
            got, began = b"", time.monotonic()
            while not got.endswith(whole):
                part = await loop.sock_recv(plug, 4_096)
                assert part, "cut"
                got += part
                await asyncio.sleep(0.03)
        assert narrow, "the server had to wait"
        assert time.monotonic() - began > 1
        assert cut("DEAF") == before


@pytest.mark.skipif(slow_clients._SENT_UNTAKEN is None, reason="only Linux has TCP_USER_TIMEOUT")
@pytest.mark.usefixtures("hasty")
async def test_a_connection_that_was_closed_with_an_answer_untaken_does_not_stay(
    road: Road, narrow: list[ScanConnection]
) -> None:
    """Less than what makes the server wait: it closes the connection as idle, and the rest lies in the way."""
    async with opened(road, keepalive_timeout=0.4) as door, wire(door.url, settled=False, deaf=True) as line:
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await line.send(b"GET /static/buyer/vocabulary.js HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        await eventually(lambda: asyncio.sleep(0, door.connected() == 1))
        await eventually(lambda: asyncio.sleep(0, door.connected() == 0))
        assert narrow == []


# --- Too many -----------------------------------------------------------------------------------------------


async def test_silent_connections_give_way_to_those_who_come_to_speak(road: Road) -> None:
    before = cut("NO_ROOM")
    async with opened(road, connections_max=8) as door, AsyncExitStack() as lines:
        silent = [await lines.enter_async_context(wire(door.url, settled=False)) for _ in range(8)]
        await eventually(lambda: asyncio.sleep(0, door.connected() == 8))
        speaking = [await lines.enter_async_context(wire(door.url)) for _ in range(5)]
        for line in silent[:5]:
            assert await closed_now(line), "the oldest goes first"
        assert all([await line.alive() for line in (*silent[5:], *speaking)])
        assert cut("NO_ROOM") - before == 5


async def test_of_those_who_asked_and_showed_no_token_the_one_idle_longest_gives_way(road: Road) -> None:
    raw = posted({"qr_token": "x", "function_code": "bus"}, await road.gate())
    async with opened(road, connections_max=4) as door, AsyncExitStack() as lines:
        asked = [await lines.enter_async_context(wire(door.url)) for _ in range(4)]
        assert await asked[0].alive()
        gates = [await lines.enter_async_context(wire(door.url, settled=False)) for _ in range(3)]
        for gate in gates:
            await gate.send(raw)
            assert (await gate.answer()).status == 200
        for line in asked[1:]:
            assert await closed_now(line)
        assert all([await line.alive() for line in (asked[0], *gates)])


async def test_a_gate_is_never_sent_away_for_a_newcomer_however_it_came(road: Road) -> None:
    token = await road.gate()
    scan = {"qr_token": "x", "function_code": "bus", "scan_id": "1"}
    raws = (
        posted(scan, token),
        posted(scan, token, kind="application/json; charset=utf-8"),
        posted(b"", token, first="GET /venue HTTP/1.1", kind=None, length=-1),
    )
    async with opened(road, connections_max=5) as door, AsyncExitStack() as lines:
        session = await lines.enter_async_context(ClientSession(door.url))
        gate_socket = await session.ws_connect("/venue/stream", headers=token, protocols=("gateline.v1",))
        gates = [await lines.enter_async_context(wire(door.url, settled=False)) for _ in raws]
        for gate, raw in zip(gates, raws, strict=True):
            await gate.send(raw)
            assert (await gate.answer()).status == 200
        for _ in range(7):  # one place is left, and each of them takes it from the one before
            last = await lines.enter_async_context(wire(door.url))
        await last.send(raws[0])
        assert (await last.answer()).status == 200
        for _ in range(3):  # all places are gates'
            async with wire(door.url, settled=False) as refused_one:
                assert await closed_now(refused_one)
        assert all([await gate.alive() for gate in (*gates, last)])
        await gate_socket.send_json(scan)
        assert (await gate_socket.receive_json(timeout=PATIENCE_S))["reason"] == "QR_MALFORMED"
        await last.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await eventually(lambda: asyncio.sleep(0, door.connected() == 4))
        async with wire(door.url) as line:
            assert await line.alive(), "a place that is left is taken"


async def test_of_all_who_are_not_staff_the_one_goes_that_is_idle_longest_whatever_token_it_showed(
    road: Road,
) -> None:
    """Anybody gets a buyer's token: idle ones that showed it must not outlast who has just come."""
    mine = posted(b"", road.buyer(), first="GET /my/tickets HTTP/1.1", kind=None, length=-1)
    scan = posted({"qr_token": "x", "function_code": "bus"}, await road.gate())
    async with opened(road, connections_max=3) as door, AsyncExitStack() as lines:
        first, second = [await lines.enter_async_context(wire(door.url)) for _ in range(2)]
        for buyer in (first, second, first):
            await buyer.send(mine)
            assert (await buyer.answer()).status == 200
        newcomer = await lines.enter_async_context(wire(door.url))
        for goes in (second, first, newcomer):
            gate = await lines.enter_async_context(wire(door.url, settled=False))
            await gate.send(scan)
            assert await closed_now(goes)
            assert (await gate.answer()).status == 200


async def test_many_newcomers_at_once_find_no_more_places_than_there_are(road: Road) -> None:
    async with opened(road, connections_max=4) as door, AsyncExitStack() as lines:
        for _ in range(4):
            await lines.enter_async_context(wire(door.url))
        came = [lines.enter_async_context(wire(door.url, settled=False)) for _ in range(30)]
        last = (await asyncio.gather(*came))[-1]
        await eventually(lambda: asyncio.sleep(0, door.connected() == 4))
        assert await last.alive()


# --- What is no HTTP ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET\r\n\r\n"])
async def test_what_is_no_http_is_answered_like_every_error_and_tells_nothing_of_the_server(
    road: Road, raw: bytes
) -> None:
    async with wire(road.url) as line:
        await line.send(raw)
        answer = await line.answer()
        refused(answer, 400, "BAD_REQUEST")
        assert CIMultiDict(answer.headers)["Server"] == "Gateline"
        assert await line.closed()


async def test_a_page_does_not_keep_a_browsers_connection_waiting(road: Road) -> None:
    """Many small answers on one connection, each taken at once: no timer of any of them is left."""
    async with opened(road) as door, ClientSession(door.url) as session:
        for _ in range(50):
            async with session.get("/static/ui.css") as answer:
                assert answer.status == 200
        assert door.connected() == 1
