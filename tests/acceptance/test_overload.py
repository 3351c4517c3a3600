"""More than the server can take is refused at once, with a time to come back; nothing hangs, nothing is lost."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from server.hot.scripts import ScriptRunner
from tests.conftest import Audit, Serve, eventually
from tests.road import Answer, Road


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
        async with asyncio.timeout(10):
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
