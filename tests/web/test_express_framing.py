"""How scans lie on a connection: cut, glued, pipelined, lied about. Every one is answered once, and in its order."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from server.web import connection
from server.web.connection import ScanConnection
from server.web.express import Lane
from tests.road import PATIENCE_S, Answer
from tests.web.stage import Stage, refused
from tests.web.wire import posted, wire

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The scan_ids that the lane answered."""
    told: list[str] = []
    whole = Lane._whole

    def note(self: Lane, scan: Any, *args: Any, **options: Any) -> bytes:
        told.append(scan.scan_id)
        return whole(self, scan, *args, **options)

    monkeypatch.setattr(Lane, "_whole", note)
    return told


def scan(stage: Stage, scan_id: str, *more: str, **options: Any) -> bytes:
    """A scan whose token says nothing: judged all the same, and nothing is spent."""
    body = {"qr_token": "x", "function_code": "bus", "scan_id": scan_id}
    return posted(body, stage.headers("gate"), *more, **options)


def ids(number: int) -> list[str]:
    return [f"{uuid4().hex[:8]}-{each}" for each in range(number)]


def judged(answer: Answer) -> str:
    """The scan_id of a verdict."""
    assert (answer.status, answer.json["result"]) == (200, "reject"), answer
    scan_id: str = answer.json["scan_id"]
    return scan_id


# --- Cut ----------------------------------------------------------------------------------------------------


async def test_head_and_body_in_two_packets_are_one_scan_of_the_lane(
    stage: Stage, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BODY_REST_S_MAX", PATIENCE_S)
    async with wire(stage.road.url) as line:
        for scan_id in ids(5):
            head, _, body = scan(stage, scan_id).partition(b"\r\n\r\n")
            await line.send(head + b"\r\n\r\n", body, pause_s=0.01)
            assert judged(await line.answer()) == taken[-1] == scan_id


async def test_a_scan_that_comes_byte_by_byte_is_answered(stage: Stage) -> None:
    (scan_id,) = ids(1)
    raw = scan(stage, scan_id)
    async with wire(stage.road.url) as line:
        await line.send(*(raw[each : each + 1] for each in range(len(raw))))
        assert judged(await line.answer()) == scan_id
        assert await line.alive()


async def test_a_scan_cut_at_any_place_is_answered_once(stage: Stage) -> None:
    raw = scan(stage, "cut-here")
    async with wire(stage.road.url) as line:
        for place in range(1, len(raw)):
            await line.send(raw[:place], raw[place:])
            assert judged(await line.answer()) == "cut-here"
        assert await line.alive()


async def test_who_waits_for_the_word_to_go_on_is_told_to(stage: Stage) -> None:
    (scan_id,) = ids(1)
    head, _, body = scan(stage, scan_id, "Expect: 100-continue").partition(b"\r\n\r\n")
    async with wire(stage.road.url) as line:
        await line.send(head + b"\r\n\r\n")
        assert (await line.answer()).status == 100
        await line.send(body)
        assert judged(await line.answer()) == scan_id
        assert await line.alive()


@pytest.mark.parametrize("first", [b"", b"{"], ids=["nothing", "a byte"])
async def test_a_body_that_does_not_come_is_not_waited_for_for_ever(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    monkeypatch.setattr("server.web.body.BODY_READ_S_MAX", 0.05)
    async with wire(stage.road.url) as line:
        await line.send(posted(first, stage.headers("gate"), length=100))
        refused(await line.answer(), 408, "REQUEST_TIMEOUT")


async def test_who_may_not_scan_is_told_so_without_their_body(stage: Stage) -> None:
    async with wire(stage.road.url) as line:
        await line.send(posted(b"", {}, length=100))
        refused(await line.answer(), 401, "TOKEN_REQUIRED")


# --- Glued --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 31, 32, 33, 50, 200])
async def test_scans_pipelined_in_one_packet_are_answered_in_order(
    stage: Stage, taken: list[str], number: int
) -> None:
    asked = ids(number)
    async with wire(stage.road.url) as line:
        await line.send(b"".join(scan(stage, each) for each in asked))
        assert [judged(answer) for answer in await line.answers(number)] == asked == taken
        assert await line.alive()


@pytest.mark.parametrize("number", [31, 32, 33, 50, 200])
async def test_scans_that_come_while_one_is_under_way_are_answered_in_order(
    stage: Stage, number: int
) -> None:
    """The parser stops at 32 of a connection: what it left is read when they are answered, without more coming."""
    asked = ids(number)
    await stage.road.parts.redis.client_pause(300)
    async with wire(stage.road.url) as line:
        await line.send(scan(stage, asked[0]), pause_s=0.05)
        await line.send(b"".join(scan(stage, each) for each in asked[1:]))
        assert [judged(answer) for answer in await line.answers(number)] == asked
        assert await line.alive()


async def test_scans_among_other_requests_are_answered_in_order(stage: Stage) -> None:
    asked = ids(40)
    said, expected = [], []
    for number, each in enumerate(asked):
        said.append(scan(stage, each))
        expected.append(each)
        if number % 3 == 0:
            said.append(HEALTH)
            expected.append("alive")
        if number % 7 == 0:
            said.append(posted(b"{", stage.headers("gate")))
            expected.append("INVALID_JSON")
    async with wire(stage.road.url) as line:
        await line.send(b"".join(said))
        answers = await line.answers(len(expected))
        told = [each.json.get("scan_id") or each.json.get("code") or each.json["status"] for each in answers]
        assert told == expected
        assert await line.alive()


async def test_a_half_sent_last_scan_waits_for_its_rest_and_the_others_do_not(stage: Stage) -> None:
    asked = ids(10)
    raw = b"".join(scan(stage, each) for each in asked)
    async with wire(stage.road.url) as line:
        await line.send(raw[:-10])
        assert [judged(answer) for answer in await line.answers(9)] == asked[:-1]
        await line.send(raw[-10:])
        assert judged(await line.answer()) == asked[-1]


async def test_scans_before_what_is_no_http_are_answered_and_then_the_connection_ends(stage: Stage) -> None:
    asked = ids(3)
    await stage.road.parts.redis.client_pause(100)
    async with wire(stage.road.url) as line:
        await line.send(b"".join(scan(stage, each) for each in asked), pause_s=0.02)
        await line.send(b"NO HTTP\r\n\r\n")
        assert [judged(answer) for answer in await line.answers(3)] == asked
        assert (await line.answer()).status == 400
        assert await line.closed()


async def test_a_client_that_never_reads_holds_little_and_keeps_nobody_waiting(
    stage: Stage, narrow: list[ScanConnection]
) -> None:
    packet = b"".join(scan(stage, each) for each in ids(100))
    async with wire(stage.road.url, deaf=True) as deaf, wire(stage.road.url) as line:
        async with asyncio.timeout(PATIENCE_S):
            while not narrow:
                deaf.writer.write(packet)
                await asyncio.sleep(0)
        for _ in range(100):
            deaf.writer.write(packet)
            await asyncio.sleep(0)
        for each in ids(10):
            await asyncio.sleep(0.05)
            await line.send(scan(stage, each))
            async with asyncio.timeout(2):
                assert judged(await line.answer()) == each
        (held,) = set(narrow)
        assert held.transport is not None
        assert held.transport.get_write_buffer_size() < 70_000  # 64 KiB, and what crossed it
        assert len(held._messages) <= 32
        assert not held.transport.is_reading()
        deaf.writer.transport.abort()


# --- Lied about ---------------------------------------------------------------------------------------------


async def test_a_body_longer_than_its_length_is_another_request_and_none(stage: Stage) -> None:
    body = b'{"qr_token":"x","function_code":"bus","scan_id":"long"}'
    async with wire(stage.road.url) as line:
        await line.send(posted(body + b"{}", stage.headers("gate"), length=len(body)))
        answers = [await line.answer()]
        if answers[0].status == 200:
            answers.append(await line.answer())
        assert answers[-1].status == 400
        assert await line.closed()


@pytest.mark.parametrize(
    "lines",
    [
        ("Transfer-Encoding: chunked",),
        ("Transfer-Encoding: identity",),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding: xchunked",),
        ("Content-Length: 3",),
        (" folded: yes",),
        ("X: a\r\n folded",),
        ("X: a\nContent-Length: 3",),
        ("X: a\rContent-Length: 3",),
        ("Content-Length : 3",),
        ("Content_Length\x00: 3",),
        ("X\x0b: 3",),
    ],
    ids=repr,
)
async def test_a_head_that_two_servers_could_read_differently_is_refused_and_the_connection_closed(
    stage: Stage, lines: tuple[str, ...], taken: list[str]
) -> None:
    async with wire(stage.road.url) as line:
        await line.send(scan(stage, "smuggler", *lines) + HEALTH)
        assert (await line.answer()).status == 400
        assert await line.closed()
    assert taken == []


async def test_lines_that_end_without_a_carriage_return_are_no_http(stage: Stage) -> None:
    raw = scan(stage, "bare")
    head, _, body = raw.partition(b"\r\n\r\n")
    async with wire(stage.road.url) as line:
        await line.send(head.replace(b"\r\n", b"\n") + b"\n\n" + body)
        assert (await line.answer()).status == 400
        assert await line.closed()
