"""What was scanned is counted, once, whichever way it went and whichever process told it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession, web
from prometheus_client import REGISTRY

from server.app import build_app
from server.domain.redemption import Verdict
from server.service import CONNECTION
from server.telemetry import REQUEST_SECONDS, REQUESTS, SCANS
from server.web.connection import ExpressRunner
from server.web.tally import Tally
from tests.conftest import eventually
from tests.road import Road
from tests.web.process import gateline
from tests.web.test_operations import Sample, samples, value
from tests.web.wire import posted, wire

SCAN_ROUTE = {"route": "/venue/scan"}


async def scraped(address: str) -> dict[Sample, float]:
    async with ClientSession(base_url=address) as session:
        return samples(await Road(session, None, None, None).call("GET", "/metrics"))  # type: ignore[arg-type]


def grown(before: dict[Sample, float], after: dict[Sample, float]) -> dict[str, Any]:
    """Verdicts by name, requests by status, and how many the histogram saw."""

    def by(name: str, label: str, **labels: str) -> Counter[str]:
        counts: Counter[str] = Counter()
        for sign, seen in ((1, after), (-1, before)):
            for (each, pairs), number in seen.items():
                if each == name and labels.items() <= dict(pairs).items():
                    counts[dict(pairs)[label]] += sign * int(number)
        return +counts

    seconds = "gateline_http_request_seconds"
    buckets = by(f"{seconds}_bucket", "le", **SCAN_ROUTE)
    number = value(after, f"{seconds}_count", **SCAN_ROUTE) - value(before, f"{seconds}_count", **SCAN_ROUTE)
    assert buckets["+Inf"] == number
    in_order = [buckets[le] for le in sorted(buckets, key=float)]
    assert in_order == sorted(in_order)
    return {
        "verdicts": by("gateline_scans_total", "verdict"),
        "statuses": by("gateline_http_requests_total", "status", **SCAN_ROUTE),
        "timed": number,
        "seconds": value(after, f"{seconds}_sum", **SCAN_ROUTE)
        - value(before, f"{seconds}_sum", **SCAN_ROUTE),
    }


async def scan_all(address: str, gate: dict[str, str], body: dict[str, Any], kind: str) -> None:
    """Twenty requests: fifteen verdicts (five of them replays), one conflict, one bad field, three strangers."""
    async with wire(address) as line:
        said = [body | {"qr_token": "x", "scan_id": uuid4().hex} for _ in range(10)]
        said += said[:5]
        said += [said[0] | {"function_code": "ferry", "qr_token": body["qr_token"]}, {"qr_token": "x"}]
        for each in said:
            await line.send(posted(each, gate, kind=kind))
            await line.answer()
        for _ in range(3):
            await line.send(posted(body, {}, kind=kind))
            await line.answer()


EXPECTED = {
    "verdicts": Counter({"QR_MALFORMED": 15}),
    "statuses": Counter({"200": 15, "409": 1, "400": 1, "401": 3}),
    "timed": 20,
}


@pytest.fixture
async def body(road: Road) -> dict[str, Any]:
    (ticket,) = await road.buy({await road.product({"bus": 50}): 1})
    await road.flushed()
    return {"qr_token": await road.qr(ticket["ticket_code"]), "function_code": "bus"}


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8"])
async def test_each_way_counts_what_was_sent(road: Road, body: dict[str, Any], kind: str) -> None:
    gate = await road.gate()
    before = await scraped(road.url)
    await scan_all(road.url, gate, body, kind)
    told = grown(before, await scraped(road.url))
    assert 0 < told.pop("seconds") < 20
    assert told == EXPECTED


async def test_a_verdict_whose_client_has_gone_is_counted_on_both_ways(
    road: Road, body: dict[str, Any]
) -> None:
    gate = await road.gate()
    runner = ExpressRunner(build_app(road.parts), **CONNECTION)  # aiohttp's server for tests cancels handlers
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    for kind in ("application/json", "application/json; charset=utf-8"):
        before = await scraped(road.url)
        await road.parts.redis.client_pause(300)
        async with wire(f"http://127.0.0.1:{runner.addresses[0][1]}/") as line:
            await line.send(posted(body | {"scan_id": uuid4().hex}, gate, kind=kind))
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.4)

        async def counted(before: dict[Sample, float] = before) -> bool:
            told = grown(before, await scraped(road.url))
            return told["verdicts"].total() == told["timed"] == told["statuses"]["200"] == 1

        await eventually(counted)
    await runner.cleanup()


async def test_processes_count_together_and_one_that_was_told_to_stop_counted_all(
    road: Road, body: dict[str, Any], environment: dict[str, str], tmp_path: Path
) -> None:
    environment |= {"GATELINE_DATA_DIR": str(tmp_path / "shared"), "GATELINE_LOG_LEVEL": "warning"}
    gate = await road.gate()
    async with gateline(environment) as first:
        async with gateline(environment) as second:
            before = await scraped(first.address)
            for process in (first, second):
                for kind in ("application/json", "application/json; charset=utf-8"):
                    await scan_all(process.address, gate, body, kind)
        # The second was stopped a moment after its last answer.
        told = grown(before, await scraped(first.address))
    assert told["timed"] == told["statuses"].total() == 80
    assert told["verdicts"].total() == told["statuses"]["200"] == 60
    assert told["statuses"]["401"] == 12


# --- The tally ----------------------------------------------------------------------------------------------


def shown(route: str) -> dict[str, float]:
    """Every sample of the route."""
    return {
        f"{sample.name} {sorted((k, v) for k, v in sample.labels.items() if k != 'route')}": sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.labels.get("route") == route and not sample.name.endswith("_created")
    }


async def test_the_tallys_bulk_way_equals_the_librarys_own_way() -> None:
    chance = random.Random(5)  # noqa: S311
    bounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]
    spent = [*bounds, 0.0, 5.0000001, 60.0, 1e9, *(chance.expovariate(20) for _ in range(2_000))]
    bulk, plain = f"/bulk-{uuid4().hex}", f"/plain-{uuid4().hex}"
    tally = Tally("POST", bulk)
    verdicts = {verdict: SCANS.labels(verdict.name)._value.get() for verdict in Verdict}
    for number, seconds in enumerate(spent):
        status = (200, 409, 503)[number % 3]
        tally.request(status, seconds)
        tally.verdict(Verdict(number % 12))
        REQUESTS.labels("POST", plain, str(status)).inc()
        REQUEST_SECONDS.labels(plain).observe(seconds)
        if number % 500 == 0:
            tally.bring()
    tally.bring()
    tally.bring()  # nothing is brought twice
    left, right = shown(bulk), shown(plain)
    assert left.keys() == right.keys() and len(left) > len(bounds)
    assert all(left[name] == pytest.approx(right[name]) for name in left), (left, right)
    for verdict, before in verdicts.items():
        asked = sum(number % 12 == verdict for number in range(len(spent)))
        assert SCANS.labels(verdict.name)._value.get() - before == asked


async def test_what_was_counted_is_brought_by_itself_and_no_timer_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.web.tally.BRING_S", 0.01)
    route = f"/itself-{uuid4().hex}"
    tally = Tally("POST", route)
    for times in (1, 2):
        tally.request(200, 0.01)

        async def brought(times: int = times) -> bool:
            return any("requests_total" in name and number == times for name, number in shown(route).items())

        await eventually(brought)
        assert tally._due is None
