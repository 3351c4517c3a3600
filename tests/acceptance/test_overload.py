"""More than the server can take is refused at once, with a time to come back; nothing hangs, nothing is lost."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import ClientSession, TCPConnector

from server.domain import qr
from server.hot.scripts import ScriptRunner
from server.limits import SCAN_CALLS_IN_FLIGHT_MAX
from tests.conftest import Audit, Serve, eventually
from tests.road import PATIENCE_S, Answer, Road


def refused(answer: Answer, code: str) -> bool:
    """A 503 of this code that says when to come back."""
    return (answer.status, answer.json["code"]) == (503, code) and int(answer.headers["Retry-After"]) >= 1


async def test_a_full_queue_refuses_scans_at_once_while_those_inside_are_judged(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ticket,) = await road.buy({await road.product({"bus": 20}): 1})
    qrs = [await road.qr(ticket["ticket_code"]) for _ in range(12)]
    await road.gate()
    run, answering, calls = ScriptRunner.run, asyncio.Event(), 0

    async def hang(self: ScriptRunner, script: Any, *arguments: Any) -> Any:
        nonlocal calls
        if script.name == "redeem":
            calls += 1
            await answering.wait()
        return await run(self, script, *arguments)

    monkeypatch.setattr(ScriptRunner, "run", hang)
    redeemer = road.parts.redeemer
    (batcher,) = redeemer._batchers
    monkeypatch.setattr(batcher, "_queue_max", 5)
    inside = []
    for number in range(2):  # as many calls as may be under way
        inside.append(asyncio.create_task(road.scan(qrs[number], "bus")))
        await eventually(lambda: asyncio.sleep(0, calls > number))  # noqa: B023  (awaited at once)
    inside += [asyncio.create_task(road.scan(qr, "bus")) for qr in qrs[2:7]]
    await eventually(lambda: asyncio.sleep(0, redeemer.waiting() == 5))

    scan_ids = [uuid4().hex for _ in qrs[7:]]
    try:
        async with asyncio.timeout(PATIENCE_S):
            late = [
                await road.scan(qr, "bus", scan_id=name) for qr, name in zip(qrs[7:], scan_ids, strict=True)
            ]
        assert all(refused(answer, "OVERLOADED") for answer in late)
        assert [answer.json["scan_id"] for answer in late] == scan_ids, "what a retry has to carry"
        assert not any(task.done() for task in inside)
    finally:
        answering.set()

    assert [answer.json["result"] for answer in await asyncio.gather(*inside)] == ["success"] * 7
    again = [await road.scan(qr, "bus", scan_id=name) for qr, name in zip(qrs[7:], scan_ids, strict=True)]
    assert [answer.json["result"] for answer in again] == ["success"] * 5
    await audit(road)
    assert await pg.fetchval("SELECT remaining_uses FROM entitlements") == 20 - 12


CALL_SCANS = 8  # of each call to Redis …
CALL_ARRIVALS = (
    3 * SCAN_CALLS_IN_FLIGHT_MAX * CALL_SCANS
)  # … which takes until so many more have come: three times that
QUEUE_MAX = 80
WAVE = 720
SCANS_A_S = 480  # what the harness can send; the load does not depend on it


class Redis:
    """A Redis whose calls take as long as three times the scans that it can judge need to arrive.

    However fast the machine is: its clock is the number of calls that have ended.
    """

    def __init__(self) -> None:
        self.arrived = 0
        self.ended = 0
        self.over = False  # the wave is; from now on it answers at once
        self._run = ScriptRunner.run

    async def run(self, runner: ScriptRunner, script: Any, *arguments: Any) -> Any:
        """In place of the runner's own."""
        if script.name != "redeem":
            return await self._run(runner, script, *arguments)
        until = self.arrived + CALL_ARRIVALS
        while self.arrived < until and not self.over:
            await asyncio.sleep(0.001)
        answer = await self._run(runner, script, *arguments)
        self.ended += 1
        return answer


class Gate:
    """What became of one scan of the wave; its times are in ended calls."""

    def __init__(self, token: str) -> None:
        self.asked = {"qr_token": token, "function_code": "bus", "scan_id": uuid4().hex}
        self.code = ""
        self.sent = self.told = 0

    async def ask(self, session: ClientSession, headers: dict[str, str], redis: Redis) -> None:
        """Ask, and note the answer: "success", or the code of the refusal."""
        self.sent = redis.ended
        async with session.post("/venue/scan", headers=headers, json=self.asked) as answer:
            body = await answer.json()
        self.told = redis.ended
        self.code = body.get("result") or body["code"]


async def test_three_times_the_capacity_is_answered_at_the_full_rate_and_the_rest_refused_at_once(
    road: Road, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    tickets = await road.buy({await road.product({"bus": 1000}): 1})
    keys, now_ms = (
        qr.QrKeys(dict(road.config.qr_keys), current=road.config.qr_keys[0][0]),
        int(time.time() * 1000),
    )
    gates = [
        Gate(qr.issue(keys, tickets[0]["ticket_code"], now_ms=now_ms, ttl_ms=60_000).token)
        for _ in range(WAVE)
    ]
    headers = await road.gate()
    redis = Redis()

    async def run(runner: ScriptRunner, script: Any, *arguments: Any) -> Any:
        return await redis.run(runner, script, *arguments)

    (batcher,) = road.parts.redeemer._batchers
    async with ClientSession(road.url, connector=TCPConnector(limit=0)) as session:
        with monkeypatch.context() as patch:
            patch.setattr(ScriptRunner, "run", run)
            patch.setattr(batcher, "_batch_max", CALL_SCANS)
            patch.setattr(batcher, "_queue_max", QUEUE_MAX)
            asking = []
            for gate in gates:
                asking.append(asyncio.create_task(gate.ask(session, headers, redis)))
                redis.arrived += 1
                await asyncio.sleep(1 / SCANS_A_S)
            calls = redis.ended
            redis.over = True
            await asyncio.gather(*asking)
        passed = [gate for gate in gates if gate.code == "success"]
        refused = [gate for gate in gates if gate.code != "success"]
        assert {gate.code for gate in refused} == {"OVERLOADED"}
        in_time = sum(1 for gate in passed if gate.told <= calls)
        assert calls >= 12 and in_time >= 0.8 * calls * CALL_SCANS, "every call is full"
        waits = sorted(gate.told - gate.sent for gate in passed)
        assert waits[len(waits) * 99 // 100] <= 2 * QUEUE_MAX / CALL_SCANS  # without a bound: 60
        waits = sorted(gate.told - gate.sent for gate in refused)
        assert waits[len(waits) * 9 // 10] <= 5, "they did not stand in the queue, which takes 10"

        await asyncio.gather(*(gate.ask(session, headers, redis) for gate in refused))
    assert {gate.code for gate in gates} == {"success"}
    await audit(road)


async def test_a_record_too_far_behind_refuses_scans_and_orders_until_it_has_caught_up(serve: Serve) -> None:
    jobs = await serve()
    product = await jobs.product({"bus": 9})
    (ticket,) = await jobs.buy({product: 1})
    await jobs.flushed()
    await jobs.stop()
    road = await serve(jobs=False, stream_entries_max=3)
    await road.gate()
    await road.backlog.look()
    told = [await road.scan(await road.qr(ticket["ticket_code"]), "bus") for _ in range(3)]
    assert [answer.json["result"] for answer in told] == ["success"] * 3
    await road.backlog.look()

    assert refused(await road.scan(await road.qr(ticket["ticket_code"]), "bus"), "BACKLOG_FULL")
    assert refused(await road.order({product: 1}), "BACKLOG_FULL")
    ready = await road.call("GET", "/readyz")
    assert (ready.status, ready.json["status"], ready.json["reasons"]) == (503, "unready", ["BACKLOG_FULL"])
    await road.parts.flusher.drain(road.parts.stream_names)
    await road.backlog.look()
    assert (await road.scan(await road.qr(ticket["ticket_code"]), "bus")).json["remaining_uses"] == 5
    assert (await road.order({product: 1})).status == 201
