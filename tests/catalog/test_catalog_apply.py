"""A catalog file is applied all or nothing, to the record and to the stock in Redis, while servers are running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

import server
from server.domain.catalog_diff import Change, ChangeKind
from server.domain.catalog_file import CatalogFileError, parse
from server.flows.catalog_apply import apply
from server.hot import keys
from server.hot.stock import Level, Stock
from server.store import catalog
from server.store.pool import Connection
from tests.conftest import Serve, eventually
from tests.road import Road

DEMO = (Path(server.__file__).parent / "dev" / "demo_catalog.toml").read_text(encoding="utf-8")
FUNCTION = """
[[functions]]
code = "bus"
label = "巴士 Bus"
"""
DAY = f"""{FUNCTION}
[[products]]
sku = "DAY"
name = "Day"
price_fen = 0
sellable = 100
functions = {{ bus = 2 }}
"""


async def applied(road: Road, text: str, *, dry_run: bool = False) -> list[str]:
    """What applying a file changed, as a person reads it."""
    changes = await apply(road.parts.bulk_database, road.parts.stock, parse(text), dry_run=dry_run)
    return [str(change) for change in changes if change.kind is not ChangeKind.NOTHING]


async def refused(road: Road, text: str, *, dry_run: bool = False) -> list[tuple[int, str]]:
    """(line, reason) of why a file cannot be applied."""
    with pytest.raises(CatalogFileError) as fault:
        await applied(road, text, dry_run=dry_run)
    return [(each.line, each.reason) for each in fault.value.faults]


async def everything(pg: asyncpg.Connection[Any]) -> list[Any]:
    """All rows that applying may write, and the version that any write raises."""
    tables = [
        "functions",
        "venues",
        "venue_functions",
        "products",
        "product_functions",
        "operators",
        "outbox",
    ]
    rows = [await pg.fetch(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]  # noqa: S608
    return [*rows, await pg.fetchval("SELECT version FROM directory_version")]


async def day(road: Road, text: str = DAY) -> int:
    """The product's id, once Redis has its cap."""
    await applied(road, text)
    async with road.parts.database.connection() as connection:
        directory = await catalog.read_directory(connection)
    (product_id,) = [product.id for product in directory.products.values() if product.sku == "DAY"]
    await road.flushed()
    await road.parts.directory.refresh()
    return product_id


async def level(road: Road, product_id: int) -> Level:
    """The product's units in Redis."""
    return (await road.parts.stock.levels([product_id]))[product_id]


async def cap_in_record(road: Road, product_id: int) -> int:
    """The product's cap in Postgres."""
    async with road.parts.database.connection() as connection:
        return (await catalog.caps(connection, [product_id]))[product_id]


@pytest.fixture
async def quiet(serve: Serve, redis: Redis) -> AsyncIterator[Road]:
    """A server without jobs, whose gates are open: nothing is flushed or published unless the test does it."""
    road = await serve(jobs=False)
    await road.parts.rehydration.guard()
    yield road


async def test_a_running_server_sells_and_serves_what_the_file_says_without_restart(road: Road) -> None:
    changes = await apply(road.parts.bulk_database, road.parts.stock, parse(DEMO))

    assert {change.kind for change in changes} == {ChangeKind.ADD}
    assert len(changes) == 3 + 4 + 4 + 2

    async def on_sale() -> bool:
        return len([p for p in await shown(road) if p["available"] > 0]) == 4

    await eventually(on_sale)
    (product,) = [each for each in await shown(road) if each["sku"] == "ISLAND-DAY"]
    assert (product["price_fen"], product["available"], product["status"]) == (12_800, 500, "ACTIVE")
    assert [(part["function_code"], part["quantity"]) for part in product["functions"]] == [
        ("ferry", 2),
        ("bus", 4),
        ("museum", 1),
    ]
    assert product["functions"][0]["label"] == "轮渡 Ferry crossing"

    (ticket,) = await road.buy({product["id"]: 1})
    passed = await road.scan(await road.qr(ticket["ticket_code"]), "museum", venue_code="museum-gate")
    assert passed.json["result"] == "success"


async def test_a_changed_price_label_and_venue_reach_a_running_server(road: Road) -> None:
    await day(road)
    (ticket,) = await road.buy({(await shown(road))[0]["id"]: 1})
    token = await road.qr(ticket["ticket_code"])
    unknown = await road.scan(token, "bus", venue_code="pier-9")
    changed = DAY.replace("price_fen = 0", "price_fen = 9900").replace("巴士 Bus", "大巴 Coach")
    await applied(road, changed + '[[venues]]\ncode = "pier-9"\nname = "Pier 9"\nfunctions = ["bus"]\n')

    async def followed() -> bool:
        (product,) = await shown(road)
        return product["price_fen"] == 9900 and product["functions"][0]["label"] == "大巴 Coach"

    await eventually(followed)
    assert unknown.json["reason"] == "VENUE_NOT_FOUND"
    assert (await road.scan(token, "bus", venue_code="pier-9")).json["result"] == "success"


async def shown(road: Road) -> list[dict[str, Any]]:
    """The shop window."""
    products: list[dict[str, Any]] = (await road.call("GET", "/catalog")).json["products"]
    return products


async def test_applying_again_changes_nothing_and_writes_nothing(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    await applied(road, DEMO)
    await road.flushed()
    before = await everything(pg)
    again = await apply(road.parts.bulk_database, road.parts.stock, parse(DEMO))

    assert {change.kind for change in again} == {ChangeKind.NOTHING}
    assert str(again[0]) == "nothing function bus"
    assert await everything(pg) == before


async def test_a_dry_run_tells_every_field_that_would_change_and_writes_nothing(
    quiet: Road, pg: asyncpg.Connection[Any]
) -> None:
    venue = '[[venues]]\ncode = "pier"\nname = "Pier"\nfunctions = ["bus"]\n'
    staff = '[[operators]]\nusername = "gina"\nrole = "gate"\nvenue = "pier"\n'
    await applied(quiet, DAY + venue + staff)
    before = await everything(pg)
    changed = (
        DAY.replace("巴士 Bus", "Coach")
        .replace("price_fen = 0", "price_fen = 9900\nvalid_days = 3\nstatus = 'INACTIVE'")
        .replace("sellable = 100", "sellable = 90\nsale_end_at = 2026-05-01T08:00:00+08:00")
        .replace("{ bus = 2 }", "{ ferry = 1, bus = 4 }")
    )
    changed += '[[functions]]\ncode = "ferry"\nlabel = "Ferry"\n'
    changed += venue.replace('"bus"', '"bus", "ferry"')
    changed += staff.replace('"gate"', '"analyst"').replace('venue = "pier"', "")
    told = await applied(quiet, changed, dry_run=True)

    assert told == [
        'change function bus: label "巴士 Bus" -> "Coach"',
        'add function ferry: label "Ferry"',
        "change venue pier: functions bus -> bus ferry",
        "change product DAY: price_fen 0 -> 9900, sellable 100 -> 90, status ACTIVE -> INACTIVE, "
        "sale_end_at none -> 2026-05-01T00:00:00Z, valid_days none -> 3, functions bus=2 -> ferry=1 bus=4",
        'change operator gina: role gate -> analyst, venue "pier" -> none',
    ]
    assert await everything(pg) == before
    assert await applied(quiet, changed) == told
    assert await applied(quiet, changed) == []


async def test_what_the_file_does_not_have_is_left_alone(quiet: Road) -> None:
    await applied(quiet, DEMO)
    await applied(quiet, DAY)

    assert await applied(quiet, DEMO.replace('label = "环岛巴士 Island bus"', 'label = "巴士 Bus"')) == []


async def test_an_operator_from_the_file_cannot_log_in_and_one_with_a_password_keeps_it(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    await road.gate("gina")
    await applied(road, "[[operators]]\nusername = 'gina'\nrole = 'analyst'\n")
    await applied(road, "[[operators]]\nusername = 'newcomer'\nrole = 'gate'\n")
    stored = {row["username"]: row for row in await pg.fetch("SELECT * FROM operators")}
    answer = await road.call(
        "POST", "/operators/login", json={"username": "newcomer", "password": "newcomer12"}
    )

    assert (answer.status, answer.json["code"]) == (401, "LOGIN_FAILED")
    assert stored["newcomer"]["password_hash"] is None
    assert stored["gina"]["password_hash"] is not None
    assert (stored["gina"]["role"], stored["gina"]["enabled"]) == ("analyst", True)


async def test_names_that_neither_file_nor_record_knows_are_refused_with_their_lines(
    quiet: Road, pg: asyncpg.Connection[Any]
) -> None:
    text = """
[[venues]]
code = "pier"
name = "Pier"
functions = ["bus", "tram"]

[[products]]
sku = "DAY"
name = "Day"
price_fen = 0
sellable = 1
functions = { bus = 2, boat = 1 }

[[operators]]
username = "gina"
role = "gate"
venue = "nowhere"
"""
    before = await everything(pg)

    assert await refused(quiet, text) == [
        (5, 'unknown function "bus"'),
        (5, 'unknown function "tram"'),
        (12, 'unknown function "bus"'),
        (12, 'unknown function "boat"'),
        (17, 'unknown venue "nowhere"'),
    ]
    assert await everything(pg) == before
    await applied(quiet, "[[functions]]\ncode = 'bus'\nlabel = 'Bus'\n")
    assert [reason for _, reason in await refused(quiet, text)] == [
        'unknown function "tram"',
        'unknown function "boat"',
        'unknown venue "nowhere"',
    ]


# --- Caps ------------------------------------------------------------------------------------------------------


def capped(sellable: int) -> str:
    """The file with another cap, which stands on line 10."""
    return DAY.replace("sellable = 100", f"sellable = {sellable}").replace("price_fen = 0", "price_fen = 500")


async def test_a_cap_goes_down_to_what_is_taken_and_up_again(road: Road) -> None:
    product_id = await day(road, capped(100))
    assert (await road.order({product_id: 7})).status == 201

    await applied(road, capped(7))
    assert await level(road, product_id) == Level(7, 7, 0)
    assert (await road.order({product_id: 1})).json["code"] == "SOLD_OUT"
    await applied(road, capped(8))
    await road.flushed()
    assert await level(road, product_id) == Level(8, 7, 0)
    assert (await road.order({product_id: 1})).status == 201


async def test_a_cap_below_holds_that_only_redis_knows_is_refused(quiet: Road) -> None:
    product_id = await published_day(quiet)
    assert (await quiet.order({product_id: 7})).status == 201

    reason = "sellable 6 is below the 7 units that are reserved and sold"
    assert await refused(quiet, capped(6), dry_run=True) == [(10, reason)]
    assert await refused(quiet, capped(6)) == [(10, reason)]
    assert await level(quiet, product_id) == Level(100, 7, 0)
    assert await cap_in_record(quiet, product_id) == 100


async def test_a_cap_below_orders_that_only_the_record_knows_is_refused(quiet: Road, redis: Redis) -> None:
    product_id = await published_day(quiet)
    assert (await quiet.order({product_id: 7})).status == 201
    await quiet.parts.flusher.follow(quiet.parts.stream_names)
    await quiet.parts.flusher.drain(quiet.parts.stream_names)
    await redis.hset(keys.stock(product_id), "reserved", 0)

    assert await refused(quiet, capped(6)) == [
        (10, "sellable 6 is below the 7 units that are reserved and sold")
    ]
    await applied(quiet, capped(7))


async def test_a_hold_made_while_the_file_is_applied_is_not_cut_off(
    quiet: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    product_id = await published_day(quiet)
    cap = Stock.cap

    async def hold_comes_first(stock: Stock, product: int, sellable: int) -> Any:
        assert (await quiet.order({product_id: 40})).status == 201
        return await cap(stock, product, sellable)

    monkeypatch.setattr(Stock, "cap", hold_comes_first)
    text = capped(30).replace("巴士 Bus", "Coach")

    assert await refused(quiet, text) == [
        (10, "sellable 30 is below the 40 units that are reserved and sold")
    ]
    monkeypatch.undo()
    assert await level(quiet, product_id) == Level(100, 40, 0)
    assert await cap_in_record(quiet, product_id) == 100
    assert "change function" in (await applied(quiet, text.replace("= 30", "= 40"), dry_run=True))[0]


async def published_day(road: Road) -> int:
    """The product's id, its cap published by hand; orders of it have a price, so that they stay unpaid."""
    await applied(road, capped(100))
    assert await road.parts.publisher.publish() == 1
    await road.parts.directory.refresh()
    async with road.parts.database.connection() as connection:
        (row,) = await catalog.stock(connection)
    return row.product_id


async def test_when_one_of_two_caps_is_refused_the_other_is_put_back(
    quiet: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await published_day(quiet)
    two = capped(100) + capped(100).replace(FUNCTION, "").replace('"DAY"', '"TWO"')
    await applied(quiet, two)
    assert await quiet.parts.publisher.publish() == 1
    await quiet.parts.directory.refresh()
    (second,) = set(quiet.parts.directory.current.products) - {first}
    cap = Stock.cap

    async def hold_comes_between(stock: Stock, product: int, sellable: int) -> Any:
        if product == second:
            assert (await level(quiet, first)).sellable == 50
            assert (await quiet.order({second: 50})).status == 201
        return await cap(stock, product, sellable)

    monkeypatch.setattr(Stock, "cap", hold_comes_between)
    await refused(quiet, two.replace("sellable = 100", "sellable = 49").replace("49", "50", 1))
    monkeypatch.undo()

    assert await quiet.parts.publisher.publish() == 2
    assert (await level(quiet, first)).sellable == 100
    assert (await level(quiet, second)).sellable == 100
    assert await cap_in_record(quiet, first) == 100


class Crash(Exception):
    """The process ends here."""


async def test_a_crash_after_redis_lowered_a_cap_heals_to_what_the_record_has(
    quiet: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    product_id = await published_day(quiet)
    cap = Stock.cap

    async def crash_after(stock: Stock, product: int, sellable: int) -> Any:
        await cap(stock, product, sellable)
        raise Crash

    monkeypatch.setattr(Stock, "cap", crash_after)
    with pytest.raises(Crash):
        await applied(quiet, capped(50))
    monkeypatch.undo()
    assert (await level(quiet, product_id)).sellable == 50
    assert await cap_in_record(quiet, product_id) == 100

    assert await quiet.parts.publisher.publish() == 1
    assert (await level(quiet, product_id)).sellable == 100


async def test_no_publisher_raises_a_lowered_cap_again_before_the_commit(
    quiet: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    product_id = await published_day(quiet)
    await applied(quiet, capped(200))  # its message waits, and the record will say 200 until the commit
    cap = Stock.cap

    async def publisher_comes_after(stock: Stock, product: int, sellable: int) -> Any:
        answer = await cap(stock, product, sellable)
        assert await quiet.parts.publisher.publish() == 0
        return answer

    monkeypatch.setattr(Stock, "cap", publisher_comes_after)
    await applied(quiet, capped(50))
    monkeypatch.undo()

    assert (await level(quiet, product_id)).sellable == 50
    assert await quiet.parts.publisher.publish() == 2
    assert (await level(quiet, product_id)).sellable == 50
    assert await cap_in_record(quiet, product_id) == 50


async def test_while_redis_is_closed_a_cap_goes_up_but_not_down(quiet: Road) -> None:
    product_id = await published_day(quiet)
    await quiet.parts.redis.delete(*quiet.parts.epochs.names)

    ((line, reason),) = await refused(quiet, capped(99))
    assert (line, reason.partition(":")[0]) == (10, "sellable cannot be lowered now")
    assert "not loaded" in reason
    await applied(quiet, capped(101))
    await quiet.parts.rehydration.guard()
    await quiet.parts.publisher.publish()
    assert (await level(quiet, product_id)).sellable == 101


async def test_while_redis_is_being_loaded_no_cap_goes_down(quiet: Road, pg: asyncpg.Connection[Any]) -> None:
    product_id = await published_day(quiet)
    await pg.execute("SELECT pg_advisory_lock(7302)")

    assert await refused(quiet, capped(99)) == [(10, "sellable cannot be lowered now: Redis is being loaded")]
    assert (await level(quiet, product_id)).sellable == 100


async def test_while_redis_is_away_a_cap_goes_up_but_not_down(serve: Serve, quiet: Road) -> None:
    product_id = await published_day(quiet)
    away = await serve(jobs=False, redis_url="redis://127.0.0.1:9/0")

    for dry_run in (True, False):
        ((line, reason),) = await refused(away, capped(99), dry_run=dry_run)
        assert line == 10
        assert reason.startswith("sellable cannot be lowered now: Redis did not answer")
    await applied(away, capped(101))
    assert await cap_in_record(quiet, product_id) == 101
    assert (await level(quiet, product_id)).sellable == 100


async def test_two_files_applied_at_once_come_one_after_the_other(road: Road) -> None:
    product_id = await day(road, capped(100))

    await asyncio.gather(*(applied(road, capped(sellable)) for sellable in (40, 30)))
    await road.flushed()
    cap = await cap_in_record(road, product_id)
    assert cap in (30, 40)
    assert await level(road, product_id) == Level(cap, 0, 0)

    told = await asyncio.gather(*(applied(road, capped(20)) for _ in range(2)))
    assert sorted(told, key=len) == [[], [f"change product DAY: sellable {cap} -> 20"]]


async def test_buyers_who_race_a_falling_cap_never_pass_it(road: Road) -> None:
    product_id = await day(road, capped(60))

    async def lower() -> None:
        for sellable in (50, 40, 30, 20):
            try:
                await applied(road, capped(sellable))
            except CatalogFileError:
                return

    answers, _ = await asyncio.gather(
        asyncio.gather(*(road.order({product_id: 1}, buyer=f"b{n}") for n in range(45))), lower()
    )
    await road.flushed()
    held = [answer.status for answer in answers].count(201)
    cap = await cap_in_record(road, product_id)
    assert await level(road, product_id) == Level(cap, held, 0)
    assert held <= cap


async def test_nothing_is_written_when_postgres_refuses_a_row(
    quiet: Road, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    product_id = await published_day(quiet)
    before = await everything(pg)

    async def fails(connection: Connection, *operator: Any) -> None:
        await connection.execute("INSERT INTO operators (username, role) VALUES ('x', 'no role')")

    monkeypatch.setattr(catalog, "put_operator", fails)
    with pytest.raises(asyncpg.CheckViolationError):
        await applied(quiet, capped(50) + "[[operators]]\nusername = 'gina'\nrole = 'gate'\n")
    assert await everything(pg) == before
    assert (await level(quiet, product_id)).sellable == 100


def test_a_change_reads_as_one_line() -> None:
    change = Change(ChangeKind.CHANGE, "product", "DAY", ("price_fen 12800 -> 9900", "sellable 1 -> 2"))

    assert str(change) == "change product DAY: price_fen 12800 -> 9900, sellable 1 -> 2"
