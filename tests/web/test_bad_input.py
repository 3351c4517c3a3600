"""Bad input at every endpoint: a stable code, one shape, no stack trace, and nothing changed.

The attacks are made from the route table and from the OpenAPI document: a new route, field or parameter is attacked
from the day it is there. Everything in Postgres and Redis is compared before and after every test.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession
from multidict import CIMultiDict
from yarl import URL

from server.limits import BODY_BYTES_MAX
from server.web.connection import ScanConnection
from server.web.routes import ROUTES, Access, Route
from tests.conftest import eventually
from tests.road import PATIENCE_S, Answer
from tests.web.document import Document
from tests.web.stage import PLAINLY, SIGNED, WITH_BODY, WITH_PLACE, WITH_QUERY, Ask, Stage, name, refused
from tests.web.wire import wire

pytestmark = pytest.mark.usefixtures("watched")


@pytest.fixture
async def watched(stage: Stage) -> AsyncIterator[None]:
    """Holds everything in Postgres and Redis after the test against what was there before."""
    async with stage.unchanged():
        yield


def with_body(stage: Stage, ask: Ask, route: Route, body: bytes) -> Ask:
    """The request with other bytes, signed if the route wants a signature."""
    signature = stage.signed(route, body)
    return msgspec.structs.replace(ask, body=body, headers={**ask.headers, **signature})


# --- Bodies -------------------------------------------------------------------------------------------------

NOT_JSON = {
    "cut off": b'{"a": [1, 2',
    "single quotes": b"{'a': 1}",
    "two values": b"{}{}",
    "a comma too many": b'{"a": 1,}',
    "not a number": b'{"a": NaN}',
    "infinity": b'{"a": Infinity}',
    "a comment": b"/* */ {}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "with a byte order mark": b"\xef\xbb\xbf{}",
    "no UTF-8": b"\xff\xfe{}",
    "NUL": b"\x00",
    "blanks only": b"   ",
    "a name that is half a surrogate pair": b'{"\\ud800": 1}',
    "nested 30,000 deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "lists nested 30,000 deep": b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
}
WRONG_ROOT = {
    "null": b"null",
    "a list": b"[]",
    "a list of lists": b"[" * 30_000,
    "a string": b'"{}"',
    "a number": b"1",
    "true": b"true",
}


@pytest.mark.parametrize("route", WITH_BODY, ids=name)
async def test_what_is_no_json_is_told_so(stage: Stage, route: Route) -> None:
    ask = await stage.honest(route)
    for what, body in NOT_JSON.items():
        answer = await stage.send(with_body(stage, ask, route, body))
        assert answer.status == 400, (what, answer)
        # What comes first is told: `{}{}` may lack a field before it has a brace too many.
        refused(answer, 400, ("INVALID_JSON", "VALIDATION_FAILED"))


@pytest.mark.parametrize("route", WITH_BODY, ids=name)
async def test_json_that_is_no_object_is_told_so(stage: Stage, route: Route) -> None:
    ask = await stage.honest(route)
    for body in WRONG_ROOT.values():
        refused(await stage.send(with_body(stage, ask, route, body)), 400, "VALIDATION_FAILED")


@pytest.mark.parametrize("route", WITH_BODY, ids=name)
async def test_a_body_that_is_larger_than_its_address_takes_is_refused_with_and_without_its_length(
    stage: Stage, route: Route
) -> None:
    ask = await stage.honest(route)
    spaces = b" " * (route.body_bytes_max - len(ask.body or b"{}"))
    large = (ask.body or b"{}") + spaces + b" "

    async def dribble() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 10_000):
            yield large[start : start + 10_000]

    ask = with_body(stage, ask, route, large)
    told = refused(await stage.send(ask), 413, "BODY_TOO_LARGE")
    assert f"{route.body_bytes_max // 1024} KiB" in told["message"]
    refused(await stage.send(ask, data=dribble()), 413, "BODY_TOO_LARGE")
    nothing = b" " * route.body_bytes_max  # as large as may be
    refused(await stage.send(with_body(stage, ask, route, nothing)), 400, "INVALID_JSON")


BOMB = gzip.compress(b" " * 600 * BODY_BYTES_MAX)
assert 32_000 < len(BOMB) < BODY_BYTES_MAX  # 600 times as large as it looks


@pytest.mark.parametrize("route", WITH_BODY, ids=name)
async def test_a_packed_body_is_refused_and_never_unpacked(stage: Stage, route: Route) -> None:
    ask = await stage.honest(route)
    for encoding in ("gzip", "deflate", "br", "zstd", "x"):
        for body in (gzip.compress(ask.body or b"{}"), b"\x00\x01\x02", BOMB):
            packed = with_body(stage, ask, route, body)
            answer = await stage.send(packed, headers={**packed.headers, "Content-Encoding": encoding})
            if route in SIGNED:  # what is signed is what was sent
                refused(answer, 400, "INVALID_JSON")
            else:
                refused(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("route", [route for route in WITH_BODY if route.body is not None], ids=name)
async def test_a_body_of_another_type_is_refused(stage: Stage, route: Route) -> None:
    ask = await stage.honest(route)
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "json",
        "*/*",
        "",
    ):
        answer = await stage.send(ask, headers={**ask.headers, "Content-Type": kind})
        refused(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    bare = {header: value for header, value in ask.headers.items() if header != "Content-Type"}
    refused(await stage.send(ask, headers=bare), 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("route", [route for route in WITH_BODY if route.body_required], ids=name)
async def test_an_absent_body_is_refused_where_one_is_needed(stage: Stage, route: Route) -> None:
    ask = await stage.honest(route)
    refused(await stage.send(with_body(stage, ask, route, b"")), 400, "INVALID_JSON")


# Whatever a field is, some of these it is not: the document says which.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64, 10**40, -(10**40), "", "x" * 5_000, "bus\n", "bus\x00",
    "\x1b[31m", "a b", "a\tb", "é", "中文", "\u202e", "../..", "%00", "'; --",
    "2026-13-01T00:00:00Z", "2026-01-01T00:00:00",
    "0001-01-01T00:00:00+14:00", [], [[]], [None], {}, {"a": {}}, [{"product_id": 1, "qty": 0}],
    [{"product_id": "1", "qty": 1}], [{"qty": 1}], [{"product_id": 1, "qty": 51}], [{"product_id": 2**31, "qty": 1}],
    [{"product_id": 1, "qty": 1}] * 21, {"environmentType": "desktop"}, {"miniProgramBridgeSupported": "yes"},
)  # fmt: skip


@pytest.mark.parametrize("route", WITH_BODY, ids=name)
async def test_a_field_that_the_document_forbids_is_refused_and_named(stage: Stage, route: Route) -> None:
    document = Document(stage.document)
    ask = await stage.honest(route)
    schema = document.request_schema(route)
    honest = msgspec.json.decode(ask.body or b"{}")
    assert document.accepts(schema, honest)
    tried = 0
    for field in document.fields(schema):
        for value in VALUES:
            spoilt = {**honest, field: value}
            if document.accepts(schema, spoilt):
                continue
            body = msgspec.json.encode(spoilt)
            told = refused(await stage.send(with_body(stage, ask, route, body)), 400, "VALIDATION_FAILED")
            assert f"$.{field}" in told["message"] or field in told["message"], (field, value, told)
            tried += 1
        for broken in (b'"\\ud800"', b'"\xff"', b"1e999", b"9" * 60_000):
            rest = {key: value for key, value in honest.items() if key != field}
            body = (
                msgspec.json.encode(rest)[:-1]
                + b"," * bool(rest)
                + msgspec.json.encode(field)
                + b":"
                + broken
                + b"}"
            )
            refused(
                await stage.send(with_body(stage, ask, route, body)),
                400,
                ("VALIDATION_FAILED", "INVALID_JSON"),
            )
    assert tried > 10


@pytest.mark.parametrize("route", WITH_BODY, ids=name)
async def test_a_missing_field_is_named(stage: Stage, route: Route) -> None:
    document = Document(stage.document)
    ask = await stage.honest(route)
    schema = document.request_schema(route)
    honest = msgspec.json.decode(ask.body or b"{}")
    for field in document.required(schema):
        body = msgspec.json.encode({key: value for key, value in honest.items() if key != field})
        told = refused(await stage.send(with_body(stage, ask, route, body)), 400, "VALIDATION_FAILED")
        assert f"`{field}`" in told["message"]


# --- Headers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, "IDEMPOTENCY_KEY_REQUIRED"),
        *(
            (key, "IDEMPOTENCY_KEY_INVALID")
            for key in ("", "a" * 65, "a b", "a,b", 'a"b', "中", "é", "a\tb", "{stock}", "../a")
        ),
    ],
)
async def test_an_order_needs_an_idempotency_key_of_plain_characters(
    stage: Stage, key: str | None, code: str
) -> None:
    (route,) = (route for route in ROUTES if (route.method, route.path) == ("POST", "/orders"))
    ask = await stage.honest(route)
    headers = {header: value for header, value in ask.headers.items() if header != "Idempotency-Key"}
    if key is not None:
        headers["Idempotency-Key"] = key
    refused(await stage.send(ask, headers=headers), 400, code)


async def test_two_idempotency_keys_are_none(stage: Stage) -> None:
    (route,) = (route for route in ROUTES if (route.method, route.path) == ("POST", "/orders"))
    ask = await stage.honest(route)
    headers = CIMultiDict([*ask.headers.items(), ("Idempotency-Key", "another")])
    refused(await stage.send(ask, headers=headers), 400, "IDEMPOTENCY_KEY_INVALID")


@pytest.mark.parametrize(
    "spoil",
    [
        {"X-Signature": ""},
        {"X-Signature": "v1="},
        {"X-Signature": "v1=" + "0" * 64},
        {"X-Signature": "v2={digest}"},
        {"X-Signature": "{digest}"},
        {"X-Signature": "v1={digest}0"},
        {"X-Signature": "V1={digest}"},
        {"X-Signature": "v1=中"},
        {"X-Signature-Timestamp": ""},
        {"X-Signature-Timestamp": "0"},
        {"X-Signature-Timestamp": "-{now}"},
        {"X-Signature-Timestamp": "+{now}"},
        {"X-Signature-Timestamp": "0{now}"},
        {"X-Signature-Timestamp": "{now}.0"},
        {"X-Signature-Timestamp": "1e9"},
        {"X-Signature-Timestamp": "٣"},
        {"X-Signature-Timestamp": "9" * 400},
    ],
)
async def test_a_notification_without_a_true_signature_is_refused_whatever_it_says(
    stage: Stage, spoil: dict[str, str]
) -> None:
    (route,) = (route for route in ROUTES if route.access is Access.GATEWAY)
    ask = await stage.honest(route)
    digest = ask.headers["X-Signature"].removeprefix("v1=")
    now = ask.headers["X-Signature-Timestamp"]
    headers = {header: value.format(digest=digest, now=now) for header, value in spoil.items()}
    for body in (
        ask.body,
        b"{",
        b"",
    ):  # the signature is looked at first: a stranger learns nothing of the body
        answer = await stage.send(ask, headers={**ask.headers, **headers}, body=body)
        refused(answer, 401, "SIGNATURE_INVALID")


async def test_a_notification_is_taken_for_300_seconds_before_and_after_its_time(stage: Stage) -> None:
    (route,) = (route for route in ROUTES if route.access is Access.GATEWAY)
    ask = await stage.honest(route)
    for seconds, status in ((-302, 401), (-298, 200), (298, 200), (302, 401), (-86_400, 401), (86_400, 401)):
        signature = stage.signed(route, ask.body or b"", int(time.time()) + seconds)
        answer = await stage.send(ask, headers={**ask.headers, **signature})
        assert answer.status == status, (seconds, answer)


async def test_a_notification_whose_bytes_were_touched_is_refused(stage: Stage) -> None:
    (route,) = (route for route in ROUTES if route.access is Access.GATEWAY)
    ask = await stage.honest(route)
    assert ask.body is not None
    for body in (ask.body + b" ", b" " + ask.body, ask.body.replace(b"FAILED", b"SUCCESS"), b"{}"):
        refused(await stage.send(ask, body=body), 401, "SIGNATURE_INVALID")


@pytest.mark.parametrize(
    "paid_at",
    [
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "1999-12-31T23:59:59Z",
        "9999-01-01T00:00:00Z",
    ],
)
async def test_a_payment_at_the_ends_of_the_calendar_is_refused(stage: Stage, paid_at: str) -> None:
    (route,) = (route for route in ROUTES if route.access is Access.GATEWAY)
    ask = await stage.honest(route)
    told = {**msgspec.json.decode(ask.body or b""), "status": "SUCCESS", "paid_at": paid_at}
    answer = await stage.send(with_body(stage, ask, route, msgspec.json.encode(told)))
    assert "paid_at" in refused(answer, 400, "VALIDATION_FAILED")["message"]


# --- Addresses ----------------------------------------------------------------------------------------------

ODD_PLACES = (
    "%00", "a%00b", "%0a", "%0D%0AX-Injected:%201", "%ff", "%ed%a0%80", "%E4%B8%AD%E6%96%87", "%F0%9F%8E%AB", "..%2F..",
    "a%2Fb", "a/b", "%20", "%25", "%7Bcode%7D", "*", "'", "A" * 1_500, "0" * 15, "0" * 17, "0" * 25,
    "0" * 27, "U" * 16, "l" * 16, "0" * 16 + "%0a", "0" * 26 + "%0a",
    "0" * 16 + "%00", "0" * 26 + "%00", "%EF%BC%90" * 16,
)  # fmt: skip


@pytest.mark.parametrize("route", WITH_PLACE, ids=name)
async def test_an_odd_name_in_the_path_is_not_found(stage: Stage, route: Route) -> None:
    ask = await stage.honest(route)
    for place in ODD_PLACES:
        path = route.path.format(order_id=place, code=place)
        refused(await stage.send(ask, path=path), 404, ("NOT_FOUND", "ORDER_NOT_FOUND", "TICKET_NOT_FOUND"))
    # In the right alphabet, but of nothing that there is; and spelled as people would.
    for place in ("0" * 16, "0" * 26, stage.ticket.lower() + "A", stage.order_id.lower() + "A"):
        path = route.path.format(order_id=place, code=place)
        refused(await stage.send(ask, path=path), 404, ("ORDER_NOT_FOUND", "TICKET_NOT_FOUND"))


@pytest.mark.parametrize(
    "path",
    [
        "/static/", "/static/none.js", "/static/docs.js", "/static/..%2fpages.py", "/static/%2fetc%2fpasswd",
        "/nowhere", "/catalog/", "/Catalog", "/orders/x/y/z", "/%00", "/%ff", "/.git/config", "/" + "a/" * 900,
        "/docs/", "/docs/none.js", "/docs/..%2fauth.py", "/docs/%00", "/docs/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/docs/%2fetc%2fpasswd", "/docs/docs.html", "/docs/static/docs.js", "/docs/docs.js%00",
    ],
)  # fmt: skip
async def test_an_address_where_nothing_is_answers_404_in_json(stage: Stage, path: str) -> None:
    refused(await stage.send(Ask(method="GET", path=path, headers={})), 404, "NOT_FOUND")
    if not path.startswith(("/docs/", "/static/")):  # which take GET alone
        refused(await stage.send(Ask(method="POST", path=path, headers={})), 404, "NOT_FOUND")


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES}))
async def test_a_method_that_an_address_does_not_take_answers_405_and_says_which_it_does(
    stage: Stage, path: str
) -> None:
    taken = {route.method for route in ROUTES if route.path == path}
    place = path.format(order_id=stage.order_id, code=stage.ticket)
    if path == "/qr/decrypt":  # also spelled as `/qr/{code}`
        taken = {"POST"}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "LINK"} - taken:
        answer = await stage.send(Ask(method=method, path=place, headers=stage.headers("buyer")))
        refused(answer, 405, "METHOD_NOT_ALLOWED")
        allowed = {each.strip() for each in CIMultiDict(answer.headers)["Allow"].split(",")}
        assert allowed == taken


# --- Queries ------------------------------------------------------------------------------------------------

ODD_VALUES = (
    "", "%00", "%0a", "%ff", "null", "None", "true", "-1", "0", "1.5", "1e3", "1_0", "%2B5", "%205", "9" * 30,
    "9" * 1_500, "nan", "inf", "%D9%A5", "[]", "x" * 1_500, "bus%0a", "'%20OR%201=1%20--", "%24%7Bx%7D",
    "2026-01-01", "1700000000", "Z" * 26 + "%0a",
    "2026-01-01T00:00:00", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00%2B14:00",
    "0001-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "MDAwMS0wMS0wMVQwMDowMDowMCsyMzo1OSB4",
    "OTk5OS0xMi0zMVQyMzo1OTo1OS0yMzo1OSAwMC0xLTE", "MjAyNi0wMS0wMVQwMDowMDowMCswMDowMCAA",
)  # fmt: skip


@pytest.mark.parametrize("route", WITH_QUERY, ids=name)
async def test_an_odd_value_in_the_query_is_refused_unless_the_document_allows_it(
    stage: Stage, route: Route
) -> None:
    document = Document(stage.document)
    ask = await stage.honest(route)
    for parameter, schema in document.query(route).items():
        for value in ODD_VALUES:
            path = f"{ask.path}?{parameter}={value}"
            answer = await stage.send(ask, path=path)
            (read,) = URL(path, encoded=True).query.values()
            if document.accepts_text(schema, read):
                codes = ("INVALID_RANGE", "INVALID_CURSOR")
                assert answer.status == 200 or answer.json["code"] in codes, (path, answer)
            else:
                told = refused(answer, 400, ("VALIDATION_FAILED", "INVALID_CURSOR"))
                assert told["code"] == "INVALID_CURSOR" or f"$.{parameter}" in told["message"], (path, told)


@pytest.mark.parametrize("route", WITH_QUERY, ids=name)
async def test_a_name_given_twice_is_refused_rather_than_one_of_its_values_chosen(
    stage: Stage, route: Route
) -> None:
    ask = await stage.honest(route)
    for query in (
        "a=1&a=1",
        "%ff=1&%fe=2",
        "=&=",
        *(f"{key}=1&{key}=2" for key in Document(stage.document).query(route)),
    ):
        told = refused(await stage.send(ask, path=f"{ask.path}?{query}"), 400, "VALIDATION_FAILED")
        assert "more than once" in told["message"]


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method == "GET"], ids=name)
async def test_unknown_names_in_the_query_are_passed_over(stage: Stage, route: Route) -> None:
    ask = await stage.honest(route)
    answer = await stage.send(ask, path=f"{ask.path}?utm_source=qr&{'x' * 500}=1&%00=%00&%E4%B8%AD")
    assert answer.status == PLAINLY.get(route.path, 200), answer


# --- Below HTTP: what a connection can do -------------------------------------------------------------------


async def spoken(stage: Stage, *parts: bytes, end: bool = False) -> bytes:
    """Says these bytes on a fresh connection, one part after the other, and returns what comes back."""
    address = URL(stage.road.url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if end:
            writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    finally:
        writer.close()


HEAD = b"POST /auth/demo/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "said",
    [
        b"GARBAGE\r\n\r\n",
        b"FOOBAR /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET " + b"/" * 2_100 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 3_000 + b"\r\n",
        b"GET /\xe4 HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n{}",
        HEAD + b"Content-Length: 2, 3\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n{}",
    ],
    ids=lambda said: said[-30:].decode("latin-1"),
)
async def test_what_is_no_http_is_refused_and_the_connection_closed(stage: Stage, said: bytes) -> None:
    answer = await spoken(stage, said)
    assert answer.split(b" ", 2)[1] == b"400", answer
    assert b"Traceback" not in answer and b".py" not in answer


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.web.body.BODY_READ_S_MAX", 0.05)
    for said in (b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"):
        address = URL(stage.road.url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(HEAD + said)
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.readuntil(b"\r\n\r\n")
            body = msgspec.json.decode(await reader.readuntil(b"}"))
        writer.close()
        assert b" 408 " in answer and body["code"] == "REQUEST_TIMEOUT"


async def test_a_client_that_goes_away_in_the_middle_of_its_body_is_no_failure_of_ours(stage: Stage) -> None:
    before = await _counted(stage, "500")
    bad_before = await _counted(stage, "400")
    address = URL(stage.road.url)
    assert address.host is not None and address.port is not None
    for reset in (True, False):
        with socket.create_connection((address.host, address.port)) as connection:
            if reset:  # RST instead of FIN
                connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
                )
            connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n{")
            connection.setblocking(False)
            told = await asyncio.get_running_loop().sock_recv(connection, 100)
            assert told.startswith(b"HTTP/1.1 100 ")  # the server has begun to read

    async def counted() -> bool:
        return await _counted(stage, "400") == bad_before + 2

    await eventually(counted)
    assert await _counted(stage, "500") == before


async def _counted(stage: Stage, status: str) -> float:
    text = (await stage.road.call("GET", "/metrics")).raw.decode()
    prefix = f'gateline_http_requests_total{{method="POST",route="/auth/demo/login",status="{status}"}} '
    return sum(float(line.removeprefix(prefix)) for line in text.splitlines() if line.startswith(prefix))


async def test_an_expectation_that_we_do_not_know_is_passed_over(stage: Stage) -> None:
    answer = await spoken(stage, HEAD + b"Expect: the-unexpected\r\nContent-Length: 2\r\n\r\n{}")
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    answer = await spoken(stage, HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", b"{}")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 "), answer


@pytest.mark.parametrize("expected", [b"the-unexpected", b"\xff", b"200-ok"])
async def test_an_expectation_is_passed_over_also_where_nothing_is_or_no_such_method(
    stage: Stage, expected: bytes
) -> None:
    """Found by fuzzing: the library answered it by itself, with 417 in plain text that repeats what was sent."""
    for first, status, code in (
        (b"GET /nowhere", 404, "NOT_FOUND"),
        (b"DELETE /catalog", 405, "METHOD_NOT_ALLOWED"),
        (b"GET /static/none.js", 404, "NOT_FOUND"),
        (b"GET /docs/none.js", 404, "NOT_FOUND"),
    ):
        async with wire(stage.road.url) as line:
            await line.send(first + b" HTTP/1.1\r\nHost: x\r\nExpect: " + expected + b"\r\n\r\n")
            answer = await line.answer()
        refused(answer, status, code)
        assert (status == 405) == ("Allow" in answer.headers)


@pytest.mark.parametrize(
    "said",
    [
        HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        b"GET /venue/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: {gate}\r\n\r\n",
    ],
    ids=["a body that is asked for", "where nothing is", "an upgrade"],
)
async def test_a_client_that_goes_before_it_is_told_to_go_on_is_no_failure_of_ours(
    stage: Stage, said: bytes, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found by fuzzing: a failure was logged and counted for what could not be written to a client that had gone."""
    before = await _failures(stage)
    address = URL(stage.road.url)
    assert address.host is not None and address.port is not None
    said = said.replace(b"{gate}", stage.headers("gate")["Authorization"].encode())
    for _ in range(20):
        with socket.create_connection((address.host, address.port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            connection.sendall(said)
        await asyncio.sleep(0.005)
    assert (await stage.road.call("GET", "/healthz")).status == 200
    assert await _failures(stage) == before
    assert "Error handling request" not in caplog.text
    assert "request_failed" not in capsys.readouterr().out


async def test_a_client_that_goes_as_its_request_is_taken_up_is_no_failure_of_ours(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Found by fuzzing: between two turns of the loop there is a request, and nobody any more who sent it."""
    made: list[ScanConnection] = []
    connection_made = ScanConnection.connection_made

    def keep(self: ScanConnection, transport: asyncio.BaseTransport) -> None:
        made.append(self)
        connection_made(self, transport)

    monkeypatch.setattr(ScanConnection, "connection_made", keep)
    before = await _failures(stage)
    address = URL(stage.road.url)
    for said, turns in (
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 0),  # before the loop has seen it
        *(
            (HEAD + b"Content-Length: 100\r\n\r\n{", turns) for turns in range(4)
        ),  # before its body is asked for
    ):
        _, writer = await asyncio.open_connection(address.host, address.port)
        while not made:
            await asyncio.sleep(0.001)
        (connection,) = made
        made.clear()
        await asyncio.sleep(0.01)
        connection.data_received(said)
        for _ in range(turns):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        await asyncio.sleep(0.01)
        writer.close()
    gc.collect()
    assert "Task exception" not in caplog.text and "Error handling" not in caplog.text
    assert "request_failed" not in capsys.readouterr().out
    assert await _failures(stage) == before


async def _failures(stage: Stage) -> list[str]:
    text = (await stage.road.call("GET", "/metrics")).raw.decode()
    return [
        line for line in text.splitlines() if line.startswith("gateline_http_") and 'status="500"' in line
    ]


# --- Answers ------------------------------------------------------------------------------------------------


def _every_error(answers: list[Answer]) -> Iterator[str]:
    for answer in answers:
        yield answer.json["request_id"]


async def test_every_refusal_has_a_request_id_of_its_own(stage: Stage) -> None:
    async with ClientSession(base_url=stage.road.url) as session:
        ids = []
        for _ in range(20):
            async with session.get("/nowhere") as answer:
                ids.append((await answer.json())["request_id"])
    assert len(set(ids)) == 20


@pytest.mark.parametrize("length", [0, 1, 100, 1_000])
async def test_what_was_sent_comes_back_only_shortened(stage: Stage, length: int) -> None:
    """Whoever makes a client print an answer must not be able to make it print a page of theirs."""
    ask = Ask(
        method="GET", path=f"/my/orders?{'a' * length}=1&{'a' * length}=2", headers=stage.headers("buyer")
    )
    told = refused(await stage.send(ask), 400, "VALIDATION_FAILED")
    assert len(told["message"]) < 200
