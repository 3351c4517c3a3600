"""The lane and the ordinary way, side by side on the same databases: the same bytes get the same answer.

Each request of the corpus is sent to a server with the lane and to one without it, each with a ticket of its own, so
that neither finds what the other did.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from aiohttp import web

from server.app import build_app
from server.domain import ids, qr
from server.domain.redemption import Verdict
from server.limits import BODY_BYTES_MAX
from server.service import CONNECTION
from server.web.auth import Audience, Tokens
from server.web.express import Lane
from server.web.slow_clients import PatientRunner
from tests.road import Answer
from tests.web.stage import Stage
from tests.web.wire import Wire, posted, wire

OURS = {"ticket_code", "event_id", "ts", "scan_id", "request_id"}  # of one scan alone


class Scene:
    """A ticket of its own at one of the two servers, and what gates may show there."""

    def __init__(self, stage: Stage, url: str, ticket: str, later: str) -> None:
        self.stage = stage
        self.url = url
        self.gate = stage.headers("gate")
        self.tokens = Tokens(stage.road.config.jwt_keys)
        self.ticket = ticket
        self.later = later  # not valid yet
        self.keys = qr.QrKeys(dict(stage.road.config.qr_keys))

    def qr(self, ticket: str | None = None, *, age_ms: int = 0, keys: qr.QrKeys | None = None) -> str:
        now_ms = int(datetime.now(UTC).timestamp() * 1000) - age_ms
        return qr.issue(keys or self.keys, ticket or self.ticket, now_ms=now_ms, ttl_ms=30_000).token

    def body(self, **changes: Any) -> dict[str, Any]:
        """An honest scan; None takes a field away."""
        body = {"qr_token": self.qr(), "function_code": "bus", "scan_id": uuid4().hex} | changes
        return {name: value for name, value in body.items() if value is not None}

    def bearer(
        self, audience: Audience, subject: str, *, seconds: int = 60, generation: int = 0
    ) -> dict[str, str]:
        token = self.tokens.issue(audience, subject, seconds=seconds, generation=generation)
        return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
async def ordinary(stage: Stage) -> AsyncIterator[str]:
    """The address of a server without the lane, on the same parts."""
    runner = PatientRunner(build_app(stage.road.parts), **CONNECTION)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


@pytest.fixture(scope="module")
async def products(stage: Stage) -> tuple[int, int]:
    """What the tickets of all scenes are of: free, the one good now, the other later."""
    later = datetime.now(UTC) + timedelta(hours=1)
    return (
        await stage.road.product({"bus": 2, "ferry": 1}, price_fen=0, sellable=1000),
        await stage.road.product({"bus": 1}, price_fen=0, sellable=1000, valid_from=later),
    )


@pytest.fixture
async def both(stage: Stage, ordinary: str, products: tuple[int, int]) -> list[Scene]:
    # A buyer of their own: whoever owns the tickets of all scenes is told of hundreds after each order.
    buyer, road = uuid4().hex, stage.road
    now, later = [await road.buy({product: 2}, buyer=buyer) for product in products]
    return [
        Scene(stage, url, ticket["ticket_code"], other["ticket_code"])
        for url, ticket, other in zip((road.url, ordinary), now, later, strict=True)
    ]


def comparable(answer: Answer) -> tuple[Any, ...]:
    """An answer without what differs from one scan to the next: dates, times and ids (where there are any)."""
    headers = {name.lower(): value for name, value in answer.headers.items() if name.lower() != "date"}
    if re.fullmatch("[0-9a-f]{32}", headers.get("x-request-id", "")):
        headers["x-request-id"] = "made"
    length = headers.pop("content-length", None)
    assert length is None or int(length) == len(answer.raw)
    return answer.status, headers, _without_ids(answer.json)


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: "ours" if name in OURS and each is not None else _without_ids(each)
            for name, each in value.items()
        }
    return value


async def told(line: Wire) -> list[Any]:
    """Every answer until nothing more comes, and whether the connection lives on."""
    answers: list[Any] = []
    try:
        while True:
            async with asyncio.timeout(5 if not answers or answers[-1][0] == 100 else 0.1):
                answers.append(comparable(await line.answer()))
    except TimeoutError:
        return [*answers, await line.alive()]
    except (asyncio.IncompleteReadError, OSError):
        return [*answers, "closed"]


async def alike(both: list[Scene], said: Callable[[Scene], list[bytes]]) -> list[Any]:
    """What both servers answered to the same, one request after the other on one connection."""
    seen = []
    for scene in both:
        seen.append([])
        async with wire(scene.url) as line:
            for each in said(scene):
                await line.send(each)
                seen[-1] += await told(line)
    assert seen[0] == seen[1]
    return seen[0]


# --- Verdicts -----------------------------------------------------------------------------------------------

_KEY_9 = qr.QrKeys({9: b"9" * 32})
_FORGED = qr.QrKeys({1: b"1" * 32})
VERDICTS: dict[Verdict, Callable[[Scene], list[dict[str, Any]]]] = {
    Verdict.SUCCESS: lambda it: [it.body(venue_code="pier-1", terminal_device_id="gate-7")],
    Verdict.QR_MALFORMED: lambda it: [it.body(qr_token="中文")],
    Verdict.QR_TAMPERED: lambda it: [it.body(qr_token=it.qr(keys=_FORGED))],
    Verdict.QR_EXPIRED: lambda it: [it.body(qr_token=it.qr(age_ms=31_000))],
    Verdict.QR_UNKNOWN_KEY: lambda it: [it.body(qr_token=it.qr(keys=_KEY_9))],
    Verdict.TICKET_NOT_FOUND: lambda it: [it.body(qr_token=it.qr(ids.new_ticket_code()))],
    Verdict.TICKET_NOT_VALID: lambda it: [it.body(qr_token=it.qr(it.later))],
    Verdict.WRONG_FUNCTION: lambda it: [it.body(function_code="museum")],
    Verdict.VENUE_NOT_FOUND: lambda it: [it.body(venue_code="nowhere")],
    Verdict.WRONG_VENUE_FUNCTION: lambda it: [it.body(venue_code="pier-1", function_code="museum")],
    Verdict.ALREADY_REDEEMED: lambda it: [it.body(qr_token=token) for token in [it.qr()] * 2],
    Verdict.NO_REMAINING: lambda it: [it.body(function_code="ferry"), it.body(function_code="ferry")],
}


@pytest.mark.parametrize("verdict", Verdict, ids=lambda verdict: verdict.name)
async def test_every_verdict_is_told_alike_and_again_to_its_scan_id(
    both: list[Scene], verdict: Verdict
) -> None:
    def said(scene: Scene) -> list[bytes]:
        bodies = VERDICTS[verdict](scene)
        return [posted(body, scene.gate) for body in [*bodies, bodies[-1]]]

    *_, first, alive, again, still = await alike(both, said)
    assert alive is still is True
    assert first == again
    assert first[2].get("reason", "SUCCESS") == verdict.name


async def test_a_scan_id_that_was_told_of_another_ticket_is_a_conflict(both: list[Scene]) -> None:
    def said(scene: Scene) -> list[bytes]:
        first = scene.body()
        return [posted(body, scene.gate) for body in (first, first | {"qr_token": scene.qr(scene.later)})]

    answers = await alike(both, said)
    assert [answers[0][0], answers[2][0], answers[2][2]["code"]] == [200, 409, "SCAN_ID_CONFLICT"]
    assert answers[3] is True


# --- Bodies -------------------------------------------------------------------------------------------------

CHANGES: tuple[dict[str, Any], ...] = (
    {"scan_id": None}, {"scan_id": ""}, {"scan_id": "x" * 65}, {"scan_id": "a b"}, {"scan_id": 5}, {"scan_id": "a\n"},
    {"qr_token": None}, {"qr_token": ""}, {"qr_token": "x" * 513}, {"qr_token": 1}, {"qr_token": "\x00"},
    {"function_code": None}, {"function_code": "a b"}, {"function_code": "bus\n"}, {"function_code": "x" * 33},
    {"venue_code": ""}, {"venue_code": "中"}, {"terminal_device_id": "a/b"}, {"terminal_device_id": []},
    {"unknown": {"a": [1]}},
)  # fmt: skip
RAW = {
    "empty": b"",
    "blank": b" ",
    "cut off": b'{"qr_token": "x"',
    "null": b"null",
    "a list": b"[]",
    "a byte order mark": b'\xef\xbb\xbf{"qr_token":"x","function_code":"bus","scan_id":"bom"}',
    "UTF-16": '{"qr_token":"x","function_code":"bus","scan_id":"utf"}'.encode("utf-16"),
    "no UTF-8": b'{"qr_token":"\xff","function_code":"bus","scan_id":"no"}',
    "half a pair": b'{"qr_token":"\\ud800","function_code":"bus","scan_id":"half"}',
    "a name twice": b'{"qr_token":"x","qr_token":"y","function_code":"bus","scan_id":"twice","scan_id":"last"}',
    "not a number": b'{"qr_token":"x","function_code":"bus","scan_id":"nan","more":NaN}',
    "more behind it": b'{"qr_token":"x","function_code":"bus","scan_id":"more"}{}',
    "blanks around": b' \r\n{"qr_token":"x","function_code":"bus","scan_id":"around"}\t\n',
    "deep": b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "as large as may be": b" " * (BODY_BYTES_MAX - 2) + b"{}",
    "too large by one": b" " * (BODY_BYTES_MAX - 1) + b"{}",
    "far too large": b" " * (4 * BODY_BYTES_MAX) + b"{}",
}


@pytest.mark.parametrize("changes", CHANGES, ids=repr)
async def test_a_field_is_judged_alike(both: list[Scene], changes: dict[str, Any]) -> None:
    await alike(both, lambda scene: [posted(scene.body(**changes), scene.gate)])


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW.keys())
async def test_a_body_is_judged_alike(both: list[Scene], raw: bytes) -> None:
    await alike(both, lambda scene: [posted(raw, scene.gate)])


# --- Heads --------------------------------------------------------------------------------------------------


def chunked(scene: Scene) -> bytes:
    raw = msgspec.json.encode(scene.body())
    head = posted(b"", scene.gate, "Transfer-Encoding: chunked", length=-1)
    return head + b"%x\r\n" % len(raw) + raw + b"\r\n0\r\n\r\n"


HEADS: dict[str, Callable[[Scene], bytes]] = {
    "plain": lambda it: posted(it.body(), it.gate),
    "chunked": chunked,
    **{
        f"type {kind}": lambda it, kind=kind: posted(it.body(), it.gate, kind=kind)
        for kind in (
            None, "", "text/plain", "application/json; charset=utf-8", "application/json; charset=latin-1",
            "Application/JSON", "application/json;", "application/jsonp", " application/json ",
        )
    },
    **{
        more: lambda it, more=more: posted(it.body(), it.gate, more)
        for more in (
            "Content-Encoding: gzip", "Content-Encoding: identity", "Content-Encoding:", "Connection: close",
            "Connection: keep-alive", "Connection: Close, x", "Expect: 100-continue", "Expect: the-unexpected",
            "Upgrade: websocket", "Connection: upgrade\r\nUpgrade: websocket", "Connection: upgrade\r\nUpgrade: h2c",
            "X-Request-Id: a-good-request-id", "X-Request-Id: bad", "X-Request-Id: " + "a" * 65,
            "X-Request-Id: a-first-request\r\nX-Request-Id: a-second-request", "X-Request-Id: äöüäöüäöü",
            "Authorization: Bearer another", "Authorization: Basic eDp5", "Content-Type: text/plain",
            "Origin: https://elsewhere.example", "Accept: text/html", "Accept-Encoding: gzip", "Range: bytes=0-1",
            "If-None-Match: *", "Cookie: a=b", "X-HTTP-Method-Override: DELETE", "Trailer: X", "TE: trailers",
            "Sec-WebSocket-Protocol: gateline.v1", "Host: y", "Keep-Alive: timeout=1",
        )
    },
    **{
        first: lambda it, first=first: posted(it.body(), it.gate, first=first)
        for first in (
            "POST /venue/scan HTTP/1.0", "POST /venue/scan HTTP/1.2", "POST /venue/scan HTTP/2.0",
            "POST http://x/venue/scan HTTP/1.1", "POST /venue/scan?a=b HTTP/1.1", "POST /venue/scan/ HTTP/1.1",
            "POST /venue/scan#a HTTP/1.1", "POST //venue/scan HTTP/1.1", "POST /venue/./scan HTTP/1.1",
            "POST /venue/%73can HTTP/1.1", "POST /VENUE/scan HTTP/1.1", "post /venue/scan HTTP/1.1",
            "PUT /venue/scan HTTP/1.1", "GET /venue/scan HTTP/1.1", "PUT /nowhere HTTP/1.1",
            "POST  /venue/scan HTTP/1.1", "POST /venue/scan", "POST * HTTP/1.1", "CONNECT x:1 HTTP/1.1",
            "POST ä HTTP/1.1",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("said", HEADS.values(), ids=HEADS.keys())
async def test_a_head_is_judged_alike(both: list[Scene], said: Callable[[Scene], bytes]) -> None:
    await alike(both, lambda scene: [said(scene)])


async def test_a_scan_without_a_host_is_refused_alike(both: list[Scene]) -> None:
    answers = await alike(both, lambda it: [posted(it.body(), it.gate).replace(b"Host: x\r\n", b"", 1)])
    assert [answers[0][0], answers[1]] == [400, "closed"]


# --- Who asks -----------------------------------------------------------------------------------------------

CALLERS: dict[str, Callable[[Scene], dict[str, str]]] = {
    "nobody": lambda it: {},
    "a buyer": lambda it: it.stage.headers("buyer"),
    "an analyst": lambda it: it.stage.headers("analyst"),
    "an expired token": lambda it: it.bearer(Audience.GATE, "gina", seconds=-1),
    "an operator who is gone": lambda it: it.bearer(Audience.GATE, "nobody"),
    "an older password": lambda it: it.bearer(Audience.GATE, "gina", generation=-1),
    "an analyst at a gate": lambda it: it.bearer(Audience.GATE, "amy"),
    "the scheme in capitals": lambda it: {
        "Authorization": it.gate["Authorization"].replace("Bearer", "BEARER")
    },
    "two blanks": lambda it: {"Authorization": it.gate["Authorization"].replace(" ", "  ")},
    "no scheme": lambda it: {"Authorization": it.gate["Authorization"].removeprefix("Bearer ")},
    "bytes": lambda it: {"Authorization": "Bearer \xff\udc80".encode("utf-8", "replace").decode()},
    "no token": lambda it: {"Authorization": "Bearer"},
}


@pytest.mark.parametrize("who", CALLERS.values(), ids=CALLERS.keys())
async def test_who_may_not_scan_is_told_so_alike(
    both: list[Scene], who: Callable[[Scene], dict[str, str]]
) -> None:
    await alike(both, lambda scene: [posted(scene.body(), who(scene))])


async def test_an_operator_who_was_disabled_is_refused_alike_at_once(both: list[Scene], stage: Stage) -> None:
    gate = await stage.road.gate("gus")
    said: Callable[[Scene], list[bytes]] = lambda scene: [posted(scene.body(), gate)]  # noqa: E731
    assert (await alike(both, said))[0][0] == 200
    await stage.pg.execute("UPDATE operators SET enabled = false WHERE username = 'gus'")
    await stage.road.parts.directory.refresh()
    assert (await alike(both, said))[0][2]["code"] == "OPERATOR_DISABLED"


async def test_a_plain_scan_is_the_lanes(both: list[Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all of the above would compare the ordinary way with itself."""
    told_by_lane = []
    verdict = Lane.verdict

    def note(self: Lane, scan: Any, line: str, *, last: bool) -> bytes:
        told_by_lane.append(scan.scan_id)
        return verdict(self, scan, line, last=last)

    monkeypatch.setattr(Lane, "verdict", note)
    body = both[0].body()
    for scene in both:
        async with wire(scene.url) as line:
            await line.send(posted(body, scene.gate))
            assert (await line.answer()).status == 200
    assert told_by_lane == [body["scan_id"]]
