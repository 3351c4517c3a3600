"""Several workers on one port: they decide as one, none is missed when it dies, and all end together."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import structlog
from aiohttp import ClientConnectionError, ClientSession, TCPConnector
from aiohttp.test_utils import unused_port
from multidict import CIMultiDict
from redis.asyncio import Redis

from server import workers
from server.config import Config
from server.dev.embedded import EmbeddedValkey
from server.dev.process import children
from server.workers import Worker, WorkersError, reserved
from tests.conftest import Audit, Serve, eventually
from tests.outage.conftest import Spawn
from tests.processes import Process, road_to
from tests.road import PASSWORD, PATIENCE_S, Answer, Road

REFUSED_S_MAX = 10.0  # within a second, on a quiet machine; a worker that does not look would take for ever
PROCESS_CHARS = 20  # of a request id: one process's own


@asynccontextmanager
async def two_workers(spawn: Spawn, config: Config, **settings: str) -> AsyncIterator[tuple[Process, Road]]:
    """Two workers and the jobs, and a road on which every request has a connection of its own."""
    parent = await spawn("serve", "--workers", "2", "--with-jobs", **settings)
    serving = await parent.until("serving")
    assert (serving["workers"], serving["jobs"]) == (2, True)
    async with road_to(serving["address"], config) as road:
        connector = TCPConnector(force_close=True, limit=0)
        async with ClientSession(base_url=serving["address"], connector=connector) as session:
            road.session = session
            yield parent, road


def who(answer: Answer) -> str:
    """The process that answered."""
    return CIMultiDict(answer.headers)["X-Request-Id"][:PROCESS_CHARS]


def serving_children(parent: Process) -> dict[int, list[str]]:
    """pid -> words of the command."""
    found = {}
    for pid in children(parent.pid):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        if "server.cli" in words:
            found[pid] = words[words.index("server.cli") + 1 :]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def by_every_worker(road: Road, **call: Any) -> dict[str, Answer]:
    """The same request until both workers have answered it: process -> its last answer."""
    answers: dict[str, Answer] = {}
    async with asyncio.timeout(PATIENCE_S):
        while len(answers) < 2:
            answers |= {
                who(each): each for each in await asyncio.gather(*(road.call(**call) for _ in range(8)))
            }
    assert len(answers) == 2
    return answers


async def followed(road: Road, product: int) -> None:
    """Wait until both workers know the gate and the product."""
    gate = await road.gate()
    knows_gate: set[str] = set()
    knows_product: set[str] = set()
    async with asyncio.timeout(PATIENCE_S):
        while len(knows_gate & knows_product) < 2:
            for answer in await asyncio.gather(*(road.call("GET", "/venue", headers=gate) for _ in range(8))):
                if answer.status == 200:
                    knows_gate.add(who(answer))
            for answer in await asyncio.gather(*(road.call("GET", "/catalog") for _ in range(8))):
                if any(each["id"] == product for each in answer.json["products"]):
                    knows_product.add(who(answer))


# --- as one -------------------------------------------------------------------------------------------------------


async def test_workers_decide_as_one(
    spawn: Spawn, config: Config, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    async with two_workers(spawn, config) as (parent, road):
        product = await road.product({"bus": 50}, price_fen=0, sellable=100)
        await followed(road, product)
        key = uuid4().hex
        orders = await asyncio.gather(*(road.order({product: 1}, idempotency_key=key) for _ in range(30)))
        assert len({who(each) for each in orders}) == 2
        assert {each.status for each in orders} == {201}
        assert len({each.json["order_id"] for each in orders}) == 1

        (ticket,) = await road.buy({product: 1}, buyer="bob")
        qr = await road.qr(ticket["ticket_code"], buyer="bob")
        shown = await asyncio.gather(*(road.scan(qr, "bus") for _ in range(40)))
        assert len({who(each) for each in shown}) == 2
        assert Counter(each.json["result"] for each in shown) == {"success": 1, "reject": 39}

        qr = await road.qr(ticket["ticket_code"], buyer="bob")
        again = await asyncio.gather(*(road.scan(qr, "bus", scan_id="the-same") for _ in range(40)))
        assert len({who(each) for each in again}) == 2
        assert len({each.raw for each in again}) == 1 and again[0].json["result"] == "success"

        gate = await road.gate()
        asked = 'gateline_http_requests_total{method="POST",route="/venue/scan",status="200"}'

        async def all_counted() -> bool:  # what the lane counted is brought four times a second
            told = await by_every_worker(road, method="GET", path="/metrics")
            return {counted(answer, asked) for answer in told.values()} == {len(shown) + len(again)}

        await eventually(all_counted)
        for answer in (await by_every_worker(road, method="GET", path="/metrics")).values():
            assert counted(answer, 'gateline_scans_total{verdict="SUCCESS"}') == 41
            assert counted(answer, 'gateline_scans_total{verdict="ALREADY_REDEEMED"}') == 39

        await road.flushed()
        assert await pg.fetchval("SELECT count(*) FROM redemption_events") == 41
        await pg.execute("UPDATE operators SET enabled = false WHERE username = 'gina'")
        refused: set[str] = set()
        async with asyncio.timeout(REFUSED_S_MAX):
            while len(refused) < 2:
                asking = (road.call("GET", "/venue", headers=gate) for _ in range(8))
                answers = await asyncio.gather(*asking)
                let_in = {who(answer) for answer in answers if answer.status == 200}
                assert not let_in & refused, "what was refused once is not let in again"
                for answer in answers:
                    if answer.status == 401:
                        assert answer.json["code"] == "OPERATOR_DISABLED"
                        refused.add(who(answer))
        login = {"username": "gina", "password": PASSWORD}
        assert (await road.call("POST", "/operators/login", json=login)).status == 401
        await audit(road)
        assert await parent.stop() == 0
    assert parent.errors() == []


def counted(answer: Answer, sample: str) -> float:
    (line,) = [line for line in answer.raw.decode().splitlines() if line.startswith(sample + " ")]
    return float(line.split()[-1])


async def test_the_jobs_have_a_process_of_their_own_and_the_port_is_one(spawn: Spawn, config: Config) -> None:
    async with two_workers(spawn, config) as (parent, _):
        words = sorted(" ".join(each[:2]) for each in serving_children(parent).values())
        assert words == ["serve --reuse-port", "serve --reuse-port", "work --leash"]
        assert all("--with-jobs" not in each for each in serving_children(parent).values())
        sessions = {os.getsid(pid) for pid in (parent.pid, *serving_children(parent))}
        assert len(sessions) == 4, "Ctrl-C in a terminal reaches the parent alone"


# --- one dies -----------------------------------------------------------------------------------------------------


async def test_a_worker_that_is_killed_under_load_is_started_again_and_nothing_told_is_lost(
    spawn: Spawn, config: Config, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    async with two_workers(spawn, config) as (parent, road):
        product = await road.product({"bus": 400}, price_fen=0, sellable=10)
        await followed(road, product)
        tickets = [each["ticket_code"] for each in await road.buy({product: 4})]
        await road.gate()
        first = serving_children(parent)
        victim = next(pid for pid, words in first.items() if words[0] == "serve")
        told: dict[str, dict[str, Any]] = {}
        answered_by: list[str] = []
        cut = 0
        done = asyncio.Event()

        async def gate(number: int) -> None:
            """A gate that asks again, under the same scan_id, until it is told something."""
            nonlocal cut
            while not done.is_set():
                qr, scan_id = await shown(tickets[number % 4]), uuid4().hex
                while scan_id not in told:
                    try:
                        answer = await road.scan(qr, "bus", scan_id=scan_id)
                    except (ClientConnectionError, OSError):
                        cut += 1
                        await asyncio.sleep(0.02)
                        continue
                    assert answer.status == 200, answer
                    answered_by.append(who(answer))
                    told[scan_id] = answer.json

        async def shown(code: str) -> str:
            while True:
                try:
                    return await road.qr(code)
                except (ClientConnectionError, OSError):
                    await asyncio.sleep(0.02)

        gates = [asyncio.create_task(gate(number)) for number in range(12)]
        await eventually(lambda: asyncio.sleep(0, len(set(answered_by)) == 2))
        before = set(answered_by)
        os.kill(victim, signal.SIGKILL)
        again = await parent.until("worker_started_again")
        await eventually(lambda: asyncio.sleep(0, len(set(answered_by) - before) == 1))
        then = len(answered_by)
        await eventually(lambda: asyncio.sleep(0, len(set(answered_by[then:])) == 2))
        done.set()
        await asyncio.gather(*gates)

        assert len(set(answered_by[then:]) & before) == 1, "the other went on"
        now = serving_children(parent)
        assert victim not in now and again["pid"] in now and len(now) == 3
        died = next(line for line in parent.log if line.get("alert") == "WORKER_DIED")
        assert (died["pid"], died["status"], died["worker"]) == (victim, -signal.SIGKILL, again["worker"])
        assert await road.alerts("WORKER_DIED") == 1
        await audit(road)
        rows = await pg.fetch("SELECT scan_id, event_id, result FROM redemption_events")
        recorded = {row["scan_id"]: (row["event_id"], row["result"]) for row in rows}
        assert {
            name: (each["event_id"], each["result"]) for name, each in told.items()
        }.items() <= recorded.items()
        assert len(recorded) == len(rows)
        assert await parent.stop() == 0


async def test_the_jobs_are_started_again_too(
    spawn: Spawn, config: Config, pg: asyncpg.Connection[Any]
) -> None:
    async with two_workers(spawn, config) as (parent, road):
        (jobs,) = [pid for pid, words in serving_children(parent).items() if words[0] == "work"]
        os.kill(jobs, signal.SIGKILL)
        assert (await parent.until("worker_started_again"))["worker"] == "work"
        product = await road.product({"bus": 1}, price_fen=0)
        await followed(road, product)
        await road.buy({product: 1})
        await road.flushed()
        assert await pg.fetchval("SELECT count(*) FROM tickets") == 1
        assert await parent.stop() == 0


async def test_a_worker_that_cannot_come_up_again_is_tried_ever_more_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "WORKER_RETRY_S_MIN", 0.02)
    monkeypatch.setattr(workers, "WORKER_RETRY_S_MAX", 0.1)
    worker = Worker("serve-1", ("serve", "--no-such-option"), os.environ, {}, tmp_path)
    assert not await worker.start()
    with structlog.testing.capture_logs() as log:
        keeping = asyncio.create_task(worker.keep())
        await eventually(lambda: asyncio.sleep(0, len(log) >= 5))
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    await worker.end(1.0)
    assert [line["again_in_s"] for line in log[:5]] == [0.04, 0.08, 0.1, 0.1, 0.1]
    assert {line["alert"] for line in log} == {"WORKER_DIED"}


# --- the end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_all_finish_what_was_begun_and_flush(
    spawn: Spawn, config: Config, pg: asyncpg.Connection[Any], number: signal.Signals
) -> None:
    async with two_workers(spawn, config) as (parent, road):
        product = await road.product({"bus": 400}, price_fen=0, sellable=10)
        await followed(road, product)
        tickets = [each["ticket_code"] for each in await road.buy({product: 4})]
        qrs = [await road.qr(code) for code in tickets for _ in range(5)]
        pids = [*serving_children(parent)]
        told: list[Answer] = []

        async def gate(place: int) -> None:
            try:
                while True:
                    told.append(await road.scan(qrs[place], "bus"))
            except (ClientConnectionError, OSError):
                return

        gates = asyncio.gather(*(gate(place) for place in range(20)))
        await eventually(lambda: asyncio.sleep(0, len(told) > 100))
        parent.send(number)
        assert await parent.ended() == 0
        await gates

        assert len(pids) == 3 and not [pid for pid in pids if alive(pid)]
        assert {answer.status for answer in told} <= {200, 503}
        assert [await road.parts.streams.length(name) for name in road.parts.stream_names] == [0, 0]
        recorded = {row[0] for row in await pg.fetch("SELECT event_id FROM redemption_events")}
        assert {answer.json["event_id"] for answer in told if answer.status == 200} <= recorded
    assert parent.errors() == []


@asynccontextmanager
async def while_one_starts(spawn: Spawn) -> AsyncIterator[tuple[Process, list[int]]]:
    """A parent whose second worker has yet to read its own code, and its children; at the end that one goes on."""
    parent = await spawn("serve", "--workers", "2", "--with-jobs")
    pids: list[int] = []  # as they came
    async with asyncio.timeout(PATIENCE_S):
        while len(pids) < 3:
            pids += [pid for pid in serving_children(parent) if pid not in pids]
            await asyncio.sleep(0.005)
    os.kill(pids[-1], signal.SIGSTOP)
    try:
        yield parent, pids
    finally:
        with suppress(ProcessLookupError):  # a parent that has not yet heard of its start kills it as it ends
            os.kill(pids[-1], signal.SIGCONT)


async def test_told_to_stop_while_a_worker_starts_all_end_in_order(spawn: Spawn) -> None:
    async with while_one_starts(spawn) as (parent, pids):
        parent.send(signal.SIGTERM)
        await asyncio.sleep(0.2)

    assert await parent.ended() == 0
    assert not [line for line in parent.log if line.get("event") == "serving"]
    assert not [pid for pid in pids if alive(pid)]
    assert parent.errors() == []


async def test_a_worker_whose_parent_is_killed_before_it_serves_ends_too(spawn: Spawn) -> None:
    async with while_one_starts(spawn) as (parent, pids):
        parent.send(signal.SIGKILL)

    assert await parent.ended() == -signal.SIGKILL  # with all that write to where it wrote
    await eventually(lambda: asyncio.sleep(0, not any(map(alive, pids))))


async def test_workers_end_when_their_parent_is_killed(spawn: Spawn, config: Config) -> None:
    async with two_workers(spawn, config) as (parent, _):
        pids = [*serving_children(parent)]
        await parent.kill()
        await eventually(lambda: asyncio.sleep(0, not any(map(alive, pids))))
        assert len(pids) == 3


# --- what keeps them from starting --------------------------------------------------------------------------------


async def ended_badly(spawn: Spawn, **settings: str) -> str:
    """What a parent says that cannot start; it ends with 1, and has started nothing that stays."""
    parent = await spawn("serve", "--workers", "2", "--with-jobs", **settings)
    assert await parent.ended() == 1
    assert not [line for line in parent.log if line.get("event") == "serving"]
    return "".join(parent.said())


async def test_a_port_that_is_taken_is_told_once(spawn: Spawn, serve: Serve) -> None:
    road = await serve()
    port = road.url.rpartition(":")[2].strip("/")
    told = await ended_badly(spawn, GATELINE_PORT=port)
    assert told == f"gateline: cannot listen at 127.0.0.1, port {port}: Address already in use\n"


async def test_another_installation_does_not_join_a_port_that_workers_have(
    spawn: Spawn, config: Config
) -> None:
    async with two_workers(spawn, config) as (_, road):
        port = road.url.rpartition(":")[2]
        assert "Address already in use" in await ended_badly(spawn, GATELINE_PORT=port)


async def test_a_redis_that_is_too_weak_is_told_once(spawn: Spawn, tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "weak", appendfsync="everysec") as weak:
        async with Redis.from_url(weak.url) as redis:
            await redis.config_set("appendfsync", "everysec")
        told = await ended_badly(spawn, REDIS_URL=weak.url)
    assert told.count("gateline:") == 1 and "appendfsync" in told
    assert "Traceback" not in told


async def test_a_configuration_that_is_not_legal_is_told_once(spawn: Spawn) -> None:
    told = await ended_badly(spawn, GATELINE_SHARDS="17")
    assert told.count("GATELINE_SHARDS") == 1 and "Traceback" not in told


async def test_a_first_worker_that_ends_without_a_word_ends_the_parent_with_one(tmp_path: Path) -> None:
    worker = Worker("serve-1", ("serve", "--no-such-option"), os.environ, {}, tmp_path)
    with structlog.testing.capture_logs() as log:
        assert await workers.run([worker], None, "here", asyncio.Event(), asyncio.Event()) == 1
    assert [line["event"] for line in log] == ["workers_did_not_start"]


@pytest.mark.parametrize("number", ["0", "65", "-1", "two", "1.5", "²", ""])
async def test_a_number_of_workers_that_cannot_be_is_a_wrong_call(spawn: Spawn, number: str) -> None:
    parent = await spawn("serve", f"--workers={number}")
    assert await parent.ended() == 2
    assert "from 1 to 64" in "".join(parent.said())


# --- the port -----------------------------------------------------------------------------------------------------


def test_a_port_is_reserved_only_where_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(WorkersError, match=f"port {port}"), reserved("127.0.0.1", port, shared=False):
            pass
        with reserved("127.0.0.1", port, shared=True) as shared:
            assert shared == port
    with reserved("127.0.0.1", 0, shared=False) as free, socket.socket() as worker:
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        worker.bind(("127.0.0.1", free))
        worker.listen()
    with socket.socket() as later:
        later.bind(("127.0.0.1", free))


def test_a_host_with_two_addresses_has_one_port_for_both() -> None:
    port = unused_port()
    with reserved("localhost", port, shared=False) as found:
        assert found == port
    with pytest.raises(WorkersError, match=r"nowhere\.invalid"), reserved("nowhere.invalid", 0, shared=False):
        pass
