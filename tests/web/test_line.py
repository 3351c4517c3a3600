"""What is more than a turn of the event loop takes stands in line; a line that takes too long gets shorter."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from server.flows.shop import Shop
from server.limits import HELD_BYTES, REQUEST_COST, TURN_COST, TURNED_AWAY_MAX
from server.telemetry import CONNECTIONS_CUT
from server.web import connection as connection_module
from server.web import line as line_module
from server.web.connection import ScanConnection
from server.web.line import Line, cost_of, is_scan, refused_unread
from tests.conftest import eventually
from tests.road import Answer
from tests.web.stage import Stage
from tests.web.wire import Wire, posted, wire

GATES = 60
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Comer:
    """Notes what became of it."""

    def __init__(self, name: int, log: list[str], *, plain: bool = True) -> None:
        self._name = name
        self._log = log
        self._plain = plain

    def come_up(self) -> None:
        self._log.append(f"took {self._name}")

    def turn_away(self) -> bool:
        if self._plain:
            self._log.append(f"refused {self._name}")
        return self._plain


async def turns(line: Line, number: int = 10) -> None:
    """Let the loop turn."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_turn_takes_so_many_bytes_and_the_next_ones_go_on_in_order() -> None:
    line, log = Line(), []
    assert line.admits(TURN_COST)
    for name in range(3):
        assert not line.admits(1), "nobody overtakes"
        line.wait(TURN_COST, Comer(name, log), scans=True)
    assert log == []
    await turns(line)

    assert log == ["took 0", "took 1", "took 2"]
    assert line.admits(1), "the line is over"


async def test_in_a_line_that_takes_too_long_the_newest_get_through_and_the_oldest_are_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line_module, "LINE_WAIT_S_MAX", 0.0)
    line, log = Line(), []
    line.admits(TURN_COST)
    number = TURNED_AWAY_MAX + 9
    for name in range(number):
        line.wait(TURN_COST // 4, Comer(name, log, plain=name != 1), scans=True)
    await asyncio.sleep(0)

    assert log[:4] == [f"took {number - each}" for each in range(1, 5)]
    assert log[4:7] == ["refused 0", "took 1", "refused 2"], "what cannot be refused unread is read"
    assert len(log) == 4 + TURNED_AWAY_MAX, "a turn has an end"
    await turns(line)
    assert sorted(each.split()[1] for each in log) == sorted(str(name) for name in range(number))


async def test_scans_get_most_of_a_turn_and_others_the_rest() -> None:
    line, log = Line(), []
    line.admits(TURN_COST)
    for name in range(8):
        line.wait(TURN_COST // 4, Comer(name, log), scans=True)
        line.wait(TURN_COST // 4, Comer(name + 100, log), scans=False)
    await asyncio.sleep(0)

    assert log == ["took 0", "took 1", "took 2", "took 100"]
    await turns(line)
    assert len(log) == 16


async def test_what_cannot_be_refused_unread_takes_no_more_than_another_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line_module, "LINE_WAIT_S_MAX", 0.0)
    line, log = Line(), []
    line.admits(TURN_COST)
    for name in range(50):
        line.wait(TURN_COST // 4, Comer(name, log, plain=False), scans=False)
    await asyncio.sleep(0)

    assert len(log) == 8


def test_any_other_request_costs_as_much_as_several_scans() -> None:
    assert cost_of(HEALTH, scans=False) == REQUEST_COST
    assert cost_of(request(), scans=True) == len(request())
    assert is_scan(request()) and not is_scan(HEALTH)


# --- What may be refused without being parsed ----------------------------------------------------------------

BODY = b'{"qr_token":"x","function_code":"bus","scan_id":"of-the-gate"}'


def request(
    *lines: bytes, first: bytes = b"POST /venue/scan HTTP/1.1", body: bytes = BODY, length: int = 0
) -> bytes:
    """A scan with these header lines besides."""
    head = [first, b"Host: x", *lines, b"Content-Length: %d" % (length or len(body))]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def test_a_plain_scan_is_refused_with_its_id() -> None:
    told = msgspec.json.decode(refused_unread(request(), "r-1") or b"{}")
    assert (told["code"], told["scan_id"], told["request_id"]) == ("OVERLOADED", "of-the-gate", "r-1")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"",
        b'{"scan_id": 7}',
        b'{"scan_id":"not an id"}',
        b'{"scan_id":"' + b"a" * 65 + b'"}',
        b"\xff{",
    ],
)
def test_without_an_id_that_could_be_one_none_is_repeated(body: bytes) -> None:
    raw = request(body=body) if body else request(body=b"").replace(b"Length: 0", b"Length: 0")
    assert "scan_id" not in msgspec.json.decode(refused_unread(raw, "r-1") or b'{"scan_id":1}')


ODD = {
    "another address": request(first=b"POST /orders HTTP/1.1"),
    "a longer address": request(first=b"POST /venue/scans HTTP/1.1"),
    "another method": request(first=b"GET /venue/scan HTTP/1.1"),
    "an older HTTP": request(first=b"POST /venue/scan HTTP/1.0"),
    "half a head": request()[:60],
    "a body still to come": request()[:-1],
    "more behind it": request() + b"G",
    "two of them": request() + request(),
    "two lengths": request(b"Content-Length: 5"),
    "a length in disguise": request(b"Content-Length : 5"),
    "a folded length": request(b"X: y\r\n Content-Length: 5"),
    "chunks": request(b"Transfer-Encoding: chunked"),
    "chunks in other letters": request(b"tRANSFER-eNCODING:chunked"),
    "an expectation": request(b"Expect: 100-continue"),
    "an upgrade": request(b"Upgrade: websocket"),
    "the end of the connection": request(b"Connection: close"),
    "a packed body": request(b"Content-Encoding: gzip"),
    "a bare line feed": request(b"X: y\nTransfer-Encoding: chunked"),
    "no length": b"POST /venue/scan HTTP/1.1\r\nHost: x\r\n\r\n",
    "a length that is none": request().replace(b"Content-Length: 62", b"Content-Length: +62"),
    "nothing": b"",
    "a bare carriage return": request(b"X: a\rTransfer-Encoding: chunked"),
    "a NUL": request(b"X: a\0b"),
    "a name with a blank": request(b"X y: z"),
    "a name with a vertical tab": request(b"Transfer-Encoding\x0b: chunked"),
    "no colon": request(b"nonsense"),
    "two hosts": request(b"Host: y"),
    "no host": request().replace(b"Host: x\r\n", b""),
    "a long head": request(b"X: " + b"a" * 5_000),
    "many headers": request(*[b"X: y"] * 50),
    "the end of a proxy's connection": request(b"Proxy-Connection: close"),
}


def test_a_connection_that_stays_as_it_is_says_nothing() -> None:
    assert refused_unread(request(b"Connection: keep-alive"), "r-1")


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD)
def test_whatever_is_not_plainly_one_scan_has_to_be_parsed(raw: bytes) -> None:
    assert refused_unread(raw, "r-1") is None


# --- A flood -------------------------------------------------------------------------------------------------


def scan(stage: Stage, scan_id: str) -> bytes:
    """Judged, and nothing is spent."""
    body = {"qr_token": "x", "function_code": "bus", "scan_id": scan_id}
    return posted(body, stage.headers("gate"))


async def told(gate: Wire, stage: Stage, name: str) -> Answer:
    """One scan and its answer, which is of this very scan."""
    await gate.send(scan(stage, name))
    answer = await gate.answer()
    assert answer.json["scan_id"] == name
    return answer


@pytest.mark.parametrize("wait_s", [60.0, 0.0], ids=["a long line", "a line too long"])
async def test_in_a_flood_each_gate_is_told_once_and_its_connection_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, wait_s: float
) -> None:
    async with AsyncExitStack() as stack:
        gates = [await stack.enter_async_context(wire(stage.road.url)) for _ in range(GATES)]
        monkeypatch.setattr(line_module, "TURN_COST", 1)
        monkeypatch.setattr(line_module, "LINE_WAIT_S_MAX", wait_s)
        seen: Counter[int] = Counter()
        for each in range(4):
            answers = await asyncio.gather(
                *(told(gate, stage, f"{each}-{at}") for at, gate in enumerate(gates))
            )
            for answer in answers:
                seen[answer.status] += 1
                if answer.status == 503:
                    assert (answer.json["code"], answer.headers["Retry-After"]) == ("OVERLOADED", "1")
                    assert answer.headers["X-Request-Id"] == answer.json["request_id"]
        monkeypatch.undo()  # the flood is over
        assert all(await asyncio.gather(*(gate.alive() for gate in gates)))
    assert seen[200] + seen[503] == 4 * GATES
    assert seen[200] > 0
    assert (seen[503] > 0) == (wait_s == 0.0)


async def test_in_a_line_too_long_whatever_is_not_plainly_a_scan_is_served_or_refused_for_good(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = scan(stage, "the-same")
    kinds = (
        [raw],
        [HEALTH],
        [raw[:50], raw[50:]],
        [raw + HEALTH],
    )  # the third in two packets, the last glued
    ends: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        gates = [await stack.enter_async_context(wire(stage.road.url)) for _ in range(GATES)]
        monkeypatch.setattr(line_module, "TURN_COST", 1)
        monkeypatch.setattr(line_module, "LINE_WAIT_S_MAX", 0.0)
        await asyncio.gather(*(gate.send(*kinds[at % len(kinds)]) for at, gate in enumerate(gates)))
        for at, gate in enumerate(gates):
            try:
                first = await gate.answer()
            except (ConnectionResetError, asyncio.IncompleteReadError):
                assert at % len(kinds) == 2, "its second half came to a connection that had ended"
                continue
            if first.status == 503:
                assert first.json["code"] == "OVERLOADED"
                if first.headers.get("Connection") == "close":
                    assert await gate.closed()
                    ends["for good"] += 1
                    continue
                assert at % len(kinds) == 0, "only what is plainly a scan may come again"
                ends["unread"] += 1
            elif at % len(kinds) == 1:
                assert first.json == {"status": "alive"}
                ends["served"] += 1
            if at % len(kinds) == 3:
                assert (await gate.answer()).json == {"status": "alive"}
    assert ends["for good"] and ends["unread"]


async def test_a_second_piece_that_comes_while_the_first_stands_in_line_leaves_nobody_deaf(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    come_up, turn_away = ScanConnection.come_up, Line._turn
    later: list[Line] = []

    def held_back(self: Line) -> None:  # the line stands still while pieces come
        later.append(self)

    monkeypatch.setattr(Line, "_turn", held_back)
    async with AsyncExitStack() as stack:
        monkeypatch.setattr(Line, "_turn", turn_away)
        gates = [await stack.enter_async_context(wire(stage.road.url)) for _ in range(GATES)]
        monkeypatch.setattr(Line, "_turn", held_back)
        monkeypatch.setattr(line_module, "TURN_COST", 1)
        monkeypatch.setattr(line_module, "LINE_WAIT_S_MAX", 0.0)
        raws = [scan(stage, f"a-{at}") for at in range(GATES)]
        heads = [raw.index(b"\r\n\r\n") + 4 for raw in raws]
        await asyncio.gather(*(g.send(raw[:end]) for g, raw, end in zip(gates, raws, heads, strict=True)))
        await asyncio.sleep(0.05)
        await asyncio.gather(*(g.send(raw[end:]) for g, raw, end in zip(gates, raws, heads, strict=True)))
        await asyncio.sleep(0.05)
        monkeypatch.setattr(Line, "_turn", turn_away)
        for line in later[:1]:
            line._turn()
        refused = 0
        for at, gate in enumerate(gates):
            answer = await gate.answer()
            assert answer.json.get("scan_id", f"a-{at}") == f"a-{at}"
            refused += answer.status == 503
            if answer.headers.get("Connection") != "close":
                assert await gate.alive(), "a retry is heard"
        assert refused
    assert come_up is ScanConnection.come_up


async def test_what_only_looks_like_a_scan_amid_another_request_is_never_refused_as_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        gates = [await stack.enter_async_context(wire(stage.road.url)) for _ in range(GATES)]
        for gate in gates:
            await gate.send(b"POST /venue/scan HTTP/1.1\r\nX-Said: ")
        await asyncio.sleep(0.05)  # that much is read
        monkeypatch.setattr(line_module, "TURN_COST", 1)
        monkeypatch.setattr(line_module, "LINE_WAIT_S_MAX", 0.0)
        await asyncio.gather(*(gate.send(scan(stage, f"a-{at}")) for at, gate in enumerate(gates)))
        answers = [await gate.answer() for gate in gates]
        for at, answer in enumerate(answers):
            if answer.status == 200:
                assert answer.json["scan_id"] == f"a-{at}"
            else:
                assert (answer.status, answer.headers.get("Connection")) == (503, "close")
        assert {answer.status for answer in answers} == {200, 503}


async def test_nobody_is_refused_before_what_they_asked_first_is_answered(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, going_on, begun = Shop.window, asyncio.Event(), 0

    async def slow(self: Shop) -> Any:
        nonlocal begun
        begun += 1
        await going_on.wait()
        return await window(self)

    monkeypatch.setattr(Shop, "window", slow)
    async with AsyncExitStack() as stack:
        gates = [await stack.enter_async_context(wire(stage.road.url)) for _ in range(GATES)]
        for gate in gates:
            await gate.send(b"GET /catalog HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: asyncio.sleep(0, begun == GATES))
        monkeypatch.setattr(line_module, "TURN_COST", 1)
        monkeypatch.setattr(line_module, "LINE_WAIT_S_MAX", 0.0)
        await asyncio.gather(*(gate.send(scan(stage, f"a-{at}")) for at, gate in enumerate(gates)))
        await asyncio.sleep(0.05)
        going_on.set()
        for at, gate in enumerate(gates):
            assert "products" in (await gate.answer()).json
            assert (await gate.answer()).json["scan_id"] == f"a-{at}"


async def test_a_connection_that_fails_keeps_no_one_else(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = ScanConnection._parse

    def failing(self: ScanConnection, data: bytes) -> None:
        if b"poison" in data:
            raise ArithmeticError("nobody expected it")
        parse(self, data)

    monkeypatch.setattr(ScanConnection, "_parse", failing)
    async with AsyncExitStack() as stack:
        gates = [await stack.enter_async_context(wire(stage.road.url)) for _ in range(GATES)]
        monkeypatch.setattr(line_module, "TURN_COST", 1)
        await asyncio.gather(
            *(
                gate.send(scan(stage, f"poison-{at}" if 10 <= at < 13 else f"a-{at}"))
                for at, gate in enumerate(gates)
            )
        )
        for at, gate in enumerate(gates):
            if 10 <= at < 13:
                assert await gate.closed()
            else:
                assert (await gate.answer()).json["scan_id"] == f"a-{at}"


async def test_a_gate_that_leaves_the_line_keeps_no_one_else(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with wire(stage.road.url) as stays:
        async with wire(stage.road.url) as goes:
            monkeypatch.setattr(line_module, "TURN_COST", 1)
            await asyncio.gather(stays.send(scan(stage, "first")), goes.send(scan(stage, "gone")))
        answer = await stays.answer()
        assert (answer.status, answer.json["scan_id"]) == (200, "first")
        assert await stays.alive()


async def test_the_line_holds_no_more_than_its_bound_and_whoever_brings_little_is_served(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Much: " + b"a" * HELD_BYTES
    bound = 9 * len(piece) + 1_000  # room for nine of them, and then not for all the gates
    turn, lines, cut = Line._turn, set[Line](), CONNECTIONS_CUT.labels("LINE_FULL")._value
    before = cut.get()

    def stand_still(self: Line) -> None:
        lines.add(self)

    async with AsyncExitStack() as stack:
        large = [await stack.enter_async_context(wire(stage.road.url)) for _ in range(20)]
        gates = [await stack.enter_async_context(wire(stage.road.url)) for _ in range(20)]
        monkeypatch.setattr(Line, "_turn", stand_still)
        monkeypatch.setattr(line_module, "TURN_COST", 1)
        monkeypatch.setattr(connection_module, "LINE_BYTES_MAX", bound)
        for _ in range(2):
            await asyncio.gather(*(each.send(piece) for each in large))
            await asyncio.sleep(0.05)
        await asyncio.gather(*(gate.send(scan(stage, f"a-{at}")) for at, gate in enumerate(gates)))
        await asyncio.sleep(0.05)

        (line,) = lines
        assert len(piece) * 5 < line.held <= bound + 20 * HELD_BYTES
        assert cut.get() - before >= 10
        monkeypatch.setattr(Line, "_turn", turn)
        line._turn()
        for at, gate in enumerate(gates):
            assert (await gate.answer()).json["scan_id"] == f"a-{at}"
            assert await gate.alive()
        assert line.held == 0
