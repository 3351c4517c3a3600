"""What scan_ids were told is remembered in hashes that take turns: long enough, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from server.config import Ack
from server.domain.errors import Refusal
from server.domain.redemption import Decision, Scan, Verdict
from server.hot import keys, redeem
from server.hot.connection import connect
from server.hot.epoch import Epochs
from server.hot.loading import Loading
from server.hot.redeem import Redeemer
from server.hot.scripts import ScriptRunner
from server.limits import SAID_TURN_S, SAID_TURNS, SCAN_REPLAY_S


class Gate:
    """A gate that shows tokens that nobody can read: each verdict has the time at which it was decided."""

    def __init__(self, redis: Redis, runner: ScriptRunner) -> None:
        self.redis = redis
        self.runner = runner
        self.redeemer = Redeemer(runner, 1)

    async def told_ms(self, scan_id: str) -> int:
        answer = await self.redeemer.redeem(scan(scan_id, "", ruled=Verdict.QR_MALFORMED))
        assert isinstance(answer, str)
        return Decision.parse(answer).decided_ms

    async def now(self) -> float:
        seconds, micros = await self.redis.time()
        return seconds + micros / 1e6

    async def turns(self) -> list[str | None]:
        return [await self.redis.hget(name, "") for name in keys.said(0)]


@pytest.fixture
async def gate(redis_url: str, redis: Redis) -> AsyncIterator[Gate]:
    client = connect(redis_url)
    runner = ScriptRunner(client, Ack.MEMORY)
    await redis.set(keys.epoch(0), "run 1")
    yield Gate(redis, runner)
    await runner.aclose()
    await client.aclose(close_connection_pool=True)


def test_two_turns_are_as_long_as_a_verdict_must_be_repeated() -> None:
    assert SAID_TURN_S * (SAID_TURNS - 1) >= SCAN_REPLAY_S


async def test_a_verdict_outlives_two_turns_and_the_fourth_forgets_it(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redeem, "SAID_TURN_S", 1)
    told = await gate.told_ms("first")
    while await gate.now() < told / 1000 + 2:
        await asyncio.sleep(0.05)
    turn = int(told / 1000)
    assert await gate.told_ms("first") == told or await gate.now() >= turn + 3
    assert await gate.told_ms("other") > told
    while await gate.now() < turn + SAID_TURNS + 0.05:
        await asyncio.sleep(0.05)
    last = await gate.told_ms("last")  # begins the fourth turn, in the place of the first

    again = await gate.told_ms("first")
    assert last <= again and told < again
    assert await gate.told_ms("first") == again


async def test_a_turn_that_is_over_goes_by_itself_where_nobody_scans(gate: Gate) -> None:
    told = await gate.told_ms("first")
    turn = told // 1000 // SAID_TURN_S
    name = keys.said(0)[turn % SAID_TURNS]
    assert await gate.redis.expiretime(name) == (turn + SAID_TURNS + 1) * SAID_TURN_S
    await gate.told_ms("second")
    assert await gate.redis.expiretime(name) == (turn + SAID_TURNS + 1) * SAID_TURN_S
    assert sorted(await gate.redis.hkeys(name)) == ["", "first", "second"]


async def test_a_clock_that_went_back_forgets_nothing(gate: Gate) -> None:
    told = await gate.told_ms("first")
    turn = told // 1000 // SAID_TURN_S
    name = keys.said(0)[turn % SAID_TURNS]
    await gate.redis.hset(name, "", turn + SAID_TURNS)  # told while the clock was days ahead
    later = await gate.told_ms("second")

    assert await gate.told_ms("first") == told
    assert await gate.told_ms("second") == later
    assert await gate.redis.hget(name, "") == str(turn)  # so that it is emptied when its turn comes again
    assert await gate.redis.expiretime(name) == (turn + SAID_TURNS + 1) * SAID_TURN_S


async def test_what_was_spent_before_a_fault_is_known_by_its_scan_id(gate: Gate) -> None:
    """A hash of the same batch is none of ours: nobody is told anything, and a retry with another QR spends nothing."""
    await gate.redis.hset(keys.ticket(0, "GOOD"), mapping={"e": "bus\x1f2\x1fBus", "r": ",bus=2,"})
    await gate.redis.set(keys.ticket(0, "BROKEN"), "no hash")
    judged = await asyncio.gather(
        gate.redeemer.redeem(scan("first", "GOOD", jti="1")),
        gate.redeemer.redeem(scan("other", "BROKEN", jti="2")),
        return_exceptions=True,
    )
    assert [isinstance(each, Refusal) for each in judged] == [True, True]
    assert await gate.redis.hget(keys.ticket(0, "GOOD"), "r") == ",bus=1,"

    again = await gate.redeemer.redeem(scan("first", "GOOD", jti="3"))
    assert isinstance(again, str) and Decision.parse(again).remaining == ",bus=1,"
    assert await gate.redis.hget(keys.ticket(0, "GOOD"), "r") == ",bus=1,"


async def test_a_hash_whose_turn_cannot_be_read_is_emptied_before_anything_is_spent(gate: Gate) -> None:
    told = await gate.told_ms("first")
    name = keys.said(0)[told // 1000 // SAID_TURN_S % SAID_TURNS]
    await gate.redis.hset(name, "", "junk")

    later = await gate.told_ms("second")
    assert await gate.told_ms("second") == later
    assert await gate.redis.hget(name, "") == str(later // 1000 // SAID_TURN_S)


async def test_what_a_rehydration_writes_stands_where_the_script_looks_and_stays_as_long(gate: Gate) -> None:
    now_ms = await gate.told_ms("now")
    loading = Loading(gate.redis, gate.runner, Epochs(gate.redis, 1), 1)
    await loading.begin()
    await loading.forget_tickets()
    assert await gate.turns() == [None] * SAID_TURNS
    ages_s = {
        "new": 0,
        "a turn": SAID_TURN_S,
        "the oldest": SCAN_REPLAY_S,
        "too old": SAID_TURNS * SAID_TURN_S,
        "of a clock far ahead": -9 * SAID_TURN_S,
    }
    told = {scan_id: now_ms - age_s * 1000 for scan_id, age_s in ages_s.items()}
    await loading.verdicts([(scan_id, decided(at_ms)) for scan_id, at_ms in told.items()], now_ms)
    await loading.finish("run")
    turn = now_ms // 1000 // SAID_TURN_S
    assert sorted(await gate.turns()) == sorted(str(turn - ago) for ago in range(SAID_TURNS))

    await gate.told_ms("another")
    found = {scan_id: await gate.told_ms(scan_id) == at_ms for scan_id, at_ms in told.items()}
    assert found == {scan_id: scan_id != "too old" for scan_id in ages_s}


def scan(scan_id: str, code: str, *, jti: str = "", ruled: Verdict | None = None) -> Scan:
    return Scan(
        scan_id=scan_id,
        ticket_code=code,
        function_code="bus",
        jti=jti,
        at_ms=0,
        operator="gina",
        venue_code="pier",
        terminal_device_id="",
        ruled=ruled,
    )


def decided(at_ms: int) -> Decision:
    return Decision(
        verdict=Verdict.QR_MALFORMED,
        event_id="",
        ticket_code="",
        function_code="bus",
        ticket_status="",
        remaining="",
        first="",
        decided_ms=at_ms,
        terms="",
    )
