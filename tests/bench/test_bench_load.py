"""The load generators against small real servers: each request once, each answer at its request, stalls not hidden."""

from __future__ import annotations

import asyncio
import json
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from bench.answers import AnswerError, client_frame
from bench.lanes import checked, expected
from bench.load_http import HttpLoad
from bench.load_socket import UNDECIDED, NotServedError, SocketLoad
from bench.requests import SCAN_ID_CHARS, post
from bench.run import Run, Work
from bench.site import Unclean

PASSED = b'"result":"success"'
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Start = Callable[[str, Handler], Awaitable[str]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a server with one route; gives its address."""
    servers = []

    async def one(path: str, handler: Handler) -> str:
        app = web.Application()
        app.router.add_route("*", path, handler)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return str(server.make_url("")).rstrip("/")

    yield one
    for server in servers:
        await server.close()


def requests(number: int) -> list[bytes]:
    """Numbered posts."""
    return [post("/x", "localhost", "token", json.dumps({"number": each}).encode()) for each in range(number)]


async def echo(request: web.Request) -> web.Response:
    """Passes even numbers; each answer names its request."""
    number = (await request.json())["number"]
    return web.json_response(
        {"result": "success" if number % 2 == 0 else "reject", "number": number},
        dumps=lambda value: json.dumps(value, separators=(",", ":")),
    )


async def test_a_closed_loop_asks_each_request_once_and_matches_answers(start: Start) -> None:
    async with HttpLoad(await start("/x", echo), 8) as load:
        run = await load.closed(Work(requests(500), PASSED, keep_every=1), 30.0)

    assert run.asked == run.answered == 500
    assert run.statuses() == {"200": 500}
    assert list(run.passed) == [1, 0] * 250
    assert all(json.loads(answer.split(b"\r\n\r\n")[1])["number"] == at for at, answer in run.kept.items())
    assert all(done >= sent == due > 0 for due, sent, done in zip(run.due, run.sent, run.done, strict=True))


async def test_a_closed_loop_ends_with_its_time_and_says_what_was_not_asked(start: Start) -> None:
    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(0.02)
        return await echo(request)

    async with HttpLoad(await start("/x", slow), 2) as load:
        run = await load.closed(Work(requests(1_000), PASSED), 0.2)
        again = await load.closed(Work(requests(4), PASSED), 30.0)

    assert 2 <= run.asked < 1_000
    assert run.answered == run.asked
    assert [bool(sent) for sent in run.sent] == [True] * run.asked + [False] * (1_000 - run.asked)
    assert again.answered == 4


async def test_in_an_open_loop_a_stall_counts_for_all_who_came_meanwhile(start: Start) -> None:
    async def stalls_once(request: web.Request) -> web.Response:
        if (await request.json())["number"] == 0:
            await asyncio.sleep(0.5)
        return await echo(request)

    async with HttpLoad(await start("/x", stalls_once), 1) as load:
        run = await load.paced(Work(requests(5), PASSED), [0.01, 0.02, 0.03, 0.04, 0.05])

    # They were due while the only connection waited: each waited for the rest of that half second.
    assert [round(due - run.began, 3) for due in run.due] == [0.01, 0.02, 0.03, 0.04, 0.05]
    assert all(latency >= 450.0 for latency in run.latencies_ms())
    assert all(sent - due >= 0.45 for due, sent in zip(run.due[1:], run.sent[1:], strict=True))
    # That is the server's doing: the generator took them up as they came.
    assert all(due <= noticed < run.done[0] for due, noticed in zip(run.due, run.noticed, strict=True))


async def test_an_open_loop_sends_nothing_before_it_is_due(start: Start) -> None:
    async with HttpLoad(await start("/x", echo), 4) as load:
        run = await load.paced(Work(requests(20), PASSED), [each * 0.01 for each in range(20)])

    assert run.answered == 20
    assert all(sent >= due for due, sent in zip(run.due, run.sent, strict=True))


async def test_a_connection_that_the_server_ends_is_told_of(start: Start) -> None:
    async def cuts(request: web.Request) -> web.Response:
        if (await request.json())["number"] == 3:
            assert request.transport is not None
            request.transport.abort()
        return await echo(request)

    async with HttpLoad(await start("/x", cuts), 2) as load:
        run = await load.closed(Work(requests(10), PASSED), 30.0)

    assert run.lost == 1
    assert run.statuses() == {"200": 9, "none": 1}
    with pytest.raises(Unclean, match="1 connections lost"):
        checked("lane", run, wanted=5)


async def test_answers_that_come_in_pieces_are_put_together() -> None:
    body = b'{"result":"success"}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            for first in range(0, len(answer), 9):
                writer.write(answer[first : first + 9])
                await writer.drain()
                await asyncio.sleep(0.002)
        writer.close()

    server = await asyncio.start_server(trickles, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, HttpLoad(f"http://127.0.0.1:{port}", 2) as load:
        run = await load.closed(Work(requests(6), PASSED, keep_every=1), 30.0)

    assert run.lost == 0
    assert run.successes == 6
    assert set(run.kept.values()) == {answer}


def a_run(statuses: list[int], passed: list[int]) -> Run:
    """A run that is over."""
    run = Run(Work([b""] * len(statuses), PASSED), array("d", [1.0] * len(statuses)))
    for at, (status, each) in enumerate(zip(statuses, passed, strict=True)):
        run.sent[at], run.done[at], run.status[at], run.passed[at] = 1.0, 2.0, status, each
    return run


def test_a_phase_with_another_status_or_another_number_of_passes_does_not_count() -> None:
    checked("lane", a_run([200, 200], [1, 1]), wanted=2)
    expected("lane", a_run([201, 422], [1, 0]), statuses={"201", "422"}, wanted=1)
    with pytest.raises(Unclean, match="503"):
        checked("lane", a_run([200, 503], [1, 1]), wanted=2)
    with pytest.raises(Unclean, match="1 of 2 went as wished"):
        checked("lane", a_run([200, 200], [1, 0]), wanted=2)
    with pytest.raises(Unclean, match="2 of 1 went as wished"):
        expected("lane", a_run([200, 200], [1, 1]), statuses={"200"}, wanted=1)


def frames(number: int) -> list[bytes]:
    """Scans whose ids end with their numbers."""
    bodies = [{"scan_id": "a" * (SCAN_ID_CHARS - 8) + f"{each:08d}"} for each in range(number)]
    return [client_frame(json.dumps(body).encode()) for body in bodies]


def spoken(scan_id: str, **fields: Any) -> str:
    """An answer as the server spells it."""
    return json.dumps({**fields, "scan_id": scan_id}, separators=(",", ":"))


async def gate_server(request: web.Request) -> web.WebSocketResponse:
    """Answers in pairs, the later one first, with a ping between; refuses every seventh, fails every eleventh."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    assert request.headers["Authorization"] == "Bearer t"
    waiting: list[str] = []
    async for message in socket:
        assert message.type is WSMsgType.TEXT
        waiting.append(json.loads(message.data)["scan_id"])
        if len(waiting) < 2:
            continue
        await socket.ping(b"still there?")
        while waiting:
            scan_id = waiting.pop()
            number = int(scan_id[-8:])
            if number % 11 == 5:
                await socket.send_str(spoken(scan_id, code="OVERLOADED", request_id="r"))
            else:
                await socket.send_str(spoken(scan_id, result="reject" if number % 7 == 3 else "success"))
    return socket


@pytest.mark.parametrize("paced", [False, True])
async def test_answers_on_sockets_are_matched_by_their_scan_ids(start: Start, paced: bool) -> None:
    address = await start("/venue/stream", gate_server)
    work = Work(frames(400), PASSED, keep_every=1, over=[each % 4 for each in range(400)])

    async with SocketLoad(address, "/venue/stream", ["t"] * 4, 10) as load:
        if paced:
            run = await load.paced(work, [each * 0.0005 for each in range(400)])
        else:
            run = await load.closed(work, 30.0)

    assert run.asked == run.answered == 400
    for number in range(400):
        failed = number % 11 == 5
        assert run.status[number] == (UNDECIDED if failed else 200)
        assert run.passed[number] == (not failed and number % 7 != 3)
        assert json.loads(run.kept[number])["scan_id"].endswith(f"{number:08d}")


async def test_a_gate_has_no_more_scans_under_way_than_its_window(start: Start) -> None:
    most = 0

    async def slow_gate(request: web.Request) -> web.WebSocketResponse:
        nonlocal most
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        waiting: list[str] = []
        while True:
            try:
                message = await socket.receive(timeout=0.05)
            except TimeoutError:
                most = max(most, len(waiting))
                for scan_id in waiting:
                    await socket.send_str(spoken(scan_id, result="success"))
                waiting.clear()
                continue
            if message.type is not WSMsgType.TEXT:
                return socket
            waiting.append(json.loads(message.data)["scan_id"])

    address = await start("/venue/stream", slow_gate)
    async with SocketLoad(address, "/venue/stream", ["t"], 6) as load:
        run = await load.paced(Work(frames(30), PASSED, over=[0] * 30), [0.001] * 30)

    assert run.successes == 30
    assert most == 6


async def test_a_lane_that_is_not_there_is_told_apart_from_a_gate_that_is_refused(start: Start) -> None:
    async def refuses(request: web.Request) -> web.Response:
        return web.Response(status=401)

    with pytest.raises(NotServedError):
        async with SocketLoad(await start("/other", refuses), "/venue/stream", ["t"], 1):
            pass
    with pytest.raises(AnswerError, match="401"):
        async with SocketLoad(await start("/venue/stream", refuses), "/venue/stream", ["t"], 1):
            pass
