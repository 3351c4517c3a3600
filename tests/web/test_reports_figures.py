"""Figures: the chosen verdicts counted by time and by each thing alone, as the record has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.road import Answer, Road
from tests.web.stage import Stage, refused
from tests.web.test_reports import NOON, a_ticket, ask, ids, table, write

HOUR, MINUTE, MS = timedelta(hours=1), timedelta(minutes=1), timedelta(milliseconds=1)
SUCCESS = {"result": "success", "reason": None}
PARTS = ("by_function", "by_location", "by_operator", "by_terminal", "by_reason")


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


async def figures(road: Road, **query: Any) -> Any:
    """The figures of a window, by default the hour of NOON."""
    window = {"from_": NOON, "to": NOON + HOUR}
    answer = await ask(road, "/reports/figures", **{**window, **query})
    assert answer.status == 200, answer
    return answer.json


def parts(told: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(each["code"], each["success"], each["reject"]) for each in told]


async def a_varied_hour(road: Road, pg: asyncpg.Connection[Any]) -> str:
    """Seven verdicts of the hour of NOON, and one on either side of it; the ticket's code."""
    await road.venue("pier-1", ["bus", "ferry"])
    code = await a_ticket(road)
    rows: list[tuple[datetime, dict[str, Any]]] = [
        (NOON, SUCCESS),
        (NOON + 30 * MINUTE, SUCCESS | {"terminal_device_id": "gate-7"}),
        (NOON + HOUR - MS, SUCCESS | {"function_code": "ferry", "operator": "gus"}),
        (NOON, {"reason": "ALREADY_REDEEMED", "terminal_device_id": "gate-7"}),
        (NOON, {"reason": "ALREADY_REDEEMED", "venue_code": None}),
        (NOON + MINUTE, {"reason": "NO_REMAINING", "function_code": "ferry", "terminal_device_id": "gate-8"}),
        (NOON + MINUTE, {"reason": "NO_REMAINING", "venue_code": "closed-1"}),
        (NOON - MS, SUCCESS),
        (NOON + HOUR, SUCCESS),
    ]
    for number, (at, changes) in enumerate(rows):
        await write(pg, code, number, at, **changes)
    return code


async def test_each_thing_is_counted_alone_the_most_first(road: Road, pg: asyncpg.Connection[Any]) -> None:
    await a_varied_hour(road, pg)
    told = await figures(road)
    assert told["all"] == told["last_hour"] == {"success": 3, "reject": 4}
    assert parts(told["by_function"]) == [("bus", 2, 3), ("ferry", 1, 1)]
    assert parts(told["by_location"]) == [("pier-1", 3, 2), ("closed-1", 0, 1), (None, 0, 1)]
    assert parts(told["by_operator"]) == [("gina", 2, 4), ("gus", 1, 0)]
    assert parts(told["by_terminal"]) == [(None, 2, 2), ("gate-7", 1, 1), ("gate-8", 0, 1)]
    assert parts(told["by_reason"]) == [("ALREADY_REDEEMED", 0, 2), ("NO_REMAINING", 0, 2)]


async def test_functions_and_venues_have_the_names_of_the_catalog(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    await a_varied_hour(road, pg)
    told = await figures(road)
    assert {each["code"]: each["label"] for each in told["by_function"]} == {
        "bus": "Bus ride",
        "ferry": "Ferry crossing",
    }
    assert {each["code"]: each["label"] for each in told["by_location"]} == {
        "pier-1": "Venue pier-1",
        "closed-1": None,
        None: None,
    }
    assert {each["label"] for name in PARTS[2:] for each in told[name]} == {None}


@pytest.mark.parametrize(
    ("chosen", "success", "reject"),
    [
        ({"function": "ferry"}, 1, 1),
        ({"location": "pier-1"}, 3, 2),
        ({"operator": "gus"}, 1, 0),
        ({"terminal_device_id": "gate-7"}, 1, 1),
        ({"result": "success"}, 3, 0),
        ({"result": "reject"}, 0, 4),
        ({"reason": "NO_REMAINING"}, 0, 2),
        ({"function": "bus", "location": "pier-1", "terminal_device_id": "gate-7", "result": "reject"}, 0, 1),
        ({"function": "bus", "operator": "gus"}, 0, 0),
        ({"reason": "NO_REMAINING", "result": "success"}, 0, 0),
    ],
)
async def test_a_filter_chooses_the_same_verdicts_for_figures_pages_and_file(
    road: Road, pg: asyncpg.Connection[Any], chosen: dict[str, str], success: int, reject: int
) -> None:
    await a_varied_hour(road, pg)
    told = await figures(road, **chosen)
    assert told["all"] == {"success": success, "reject": reject}
    for name in ("over_time", *PARTS[:4]):
        assert sum(each["success"] for each in told[name]) == success, name
        assert sum(each["reject"] for each in told[name]) == reject, name
    window = {"from_": NOON, "to": NOON + HOUR, **chosen}
    assert len(ids(await ask(road, **window))) == success + reject
    file: Answer = await ask(road, **window, format="csv")
    results = [row["result"] for row in table(file)]
    assert (results.count("success"), results.count("reject")) == (success, reject)


async def test_without_any_verdict_every_count_is_zero_or_left_out(road: Road) -> None:
    told = await figures(road)
    assert told["all"] == told["last_hour"] == {"success": 0, "reject": 0}
    assert [told[name] for name in ("over_time", *PARTS)] == [[]] * 6


async def test_the_last_hour_is_the_one_before_the_end_of_the_window(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    code = await a_ticket(road)
    for number, at in enumerate((NOON - MS, NOON, NOON + HOUR - MS)):
        await write(pg, code, number, at, **SUCCESS)
    await write(pg, code, 3, NOON)
    await write(pg, code, 4, NOON - 5 * HOUR)
    told = await figures(road, from_=NOON - 6 * HOUR)
    assert (told["last_hour"], told["all"]) == ({"success": 2, "reject": 1}, {"success": 3, "reject": 2})


@pytest.mark.parametrize(
    ("unit", "zone", "expected"),
    [
        ("minute", "UTC", {"2026-01-09T18:29:00Z": 1, "2026-01-09T18:31:00Z": 2, "2026-01-09T23:31:00Z": 1}),
        ("hour", "UTC", {"2026-01-09T18:00:00Z": 3, "2026-01-09T23:00:00Z": 1}),
        ("hour", "Asia/Kolkata", {"2026-01-09T17:30:00Z": 1, "2026-01-09T18:30:00Z": 2, "2026-01-09T23:30:00Z": 1}),
        ("day", "UTC", {"2026-01-09T00:00:00Z": 4}),
        ("day", "Asia/Kolkata", {"2026-01-08T18:30:00Z": 1, "2026-01-09T18:30:00Z": 3}),
        ("day", "Asia/Shanghai", {"2026-01-09T16:00:00Z": 4}),
    ],
)  # fmt: skip
async def test_hours_and_days_begin_as_the_clocks_of_the_zone_show(
    road: Road, pg: asyncpg.Connection[Any], unit: str, zone: str, expected: dict[str, int]
) -> None:
    code = await a_ticket(road)
    moments = ("18:29:59", "18:31:00", "18:31:59", "23:31:00")
    for number, moment in enumerate(moments):
        await write(pg, code, number, datetime.fromisoformat(f"2026-01-09T{moment}Z"), **SUCCESS)
    told = await figures(road, from_="2026-01-09T00:00:00Z", to="2026-01-10T00:00:00Z", unit=unit, zone=zone)
    assert {each["begins_at"]: each["success"] for each in told["over_time"]} == expected
    assert list(expected) == [each["begins_at"] for each in told["over_time"]]
    assert (told["unit"], told["zone"]) == (unit, zone)


async def test_a_zone_that_the_record_does_not_know_is_utc_and_the_answer_says_so(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    await write(pg, await a_ticket(road), 1, NOON)
    told = await figures(road, unit="day", zone="Mars/Olympus_Mons")
    (only,) = told["over_time"]
    assert told["zone"] == "UTC" and only["begins_at"].endswith("T00:00:00Z")


async def test_the_answer_tells_the_servers_clock(road: Road) -> None:
    told = await figures(road)
    assert abs(datetime.fromisoformat(told["answered_at"]) - datetime.now(UTC)) < MINUTE


async def test_figures_and_stock_are_of_the_same_products_as_the_summary(road: Road) -> None:
    product = await road.product(sku="FIG", sellable=10)
    await road.buy({product: 2})
    await road.order({product: 3})
    await road.flushed()
    stock = (await figures(road))["stock"]
    assert stock == (await ask(road, "/reports/summary")).json["stock"]
    (mine,) = [each for each in stock if each["product_id"] == product]
    assert (mine["sellable"], mine["reserved"], mine["sold"]) == (10, 3, 2)


async def test_figures_too_large_to_hold_ask_for_a_longer_unit(
    road: Road, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.web.figures.REPORT_FIGURES_ROWS_MAX", 8)
    code = await a_ticket(road)
    for number in range(4):
        await write(pg, code, number, NOON + number * MINUTE, **SUCCESS)
    # One of all, one by function, venue, operator, terminal; and a row each minute, or one an hour.
    told = refused(
        await ask(road, "/reports/figures", from_=NOON, to=NOON + HOUR, unit="minute"), 400, "INVALID_RANGE"
    )
    assert "longer unit" in told["message"]
    assert len((await figures(road, unit="hour"))["over_time"]) == 1


async def test_a_window_upside_down_or_longer_than_a_year_is_refused(road: Road) -> None:
    for end in (NOON - MS, NOON + timedelta(days=366) + MS):
        refused(await ask(road, "/reports/figures", from_=NOON, to=end), 400, "INVALID_RANGE")
    first = await ask(road, "/reports/figures", from_="0001-01-01T00:00:00Z", to="0001-01-01T00:00:01Z")
    assert first.status == 200
