"""Reports: which events, in pages that lose and repeat nothing, as JSON and as a file, and how they are counted."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import csv
import io
import socket
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import aiohttp
import asyncpg
import pytest
from multidict import CIMultiDict
from yarl import URL

from server.domain.errors import ErrorCode, Refusal
from server.limits import REPORT_PAGE_DEFAULT, REPORT_PAGE_MAX
from tests.conftest import eventually
from tests.road import Answer, Road
from tests.web.stage import Stage, refused

# A full hour in the past, so that the counts by hour do not depend on when the test runs.
NOON = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=6)


@pytest.fixture
async def pg(stage: Stage) -> asyncpg.Connection[Any]:
    """The record of the server that this file shares, without any event."""
    await stage.road.flushed()
    await stage.pg.execute("TRUNCATE redemption_events")
    return stage.pg


@pytest.fixture
async def road(stage: Stage, pg: asyncpg.Connection[Any]) -> Road:
    """The server that this file shares."""
    return stage.road


async def ask(road: Road, path: str = "/reports/redemptions", **query: Any) -> Answer:
    """What an analyst gets; `from_` stands for `from`."""
    given = {name.rstrip("_"): value for name, value in query.items() if value is not None}
    spelled = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in given.items()}
    return await road.call("GET", f"{path}?{urlencode(spelled)}", headers=await road.analyst())


async def write(pg: asyncpg.Connection[Any], ticket: str, number: int, at: datetime, **changes: Any) -> str:
    """One recorded verdict, straight into the record; its event id."""
    event_id = f"{number % 3:02d}-{int(at.timestamp() * 1000)}-{number}"
    row = {
        "event_id": event_id,
        "ticket_code": ticket,
        "function_code": "bus",
        "result": "reject",
        "reason": "NO_REMAINING",
        "ticket_status": "ACTIVE",
        "remaining": ",bus=0,",
        "first_event": "",
        "jti": f"{number:016x}",
        "scan_id": f"scan-{number}",
        "operator": "gina",
        "venue_code": "pier-1",
        "terminal_device_id": None,
        "scanned_at": at,
        "decided_at": at,
        **changes,
    }
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    await pg.execute(
        f"INSERT INTO redemption_events ({', '.join(row)}) VALUES ({places})",  # noqa: S608
        *row.values(),
    )
    return event_id


async def a_ticket(road: Road, **product: Any) -> str:
    """The code of a fresh ticket."""
    (ticket,) = await road.buy({await road.product(**product): 1})
    code: str = ticket["ticket_code"]
    return code


def ids(answer: Answer) -> list[str]:
    assert answer.status == 200, answer
    return [each["event_id"] for each in answer.json["redemptions"]]


# --- Which events -------------------------------------------------------------------------------------------


async def test_a_scan_is_reported_as_it_was_told_to_the_gate(road: Road) -> None:
    await road.venue("pier-1", ["bus"])
    code = await a_ticket(road, functions={"bus": 1})
    told = await road.scan(
        await road.qr(code), "bus", venue_code="pier-1", terminal_device_id="gate-7", scan_id="scan-1"
    )
    await road.flushed()
    (event,) = (await ask(road)).json["redemptions"]
    assert event == {
        "event_id": told.json["event_id"],
        "ts": told.json["ts"],
        "ticket_code": code,
        "product_id": event["product_id"],
        "product": "Island day 海岛一日",
        "function": "bus",
        "result": "success",
        "reason": None,
        "operator": "gina",
        "location": "pier-1",
        "terminal_device_id": "gate-7",
        "scan_id": "scan-1",
        "scanned_at": event["scanned_at"],
        "uploaded": False,
    }
    late = datetime.fromisoformat(event["ts"]) - datetime.fromisoformat(event["scanned_at"])
    assert abs(late) < timedelta(minutes=1)


async def test_every_filter_narrows_and_all_together_meet(road: Road, pg: asyncpg.Connection[Any]) -> None:
    code = await a_ticket(road)
    success = {"result": "success", "reason": None}
    first = await write(pg, code, 1, NOON, **success)
    ferry = await write(pg, code, 2, NOON, function_code="ferry")
    museum = await write(pg, code, 3, NOON, venue_code="museum")
    gus = await write(pg, code, 4, NOON, operator="gus", **success)
    nowhere = await write(pg, code, 5, NOON, venue_code=None)
    window = {"from_": NOON, "to": NOON + timedelta(hours=1)}
    for query, expected in (
        ({}, {first, ferry, museum, gus, nowhere}),
        ({"function": "ferry"}, {ferry}),
        ({"location": "museum"}, {museum}),
        ({"operator": "gus"}, {gus}),
        ({"result": "success"}, {first, gus}),
        ({"result": "reject"}, {ferry, museum, nowhere}),
        ({"result": "success", "operator": "gina", "function": "bus", "location": "pier-1"}, {first}),
        ({"function": "bus", "location": "museum", "operator": "gus"}, set()),
        ({"function": "no-such"}, set()),
    ):
        assert set(ids(await ask(road, **window, **query))) == expected, query


async def test_the_window_includes_its_beginning_and_not_its_end(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    code = await a_ticket(road)
    at = [await write(pg, code, n, NOON + timedelta(milliseconds=n)) for n in range(4)]
    found = ids(await ask(road, from_=NOON + timedelta(milliseconds=1), to=NOON + timedelta(milliseconds=3)))
    assert found == [at[2], at[1]]
    assert ids(await ask(road, from_=NOON, to=NOON)) == []
    east = (NOON + timedelta(milliseconds=1)).astimezone(
        tz=datetime.fromisoformat("2026-01-01T00:00:00+08:00").tzinfo
    )
    assert ids(await ask(road, from_=east, to=NOON + timedelta(milliseconds=3))) == found


async def test_the_window_is_the_last_24_hours_unless_it_is_said_otherwise(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    code = await a_ticket(road)
    now, minute, day = datetime.now(UTC), timedelta(minutes=1), timedelta(hours=24)
    inside = await write(pg, code, 1, now - day + minute)
    before = await write(pg, code, 2, now - day - minute)
    answer = await ask(road)
    assert ids(answer) == [inside]
    start, end = (datetime.fromisoformat(answer.json[name]) for name in ("from", "to"))
    assert end - start == day and abs(end - now) < minute
    assert ids(await ask(road, to=now - day)) == [before]
    assert ids(await ask(road, from_=now - day - 2 * minute)) == [inside, before]
    assert ids(await ask(road, from_=now - 2 * day)) == [before]


@pytest.mark.parametrize("path", ["/reports/redemptions", "/reports/summary"])
async def test_a_window_that_ends_before_it_begins_or_is_longer_than_a_year_is_refused(
    road: Road, path: str
) -> None:
    microsecond, year = timedelta(microseconds=1), timedelta(days=366)
    refused(await ask(road, path, from_=NOON, to=NOON - microsecond), 400, "INVALID_RANGE")
    refused(await ask(road, path, from_=NOON, to=NOON + year + microsecond), 400, "INVALID_RANGE")
    assert (await ask(road, path, from_=NOON, to=NOON + year)).status == 200
    for ends in ({"from_": "9999-12-31T23:59:59Z"}, {"to": "0001-01-01T00:00:00Z"}):
        refused(await ask(road, path, **ends), 400, "INVALID_RANGE")


# --- Pages --------------------------------------------------------------------------------------------------


async def test_following_the_cursors_gives_every_event_once_while_new_ones_arrive(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    code = await a_ticket(road)
    # Several at the very same moment, and ids whose texts sort otherwise than their numbers.
    there = {await write(pg, code, n, NOON + timedelta(milliseconds=n // 4)) for n in range(50)}
    seen: list[str] = []
    moments: list[datetime] = []
    cursor, pages = None, 0
    while pages == 0 or cursor:
        answer = await ask(road, limit=7, cursor=cursor)
        seen += ids(answer)
        moments += [datetime.fromisoformat(each["ts"]) for each in answer.json["redemptions"]]
        cursor = answer.json["next_cursor"]
        pages += 1
        await write(pg, code, 1_000 + pages, datetime.now(UTC))
    assert len(seen) == len(set(seen)) == 50
    assert set(seen) == there
    assert moments == sorted(moments, reverse=True)
    assert pages == 8


async def test_a_page_that_ends_with_the_last_event_is_followed_by_an_empty_one(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    code = await a_ticket(road)
    for number in range(6):
        await write(pg, code, number, NOON)
    second = await ask(road, limit=3, cursor=(await ask(road, limit=3)).json["next_cursor"])
    last = await ask(road, limit=3, cursor=second.json["next_cursor"])
    assert (len(ids(second)), ids(last), last.json["next_cursor"]) == (3, [], None)


async def test_a_cursor_goes_on_in_the_window_of_its_first_page(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    """Otherwise the window of the last 24 hours would move while it is read, and lose its oldest events."""
    code = await a_ticket(road)
    for number in range(3):
        await write(pg, code, number, NOON)
    first = await ask(road, limit=1)
    second = await ask(road, limit=1, cursor=first.json["next_cursor"])
    third = await ask(road, limit=1, cursor=second.json["next_cursor"])
    for name in ("from", "to"):
        assert first.json[name] == second.json[name] == third.json[name]
    narrowed = await ask(road, limit=5, cursor=first.json["next_cursor"], to=NOON)
    assert ids(narrowed) == []


async def test_a_page_is_100_events_unless_it_is_said_otherwise_and_never_more_than_1000(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    code = await a_ticket(road)
    await many(pg, code, REPORT_PAGE_MAX + 5)
    assert len(ids(await ask(road))) == REPORT_PAGE_DEFAULT == 100
    assert len(ids(await ask(road, limit=REPORT_PAGE_MAX))) == REPORT_PAGE_MAX
    refused(await ask(road, limit=REPORT_PAGE_MAX + 1), 400, "VALIDATION_FAILED")


def spelled(place: str) -> str:
    """A cursor that says this."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


async def test_a_cursor_that_was_not_made_here_is_refused(road: Road, pg: asyncpg.Connection[Any]) -> None:
    code = await a_ticket(road)
    for number in range(2):
        await write(pg, code, number, NOON)
    true = (await ask(road, limit=1)).json["next_cursor"]
    assert (await ask(road, limit=1, cursor=true)).status == 200
    order_id = (await road.call("GET", "/my/orders?limit=1", headers=road.buyer())).json["next_cursor"]
    for place in (
        "999999999999999999 0 0 00-1-1",
        "0 0 -99999999999999999 00-1-1",
        "0 0 00-1-1",
        "0 0 0 x",
        "0 0 0 00-1-1 ",
    ):
        refused(await ask(road, cursor=spelled(place)), 400, "INVALID_CURSOR")
    assert (await ask(road, cursor=spelled("0 0 0 00-1-1"))).status == 200
    refused(await ask(road, cursor=spelled("1 0 0 00-1-1")), 400, "INVALID_RANGE")
    for cursor in (
        true[:-1],
        true + "=",
        true + "A",
        true.swapcase(),
        "x" + true,
        order_id,
        "AAAA",
        "-",
        "中",
    ):
        refused(await ask(road, cursor=cursor), 400, "INVALID_CURSOR")


# --- As a file ----------------------------------------------------------------------------------------------


async def many(pg: asyncpg.Connection[Any], ticket: str, count: int) -> None:
    """So many events, one a millisecond, with long names."""
    await pg.execute(
        "INSERT INTO redemption_events SELECT '00-' || n || '-0', $1, 'bus', 'reject', 'NO_REMAINING', 'ACTIVE', '',"
        " '', n::text, repeat('s', 64), repeat('o', 64), repeat('v', 32), repeat('t', 64), at, at"
        " FROM generate_series(1, $2::integer) AS n, LATERAL (SELECT $3::timestamptz + n * interval '1 ms' AS at) AS t",
        ticket, count, NOON,
    )  # fmt: skip


def in_words(value: Any) -> str:
    return {None: "", True: "true", False: "false"}.get(value, str(value))


def table(answer: Answer) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.raw.decode("utf-8"), newline="")))


async def test_the_file_has_the_same_events_in_the_same_order_as_the_pages(
    road: Road, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.web.redemptions.REPORT_CSV_CHUNK_ROWS", 4)
    code = await a_ticket(road)
    for number in range(11):
        await write(pg, code, number, NOON + timedelta(milliseconds=number // 3), terminal_device_id="gate-7")
    listed = (await ask(road)).json["redemptions"]
    answer = await ask(road, format="csv")
    rows = table(answer)
    assert len(rows) == 11
    assert rows == [{name: in_words(v) for name, v in each.items()} for each in listed]
    assert answer.raw.count(b"\r\n") == 12 and answer.raw.endswith(b"\r\n")
    narrowed = await ask(road, format="csv", operator="nobody")
    assert narrowed.raw == answer.raw.splitlines(keepends=True)[0]


async def test_the_file_has_the_headers_of_every_answer_and_says_what_it_is(road: Road) -> None:
    answer = await ask(road, format="csv")
    headers = CIMultiDict(answer.headers)
    assert headers["Content-Type"] == "text/csv; charset=utf-8"
    assert headers["Content-Disposition"] == 'attachment; filename="redemptions.csv"'
    assert headers["X-Request-Id"] and headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"


async def test_any_text_comes_through_the_file_unharmed(road: Road, pg: asyncpg.Connection[Any]) -> None:
    code = await a_ticket(road)
    await write(pg, code, 1, NOON)
    for told in (
        "海岛一日",
        'a "quoted" name',
        "one, two",
        "line\r\nbreak",
        "；，。",
        "🎫",
        "'quoted'",
        " =1+1",
        "a=1",
    ):
        await pg.execute("UPDATE tickets SET product_name = $1", told)
        assert [row["product"] for row in table(await ask(road, format="csv"))] == [told]


async def test_no_cell_is_taken_for_a_formula(road: Road, pg: asyncpg.Connection[Any]) -> None:
    code = await a_ticket(road)
    await write(pg, code, 1, NOON)
    for told in (
        "=HYPERLINK(1)",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "＝1",
        "＋1",
        "－1",
        "＠1",
        "=海",
    ):
        await pg.execute("UPDATE tickets SET product_name = $1", told)
        await pg.execute(
            "UPDATE redemption_events SET operator = $1, terminal_device_id = $1, venue_code = $1", told
        )
        (row,) = table(await ask(road, format="csv"))
        for column in ("product", "operator", "terminal_device_id", "location"):
            assert row[column] == "'" + told


async def slow_reader(road: Road) -> socket.socket:
    """A connection on which the file was asked for, with next to no room for what comes."""
    authorization = (await road.analyst())["Authorization"]
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    reader.connect((URL(road.url).host, URL(road.url).port))
    reader.sendall(
        b"GET /reports/redemptions?format=csv HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: "
        + authorization.encode()
        + b"\r\n\r\n"
    )
    return reader


async def test_clients_who_read_slowly_keep_no_connection_from_the_jobs(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    code = await a_ticket(road)
    await many(pg, code, 10_000)
    readers = [await slow_reader(road) for _ in range(6)]  # the pool for reports and jobs has 4 connections
    try:
        for reader in readers:  # each has its head, and more than it takes
            assert await asyncio.to_thread(reader.recv, 1) == b"H"
        assert len(ids(await ask(road, limit=5))) == 5
        await road.scan(await road.qr(code), "bus")
        await road.flushed()
        assert await pg.fetchval("SELECT count(*) FROM redemption_events WHERE result = 'success'") == 1
    finally:
        for reader in readers:
            reader.close()


async def test_a_client_who_takes_nothing_any_more_is_cut_off(
    road: Road, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.web.redemptions.REPORT_WRITE_S_MAX", 0.1)
    code = await a_ticket(road)
    await many(pg, code, 20_000)  # more than all buffers between here and there
    before = await _ended(road)
    reader = await slow_reader(road)

    async def ended() -> bool:
        return await _ended(road) > before

    await eventually(ended)
    got = b""
    with reader, contextlib.suppress(ConnectionError):
        while part := await asyncio.to_thread(reader.recv, 2**20):
            got += part
    assert got.startswith(b"HTTP/1.1 200 ") and not got.endswith(b"\r\n0\r\n\r\n")


async def _ended(road: Road) -> float:
    """Requests for a report that have ended, by the metrics."""
    text = (await road.call("GET", "/metrics")).raw.decode()
    prefix = 'gateline_http_requests_total{method="GET",route="/reports/redemptions"'
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(prefix))


@pytest.mark.parametrize(
    "fault", [Refusal(ErrorCode.POSTGRES_UNAVAILABLE), RuntimeError("no one expected it")]
)
async def test_a_file_that_cannot_be_finished_never_looks_finished(
    road: Road, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    monkeypatch.setattr("server.web.redemptions.REPORT_CSV_CHUNK_ROWS", 2)
    code = await a_ticket(road)
    for number in range(5):
        await write(pg, code, number, NOON)
    from server.web import redemptions

    page, calls = redemptions.reports.redemptions_page, 0

    async def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise fault
        return await page(*arguments)

    monkeypatch.setattr(redemptions.reports, "redemptions_page", failing)
    headers = await road.analyst()
    got = b""
    with pytest.raises(aiohttp.ClientPayloadError):
        async with road.session.get("/reports/redemptions?format=csv", headers=headers) as answer:
            async for part in answer.content.iter_any():
                got += part
    assert b"HTTP/1.1" not in got and b"request_id" not in got


async def test_a_file_that_cannot_be_begun_is_refused_as_everything_else(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.web import redemptions

    async def away(*arguments: Any) -> Any:
        raise Refusal(ErrorCode.POSTGRES_UNAVAILABLE)

    monkeypatch.setattr(redemptions.reports, "redemptions_page", away)
    refused(await ask(road, format="csv"), 503, "POSTGRES_UNAVAILABLE")


# --- The summary --------------------------------------------------------------------------------------------


async def test_the_summary_counts_by_product_function_venue_hour_result_and_reason(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    await road.venue("pier-1", ["bus"])
    ann, bob = await a_ticket(road, sku="A"), await a_ticket(road, sku="B")
    success = {"result": "success", "reason": None}
    hour = timedelta(hours=1)
    events = [
        (ann, NOON, success),
        (ann, NOON + hour - timedelta(milliseconds=1), success),
        (ann, NOON + hour, success),
        (ann, NOON, {"reason": "ALREADY_REDEEMED"}),
        (ann, NOON, {"reason": "ALREADY_REDEEMED"}),
        (ann, NOON, {"reason": "NO_REMAINING"}),
        (ann, NOON, {"venue_code": None, **success}),
        (ann, NOON, {"function_code": "ferry", **success}),
        (bob, NOON, success),
        (bob, NOON - hour, success),  # before the window
    ]
    for number, (code, at, more) in enumerate(events):
        await write(pg, code, number, at, **more)
    answer = await ask(road, "/reports/summary", from_=NOON, to=NOON + 2 * hour)
    assert answer.status == 200, answer
    by_sku = {each["sku"]: each["product_id"] for each in answer.json["stock"]}
    first, second = by_sku["A"], by_sku["B"]
    counted = {
        (r["product_id"], r["function"], r["location"], r["hour"], r["result"], r["reason"]): r["events"]
        for r in answer.json["rows"]
    }
    noon, one = (moment.isoformat().replace("+00:00", "Z") for moment in (NOON, NOON + hour))
    assert counted == {
        (first, "bus", "pier-1", noon, "success", None): 2,
        (first, "bus", "pier-1", one, "success", None): 1,
        (first, "bus", "pier-1", noon, "reject", "ALREADY_REDEEMED"): 2,
        (first, "bus", "pier-1", noon, "reject", "NO_REMAINING"): 1,
        (first, "bus", None, noon, "success", None): 1,
        (first, "ferry", "pier-1", noon, "success", None): 1,
        (second, "bus", "pier-1", noon, "success", None): 1,
    }
    listed = await ask(road, from_=NOON, to=NOON + 2 * hour)
    assert sum(counted.values()) == len(ids(listed)) == 9


async def test_the_summary_says_what_of_each_product_is_sold_held_and_sellable(road: Road) -> None:
    product = await road.product(sku="DAY", sellable=10)
    await road.buy({product: 2})
    await road.order({product: 3})
    await road.flushed()
    listed = (await ask(road, "/reports/summary")).json["stock"]
    (stock,) = [each for each in listed if each["product_id"] == product]
    assert (stock["sku"], stock["product"]) == ("DAY", "Island day 海岛一日")
    assert (stock["sellable"], stock["reserved"], stock["sold"]) == (10, 3, 2)


async def test_a_summary_too_large_to_hold_asks_for_a_shorter_window(
    road: Road, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.web.reports.REPORT_SUMMARY_ROWS_MAX", 3)
    code = await a_ticket(road)
    for number in range(4):
        await write(pg, code, number, NOON + timedelta(minutes=number), operator=f"o{number}")
    assert [row["events"] for row in (await ask(road, "/reports/summary")).json["rows"]] == [4]
    for number in range(3):
        await write(pg, code, 10 + number, NOON, function_code=f"f{number}")
    told = refused(await ask(road, "/reports/summary"), 400, "INVALID_RANGE")
    assert "shorter window" in told["message"]
