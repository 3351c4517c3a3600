"""What those who run the service see: alive, fit to serve and why not, metrics that add up, ids and headers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import ClientSession
from multidict import CIMultiDict
from prometheus_client.parser import text_string_to_metric_families

from server.web.routes import ROUTES
from tests.conftest import Serve, eventually
from tests.road import PATIENCE_S, Answer, Road
from tests.web.process import gateline
from tests.web.stage import refused

Sample = tuple[str, tuple[tuple[str, str], ...]]


async def ready(road: Road) -> Answer:
    """What /readyz says after a fresh look."""
    await road.backlog.look()
    return await road.call("GET", "/readyz")


@asynccontextmanager
async def published(road: Road) -> AsyncIterator[None]:
    """The outbox is applied while this lasts, by hand: the flusher and all other jobs are still."""

    async def publish() -> None:
        while True:
            await road.parts.publisher.publish()
            await asyncio.sleep(0.01)

    task = asyncio.create_task(publish())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def open_gates(road: Road) -> None:
    """Loads Redis once, as the guard does."""
    await road.parts.rehydration.guard()
    await road.backlog.look()


# --- Alive and ready ----------------------------------------------------------------------------------------


async def test_the_process_says_that_it_is_alive_whatever_else_is_away(serve: Serve) -> None:
    road = await serve(
        jobs=False, redis_url="redis://127.0.0.1:9", database_url="postgresql://nobody@127.0.0.1:9/none"
    )
    answer = await road.call("GET", "/healthz")
    assert (answer.status, answer.json) == (200, {"status": "alive"})


async def test_a_server_is_ready_when_the_gates_are_open_and_nothing_waits(road: Road) -> None:
    await road.flushed()
    answer = await ready(road)
    assert answer.status == 200
    assert answer.json == {
        "status": "ready",
        "reasons": [],
        "flusher_lag_s": 0.0,
        "stream_entries": 0,
        "outbox_waiting": 0,
        "dead_letters": 0,
        "wechat_certificate_ends_at": None,
    }


async def test_without_its_databases_a_server_is_unready_and_says_which_is_away(serve: Serve) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:9/none"
    road = await serve(jobs=False, redis_url="redis://127.0.0.1:9", database_url=nowhere)
    answer = await ready(road)
    assert (answer.status, answer.json["status"]) == (503, "unready")
    assert answer.json["reasons"] == ["REDIS_UNAVAILABLE", "CATALOG_NOT_LOADED", "POSTGRES_UNAVAILABLE"]
    assert answer.json["outbox_waiting"] is answer.json["dead_letters"] is None
    assert b"nobody" not in answer.raw and b"127.0.0.1" not in answer.raw


async def test_while_redis_is_not_loaded_the_gates_are_closed_and_every_scan_may_be_repeated(
    serve: Serve,
) -> None:
    road = await serve(jobs=False)
    answer = await ready(road)
    assert (answer.status, answer.json["reasons"]) == (503, ["GATE_CLOSED"])
    scanned = await road.call(
        "POST",
        "/venue/scan",
        headers=await road.gate(),
        json={"qr_token": "x", "function_code": "bus", "scan_id": "scan-1"},
    )
    assert refused(scanned, 503, "GATE_CLOSED")["scan_id"] == "scan-1"
    assert CIMultiDict(scanned.headers)["Retry-After"] == "1"
    await open_gates(road)
    assert (await ready(road)).json["status"] == "ready"


async def test_past_the_bound_of_unflushed_entries_scans_and_orders_are_refused_until_it_is_flushed(
    serve: Serve,
) -> None:
    road = await serve(jobs=False, stream_entries_max=3)
    await open_gates(road)
    async with published(road):
        product = await road.product()
    gate = await road.gate()
    for number in range(3):
        assert (await road.order({product: 1})).status == 201, number
    first = await ready(road)
    assert first.json["stream_entries"] == 3
    assert (first.status, first.json["reasons"]) == (503, ["BACKLOG_FULL"])
    assert first.json["flusher_lag_s"] > 0

    order = await road.order({product: 1}, idempotency_key="the-same")
    scan = await road.call(
        "POST", "/venue/scan", headers=gate, json={"qr_token": "x", "function_code": "bus"}
    )
    for answer in (order, scan):
        refused(answer, 503, "BACKLOG_FULL")
        assert CIMultiDict(answer.headers)["Retry-After"] == "1"
    assert (await road.parts.stock.levels([product]))[product].reserved == 3
    # What lightens the load, or does not add to it, goes on.
    assert (await road.call("GET", "/catalog")).status == 200
    assert (await road.call("GET", "/my/tickets", headers=road.buyer())).status == 200

    await road.parts.flusher.follow(road.parts.stream_names)
    await road.parts.flusher.drain(road.parts.stream_names)
    last = await ready(road)
    assert (last.json["status"], last.json["stream_entries"], last.json["flusher_lag_s"]) == ("ready", 0, 0.0)
    assert (await road.order({product: 1}, idempotency_key="the-same")).status == 201


async def test_past_the_bound_of_memory_scans_and_orders_are_refused(serve: Serve) -> None:
    road = await serve(jobs=False, redis_memory_mb_max=1)
    await open_gates(road)
    assert (await ready(road)).json["reasons"] == ["BACKLOG_FULL"]
    scan = {"qr_token": "x", "function_code": "bus"}
    refused(await road.call("POST", "/venue/scan", headers=await road.gate(), json=scan), 503, "BACKLOG_FULL")


async def test_dead_letters_and_a_late_outbox_degrade_but_do_not_close_the_gates(
    serve: Serve, pg: asyncpg.Connection[Any]
) -> None:
    road = await serve(jobs=False)
    await open_gates(road)
    await pg.execute(
        "INSERT INTO dead_letters (stream, entry_id, reason, body) VALUES ('{stock}:orders', '1-1', 'x', '')"
    )
    await pg.execute(
        "INSERT INTO outbox (kind, subject, created_at) VALUES ('release', '0', now() - interval '6 seconds')"
    )
    answer = await ready(road)
    assert (answer.status, answer.json["status"]) == (200, "degraded")
    assert answer.json["reasons"] == ["OUTBOX_LATE", "DEAD_LETTERS"]
    assert (answer.json["outbox_waiting"], answer.json["dead_letters"]) == (1, 1)


async def test_past_so_many_waiting_logins_the_next_is_told_at_once_to_come_back(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.flows.staff.PASSWORD_QUEUE_STRANGERS_MAX", 3)
    enough = threading.Event()

    def slow(password: str, phc: str) -> bool:
        return enough.wait(PATIENCE_S)

    monkeypatch.setattr("server.flows.staff.verify_password", slow)
    logins = [{"username": f"x{number}", "password": "y"} for number in range(20)]
    tasks = [asyncio.create_task(road.call("POST", "/operators/login", json=login)) for login in logins]

    async def told() -> bool:
        return sum(task.done() for task in tasks) == 15

    await eventually(told)  # two hash, three wait
    refusals = [task.result() for task in tasks if task.done()]
    enough.set()
    answers = await asyncio.gather(*tasks)
    assert [answer.status for answer in answers].count(401) == 5
    for answer in refusals:
        refused(answer, 503, "OVERLOADED")
        assert CIMultiDict(answer.headers)["Retry-After"] == "1"


# --- Metrics ------------------------------------------------------------------------------------------------


def samples(answer: Answer) -> dict[Sample, float]:
    """Prometheus text, read by the reference parser: (name, labels) -> value."""
    assert answer.status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.raw.decode())
        for sample in family.samples
    }


def value(seen: dict[Sample, float], name: str, **labels: str) -> float:
    """The sum over all samples of this name that have these labels."""
    return sum(v for (n, given), v in seen.items() if n == name and labels.items() <= dict(given).items())


async def scrape(road: Road) -> dict[Sample, float]:
    return samples(await road.call("GET", "/metrics"))


async def test_metrics_are_prometheus_text_and_grow_with_what_is_done(road: Road) -> None:
    await road.venue("pier-1", ["bus"])
    product = await road.product({"bus": 1}, sellable=1)
    gate = await road.gate()
    before = await scrape(road)
    (ticket,) = await road.buy({product: 1})
    assert (await road.order({product: 1})).status == 422
    token = await road.qr(ticket["ticket_code"])
    await road.scan(token, "bus")
    await road.scan(token, "bus")
    await road.call("GET", "/venue", headers=gate)
    await road.flushed()

    def flushed(seen: dict[Sample, float]) -> float:
        return value(seen, "gateline_flushed_total")

    async def counted() -> bool:  # the flusher counts after it has trimmed
        return flushed(await scrape(road)) - flushed(before) == 3

    await eventually(counted)
    after = await scrape(road)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("gateline_orders_total", outcome="HELD") == 1
    assert grown("gateline_orders_total", outcome="SOLD_OUT") == 1
    assert grown("gateline_settlements_total", gateway="hosted", outcome="PAID") == 1
    assert grown("gateline_tickets_issued_total") == 1
    assert grown("gateline_scans_total", verdict="SUCCESS") == 1
    assert grown("gateline_scans_total", verdict="ALREADY_REDEEMED") == 1
    assert grown("gateline_scan_batch_count") >= 2
    assert grown("gateline_http_requests_total", method="POST", route="/venue/scan", status="200") == 2
    assert grown("gateline_http_requests_total", method="POST", route="/orders", status="422") == 1
    assert grown("gateline_http_request_seconds_count", route="/venue/scan") == 2

    async def empty() -> bool:  # looked at twice a second
        return value(await scrape(road), "gateline_stream_entries") == 0

    await eventually(empty)


async def test_no_label_is_made_of_what_a_client_sends(road: Road) -> None:
    before = await scrape(road)
    marks = [uuid4().hex for _ in range(6)]
    await road.call("GET", f"/{marks[0]}")
    await road.call("GET", f"/orders/{marks[1]}", headers=road.buyer())
    await road.call("PROPFIND", f"/orders/{marks[2]}")
    await road.call("LINK", "/catalog")
    await road.call("GET", f"/catalog?{marks[3]}={marks[4]}", headers={"X-Request-Id": marks[5]})
    after = await scrape(road)
    text = str(after)
    assert not [mark for mark in marks if mark in text]
    assert "PROPFIND" not in text and "LINK" not in text
    assert value(after, "gateline_http_requests_total", route="unknown") >= 3 + value(
        before, "gateline_http_requests_total", route="unknown"
    )
    routes = {dict(labels).get("route") for key in (before, after) for _, labels in key}
    told = {dict(labels).get("route") for _, labels in after.keys() - before.keys()}
    assert "/catalog" in routes
    assert told <= {None, "unknown", *(route.path for route in ROUTES)}


async def test_the_metrics_of_several_processes_add_up_and_those_of_an_ended_one_stay(
    environment: dict[str, str], tmp_path: Path, template: str
) -> None:
    environment |= {"GATELINE_DATA_DIR": str(tmp_path / "data"), "GATELINE_LOG_LEVEL": "warning"}

    async def catalogs(address: str) -> float:
        async with ClientSession() as session, session.get(f"{address}/metrics") as answer:
            seen = samples(Answer(answer.status, None, await answer.read()))
        return value(seen, "gateline_http_requests_total", route="/catalog")

    async def look(address: str, times: int) -> None:
        async with ClientSession() as session:
            for _ in range(times):
                async with session.get(f"{address}/catalog") as answer:
                    await answer.read()

    async with gateline(environment) as first:
        async with gateline(environment) as second:
            await look(first.address, 3)
            await look(second.address, 4)
            assert await catalogs(first.address) == await catalogs(second.address) == 7
        await look(first.address, 1)
        assert await catalogs(first.address) == 8
    async with gateline(
        environment
    ) as anew:  # none was left: Prometheus sees a reset, not a sum of all times
        await look(anew.address, 2)
        assert await catalogs(anew.address) == 2


# --- Request ids and headers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", ["0123456789abcdef", "8charsid", "a" * 64, "550e8400-e29b-41d4-a716-446655440000"]
)
async def test_a_plain_request_id_comes_back(road: Road, given: str) -> None:
    for path in ("/healthz", "/nowhere"):
        answer = await road.call("GET", path, headers={"X-Request-Id": given})
        assert CIMultiDict(answer.headers)["X-Request-Id"] == given
    assert answer.json["request_id"] == given


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "short",
        "a" * 65,
        "with blank!",
        'with"quote',
        "with,comma",
        "中文中文中文中文",
        "--------",
        "../../../..",
    ],
)
async def test_any_other_request_id_is_replaced_by_a_new_one(road: Road, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-Id": given}
    made = {
        CIMultiDict((await road.call("GET", "/healthz", headers=headers)).headers)["X-Request-Id"]
        for _ in range(3)
    }
    assert len(made) == 3
    assert all(len(each) == 32 and each.isalnum() for each in made)


async def test_every_answer_has_the_headers_that_keep_it_from_being_misread_or_kept(road: Road) -> None:
    analyst = await road.analyst()
    for method, path, options in (
        ("GET", "/catalog", {}),
        ("GET", "/healthz", {}),
        ("GET", "/metrics", {}),
        ("GET", "/openapi/openapi.json", {}),
        ("GET", "/docs", {}),
        ("GET", "/nowhere", {}),
        ("PUT", "/catalog", {}),
        ("GET", "/my/orders", {}),
        ("GET", "/reports/redemptions?format=csv", {"headers": analyst}),
        ("POST", "/operators/login", {"data": b"{", "headers": {"Content-Type": "application/json"}}),
    ):
        answer = await road.call(method, path, **options)
        headers = CIMultiDict(answer.headers)
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["Cache-Control"] == "no-store", path
        assert headers["X-Request-Id"], path
        assert headers["Server"] == "Gateline", path  # not which library of which version
    page = CIMultiDict((await road.call("GET", "/docs")).headers)
    assert "default-src 'none'" in page["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page["Content-Security-Policy"]
