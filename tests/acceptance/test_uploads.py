"""Scans that gates made while they were offline: uploaded in batches, judged as of when they were made, each alone."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest
from multidict import CIMultiDict
from redis.asyncio import Redis

from server.domain.errors import ErrorCode, Refusal
from server.domain.ids import new_ticket_code
from server.domain.qr import QrContent, QrKeys, issue, read
from server.flows import upload as uploads
from server.hot import keys
from server.hot.scripts import ScriptRunner
from server.limits import SCAN_BATCH_MAX, SCAN_REPLAY_S, UPLOAD_SCANS_MAX, UPLOADED_SCANS_AT_ONCE_MAX
from tests.conftest import Audit, Serve, eventually
from tests.road import PATIENCE_S, Answer, Road

HOUR = timedelta(hours=1)
A_MOMENT = timedelta(seconds=1)


def now() -> datetime:
    return datetime.now(UTC)


def mint(road: Road, code: str, *, made: datetime | None = None) -> str:
    """A token as the server would have made it then: good for a minute."""
    made_ms = int((made or now()).timestamp() * 1000)
    return issue(QrKeys(dict(road.config.qr_keys)), code, now_ms=made_ms, ttl_ms=60_000).token


def scan(
    token: str, function: str = "bus", *, at: datetime | str | None = None, **more: Any
) -> dict[str, Any]:
    """One scan of an upload."""
    return {
        "qr_token": token,
        "function_code": function,
        "scan_id": uuid4().hex,
        "scanned_at": at or now(),
        **more,
    }


async def send(road: Road, scans: list[Any], *, gate: str = "gina") -> Answer:
    return await road.call(
        "POST",
        "/venue/scans",
        headers=await road.gate(gate) | {"Content-Type": "application/json"},
        data=msgspec.json.encode({"scans": scans}),
    )


async def upload(road: Road, scans: list[Any], *, gate: str = "gina") -> list[dict[str, Any]]:
    """The answers to an upload that was taken."""
    answer = await send(road, scans, gate=gate)
    assert answer.status == 200, answer
    answers: list[dict[str, Any]] = answer.json["answers"]
    assert len(answers) == len(scans)
    return answers


def parts(raw: bytes) -> list[bytes]:
    """The answers, each in its very bytes."""
    return [bytes(each) for each in msgspec.json.decode(raw, type=dict[str, list[msgspec.Raw]])["answers"]]


def said(answers: list[dict[str, Any]]) -> list[str]:
    return [each.get("code") or each.get("reason") or each["result"] for each in answers]


async def verdicts_told(road: Road) -> float:
    """According to /metrics."""
    lines = (await road.call("GET", "/metrics")).raw.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("gateline_scans_total{"))


async def many_tickets(road: Road, number: int, **functions: int) -> list[str]:
    product = await road.product(functions or {"bus": 1}, sellable=number, price_fen=0)
    codes: list[str] = []
    while len(codes) < number:
        codes += [each["ticket_code"] for each in await road.buy({product: min(50, number - len(codes))})]
    return codes


async def a_ticket(road: Road, **functions: int) -> str:
    (code,) = await many_tickets(road, 1, **functions)
    return code


# --- verdicts -------------------------------------------------------------------------------------------------------


async def test_five_hundred_scans_are_answered_in_their_order_and_recorded_as_uploaded(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = ScriptRunner.run, 0

    async def counted(self: ScriptRunner, script: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += script.name == "redeem"
        return await run(self, script, *arguments)

    codes = await many_tickets(road, 400)
    await road.gate()
    monkeypatch.setattr(ScriptRunner, "run", counted)
    begun = now() - timedelta(minutes=30)
    scans = [
        scan(mint(road, codes[n % 400], made=begun), at=begun + n * timedelta(milliseconds=10))
        for n in range(500)
    ]
    answers = await upload(road, scans)

    assert [each["scan_id"] for each in answers] == [each["scan_id"] for each in scans]
    assert [each["ticket_code"] for each in answers] == [codes[n % 400] for n in range(500)]
    assert said(answers) == ["success"] * 400 + ["NO_REMAINING"] * 100
    assert calls < 60, "they go to Redis together"
    await audit(road)
    rows = await pg.fetch("SELECT * FROM redemption_events ORDER BY scanned_at")
    assert [row["scan_id"] for row in rows] == [each["scan_id"] for each in scans]
    assert all(row["uploaded"] for row in rows)
    assert [row["scanned_at"] for row in rows[:2]] == [
        each["scanned_at"].replace(microsecond=each["scanned_at"].microsecond // 1000 * 1000)
        for each in scans[:2]
    ]
    assert all(row["decided_at"] - row["scanned_at"] > timedelta(minutes=29) for row in rows)


async def test_scans_of_one_ticket_are_judged_in_the_order_of_the_list(road: Road, audit: Audit) -> None:
    codes = await many_tickets(road, 20, bus=2, ferry=1)
    scans = [  # all tickets in turn, so that each one's scans lie in calls of their own
        scan(mint(road, code), ("bus", "ferry")[number in (2, 5)]) for number in range(6) for code in codes
    ]
    answers = await upload(road, scans)

    for place, code in enumerate(codes):
        own = answers[place::20]
        assert {each["ticket_code"] for each in own} == {code}
        assert said(own) == ["success", "success", "success", "NO_REMAINING", "NO_REMAINING", "NO_REMAINING"]
        assert [each["remaining_uses"] for each in own] == [1, 0, 0, 0, 0, 0]
        left = [sum(part["remaining_uses"] for part in each["entitlements"]) for each in own]
        assert left == [2, 1, 0, 0, 0, 0]
    await audit(road)


async def test_a_qr_that_is_over_by_now_is_judged_as_of_when_it_was_scanned(road: Road, audit: Audit) -> None:
    code = await a_ticket(road, bus=9)
    then = now() - 5 * HOUR
    token = mint(road, code, made=then)
    minute = timedelta(minutes=1)
    answers = await upload(
        road,
        [
            scan(token, at=then + minute - timedelta(milliseconds=2)),
            scan(mint(road, code, made=then), at=then + minute + timedelta(milliseconds=2)),
            scan(mint(road, code, made=then), at=then + 2 * HOUR),
            scan(token, at=then + 3 * HOUR),
        ],
    )

    assert said(answers) == ["success", "QR_EXPIRED", "QR_EXPIRED", "QR_EXPIRED"]
    assert (await road.scan(token, "bus")).json["reason"] == "QR_EXPIRED"
    assert abs(datetime.fromisoformat(answers[0]["ts"]) - now()) < timedelta(seconds=20), (
        "when it was decided"
    )
    await audit(road)


async def test_a_ticket_is_judged_as_of_when_it_was_scanned(road: Road, audit: Audit) -> None:
    product = await road.product({"bus": 9}, valid_from=now() - 3 * HOUR, valid_until=now() - HOUR)
    code = (await road.buy({product: 1}))[0]["ticket_code"]
    times = [now() - hours * HOUR for hours in (3.1, 2.9, 1.1, 0.9)]
    answers = await upload(road, [scan(mint(road, code, made=at), at=at) for at in times])

    assert said(answers) == ["TICKET_NOT_VALID", "success", "success", "TICKET_NOT_VALID"]
    assert [each["ticket_status"] for each in answers] == ["NOT_YET_VALID", "ACTIVE", "ACTIVE", "EXPIRED"]
    await audit(road)


@pytest.mark.parametrize(("window", "oldest"), [(86_400, 86_405), (3_600, 3_605), (0, 5)])
async def test_what_was_scanned_too_long_ago_or_in_the_future_is_not_decided(
    serve: Serve, pg: asyncpg.Connection[Any], audit: Audit, window: int, oldest: int
) -> None:
    road = await serve(offline_window_s=window)
    code = await a_ticket(road, bus=9)
    ages_s = (oldest + 1, oldest - 3, 0, -3, -20, 10**9, -(10**9))
    scans = [
        scan(mint(road, code, made=at), at=at)
        for at in (now() - timedelta(seconds=age_s) for age_s in ages_s)
    ]
    scans += [
        scan(mint(road, code), at="0001-01-01T00:00:00+14:00"),
        scan("NO-TOKEN", at=now() - 30 * 24 * HOUR),
    ]
    answers = await upload(road, scans)

    old, young = "SCAN_TOO_OLD", "SCAN_IN_FUTURE"
    assert said(answers) == [old, "success", "success", "success", young, old, young, old, old]
    assert [each["scan_id"] for each in answers] == [each["scan_id"] for each in scans]
    await audit(road)
    assert await pg.fetchval("SELECT count(*) FROM redemption_events") == 3
    again = [{**scans[0], "scanned_at": now(), "qr_token": mint(road, code)}]
    assert said(await upload(road, again)) == ["success"], "nothing was remembered of it"


async def test_a_scan_that_was_told_something_is_told_it_again_however_late(road: Road, audit: Audit) -> None:
    """The answer was lost, and the network was away for another day."""
    code = await a_ticket(road)
    scans = [scan(mint(road, code)), scan(mint(road, code)), scan("NO-TOKEN")]
    first = await send(road, scans)
    for one in scans:
        one["scanned_at"] -= 2 * 24 * HOUR
    again = await send(road, scans)

    assert said(first.json["answers"]) == ["success", "NO_REMAINING", "QR_MALFORMED"]
    assert parts(again.raw) == parts(first.raw)
    await audit(road)


def test_what_may_be_uploaded_is_remembered_to_the_end_of_its_window() -> None:
    """A verdict, and what a QR was spent for, outlive the longest window, a QR's life and two clocks' skew."""
    assert SCAN_REPLAY_S >= 86_400 + 60 + 2 * 5


async def test_an_upload_is_answered_when_all_of_it_is_told_however_fast_its_beginning_was(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = await many_tickets(road, 40)
    await road.gate()
    asked = 0

    def full_at_first() -> None:
        nonlocal asked
        asked += 1
        if asked <= 16:
            raise Refusal(ErrorCode.BACKLOG_FULL)

    monkeypatch.setattr(road.backlog, "admit", full_at_first)
    answers = await upload(road, [scan(mint(road, code)) for code in codes])
    assert said(answers) == ["BACKLOG_FULL"] * 16 + ["success"] * 24


# --- the same scan again --------------------------------------------------------------------------------------------


async def test_the_first_verdict_comes_again_whichever_lane_asked_first(road: Road, audit: Audit) -> None:
    code = await a_ticket(road, bus=3)
    scans = [scan(mint(road, code)) for _ in range(5)]
    live = [await road.scan(each["qr_token"], "bus", scan_id=each["scan_id"]) for each in scans[::2]]
    uploaded = await send(road, scans)
    after = [await road.scan(each["qr_token"], "bus", scan_id=each["scan_id"]) for each in scans]

    told = parts(uploaded.raw)
    assert said(uploaded.json["answers"]) == ["success", "NO_REMAINING", "success", "NO_REMAINING", "success"]
    assert told[::2] == [each.raw for each in live]
    assert told == [each.raw for each in after]
    await audit(road)


async def test_an_upload_sent_twice_at_once_or_later_gets_the_same_bytes(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    codes = await many_tickets(road, 40)
    scans = [scan(mint(road, code)) for code in codes for _ in range(3)]
    both = await asyncio.gather(send(road, scans), send(road, scans))
    later = await send(road, scans)

    assert parts(both[0].raw) == parts(both[1].raw) == parts(later.raw)
    assert said(later.json["answers"]).count("success") == 40
    await audit(road)
    assert await pg.fetchval("SELECT count(*) FROM redemption_events") == len(scans)


async def test_a_scan_id_that_comes_twice_in_one_upload_belongs_to_the_first(
    road: Road, audit: Audit, redis: Redis
) -> None:
    codes = await many_tickets(road, 2)
    await road.flushed()
    await redis.delete(keys.ticket(0, codes[0]))  # the first takes longer than the others
    mine = scan(mint(road, codes[0]))
    scans = [mine, {**mine, "qr_token": mint(road, codes[1])}, mine, {**mine, "qr_token": "NO-TOKEN"}]
    answers = await upload(road, scans)

    assert said(answers) == ["success", "SCAN_ID_CONFLICT", "success", "SCAN_ID_CONFLICT"]
    assert answers[0] == answers[2]
    await audit(road)


async def test_a_qr_that_was_let_in_live_is_not_let_in_again_by_an_upload_and_the_other_way_round(
    road: Road, audit: Audit
) -> None:
    code = await a_ticket(road, bus=9)
    tokens = [mint(road, code) for _ in range(2)]
    live = (await road.scan(tokens[0], "bus")).json
    answers = await upload(road, [scan(tokens[0]), scan(tokens[1])])
    late = (await road.scan(tokens[1], "bus")).json

    assert said([live, *answers, late]) == ["success", "ALREADY_REDEEMED", "success", "ALREADY_REDEEMED"]
    assert late["first_redemption"]["event_id"] == answers[1]["event_id"]
    await audit(road)


async def test_a_qr_spent_a_day_ago_is_known_to_a_redis_that_was_loaded_since(
    road: Road, pg: asyncpg.Connection[Any], redis: Redis
) -> None:
    """Spent just before the day that may be uploaded began, and shown to an offline gate just after."""
    code = await a_ticket(road, bus=9)
    await road.scan(mint(road, code), "bus")
    await road.flushed()
    at = now() - timedelta(seconds=86_400 - 20)
    old = mint(road, code, made=at - timedelta(seconds=50))
    content = read(QrKeys(dict(road.config.qr_keys)), old)
    assert isinstance(content, QrContent)
    await pg.execute(
        "UPDATE redemption_events SET jti = $1, decided_at = $2, scanned_at = $2",
        content.jti,
        at - timedelta(seconds=40),
    )
    await redis.delete(keys.ticket(0, code))  # the gate loads it from the record

    assert said(await upload(road, [scan(old, at=at)])) == ["ALREADY_REDEEMED"]


# --- each alone -----------------------------------------------------------------------------------------------------


async def test_a_scan_that_is_not_as_it_must_be_is_refused_alone_and_named_where_it_can_be(
    road: Road, audit: Audit
) -> None:
    codes = await many_tickets(road, 3)
    good = [scan(mint(road, code)) for code in codes]
    spoilt: list[tuple[Any, str | None]] = [
        (None, None),
        ([], None),
        ("scan", None),
        ({}, None),
        ({**good[0], "scan_id": "a b"}, None),
        ({**good[0], "scan_id": None}, None),
        ({**good[0], "scan_id": "x1", "qr_token": ""}, "x1"),
        ({**good[0], "scan_id": "x2", "qr_token": "x" * 513}, "x2"),
        ({**good[0], "scan_id": "x3", "function_code": 7}, "x3"),
        ({**good[0], "scan_id": "x4", "venue_code": "../.."}, "x4"),
        ({**good[0], "scan_id": "x5", "terminal_device_id": "a\tb"}, "x5"),
        ({**good[0], "scan_id": "x6", "scanned_at": "2026-01-01T00:00:00"}, "x6"),
        ({**good[0], "scan_id": "x7", "scanned_at": "yesterday"}, "x7"),
        ({key: value for key, value in good[0].items() if key != "scanned_at"}, good[0]["scan_id"]),
    ]
    scans = [good[0], *(each for each, _ in spoilt[:7]), good[1], *(each for each, _ in spoilt[7:]), good[2]]
    answer = await send(road, scans)

    answers = answer.json["answers"]
    places = (0, 8, len(scans) - 1)
    assert said([answers[place] for place in places]) == ["success"] * 3
    faults = [each for place, each in enumerate(answers) if place not in places]
    assert said(faults) == ["VALIDATION_FAILED"] * len(spoilt)
    assert [each.get("scan_id") for each in faults] == [name for _, name in spoilt]
    assert {each["request_id"] for each in faults} == {CIMultiDict(answer.headers)["X-Request-Id"]}
    assert "scanned_at" in faults[-1]["message"]
    await audit(road)


async def test_verdicts_and_errors_of_every_kind_stand_beside_one_another(
    road: Road, audit: Audit, redis: Redis
) -> None:
    await road.venue("hall", ["museum"])
    codes = await many_tickets(road, 4, bus=1)
    await road.scan(mint(road, codes[3]), "bus", scan_id="taken")
    scans = [
        scan(mint(road, codes[0])),
        scan("https://example.org/not-a-ticket"),
        scan(mint(road, new_ticket_code())),
        scan(mint(road, codes[1]), venue_code="hall"),
        scan(mint(road, codes[1]), venue_code="nowhere"),
        scan(mint(road, codes[1]), "ferry"),
        scan(mint(road, codes[2]), scan_id="taken"),
        scan(mint(road, codes[2]), at=now() - 48 * HOUR),
        scan(mint(road, codes[1]), terminal_device_id="gate-9"),
    ]

    assert said(await upload(road, scans)) == [
        "success", "QR_MALFORMED", "TICKET_NOT_FOUND", "WRONG_VENUE_FUNCTION", "VENUE_NOT_FOUND", "WRONG_FUNCTION",
        "SCAN_ID_CONFLICT", "SCAN_TOO_OLD", "success",
    ]  # fmt: skip
    await audit(road)


async def test_tickets_that_redis_does_not_have_are_loaded_and_their_scans_stay_in_order(
    road: Road, audit: Audit, redis: Redis
) -> None:
    codes = await many_tickets(road, 30, bus=2)
    await road.flushed()
    for code in codes[10:20]:
        assert await redis.delete(keys.ticket(0, code)) == 1
    before = await verdicts_told(road)
    answers = await upload(road, [scan(mint(road, code)) for _ in range(3) for code in codes])

    assert said(answers) == ["success"] * 60 + ["NO_REMAINING"] * 30
    assert [each["remaining_uses"] for each in answers] == [1] * 30 + [0] * 60
    assert await verdicts_told(road) - before == 90
    await audit(road)


async def test_a_fault_that_no_one_expected_is_told_to_its_scan_alone(
    road: Road, redis: Redis, audit: Audit
) -> None:
    """Here: what Redis remembers of a scan is no line of ours."""
    *codes, other = await many_tickets(road, 4)
    assert said(await upload(road, [scan(mint(road, other))])) == ["success"]
    (remembered,) = [name for name in keys.said(0) if await redis.exists(name)]
    scans = [scan(mint(road, code)) for code in codes]
    broken = remembered, scans[1]["scan_id"]
    await redis.hset(*broken, f"unexpected\t\t{codes[1]}\tbus\t")
    answers = await upload(road, scans)
    assert said(answers) == ["success", "INTERNAL", "success"]
    assert answers[1]["scan_id"] == scans[1]["scan_id"] and "unexpected" not in str(answers)
    await redis.hdel(*broken)
    assert said(await upload(road, scans)) == ["success"] * 3
    await audit(road)


async def test_no_scan_overtakes_one_of_its_ticket_that_may_be_asked_again(
    road: Road, redis: Redis, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = await many_tickets(road, 3, bus=2, ferry=2)
    await road.flushed()
    await redis.delete(keys.ticket(0, codes[1]))
    scans = [
        scan(mint(road, code), function) for function in ("bus", "bus", "bus", "ferry") for code in codes
    ]
    scans[4]["scan_id"] = scans[1]["scan_id"]  # behind it for two reasons

    async def late(code: str) -> bool:
        await redis.hset(keys.ticket(0, code), "e", "x")  # here in a moment: whoever asks now overtakes
        raise Refusal(ErrorCode.NOT_RECORDED_YET)

    with monkeypatch.context() as patch:
        patch.setattr(road.parts.loader, "load_unknown", late)
        answers = await upload(road, scans)
    await redis.delete(keys.ticket(0, codes[1]))
    others = ["success", "success", "NO_REMAINING", "success"]
    assert said(answers[1::3]) == ["NOT_RECORDED_YET"] * 4
    assert said(answers[0::3]) == said(answers[2::3]) == others
    again = await upload(road, scans)
    assert said(again[1::3]) == ["success", "success", "success", "success"], "the second is the first again"
    assert again[1] == again[4]
    assert [again[n]["remaining_uses"] for n in (1, 7, 10)] == [1, 0, 1]
    await audit(road)


@pytest.mark.parametrize("scans", [[], [{}] * (UPLOAD_SCANS_MAX + 1), "scans", {}, None, 7])
async def test_a_list_that_is_none_or_empty_or_too_long_is_refused_as_a_whole(road: Road, scans: Any) -> None:
    answer = await send(road, scans)
    assert (answer.status, answer.json["code"]) == (400, "VALIDATION_FAILED")


async def test_the_longest_upload_that_is_legal_is_taken(road: Road) -> None:
    """Every field as long as it may be, and nothing of it in ASCII where it need not be."""
    odd = scan(
        "票" * 512,
        "f" * 32,
        venue_code="v" * 32,
        terminal_device_id="t" * 64,
        at="2026-01-01T00:00:00.000000+08:00",
    )
    scans = [{**odd, "scan_id": f"{number:064}"} for number in range(UPLOAD_SCANS_MAX)]
    long = [{**each, "qr_token": "x" * 512} for each in scans]
    assert len(msgspec.json.encode({"scans": long})) > 64 * 1024
    assert set(said(await upload(road, long))) == {"SCAN_TOO_OLD"}


async def test_only_gate_operators_upload(road: Road) -> None:
    for headers, status in (
        ({}, 401),
        (road.buyer(), 403),
        (await road.analyst(), 403),
        (await road.gate(), 400),
    ):
        answer = await road.call("POST", "/venue/scans", headers=headers, json={"scans": []})
        assert answer.status == status, answer


# --- beside live gates ----------------------------------------------------------------------------------------------


async def test_uploads_take_few_places_of_the_queue_and_live_gates_are_never_overloaded(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four uploads of 500 at once, at a queue that would hold only a part of one, and gates that scan meanwhile."""
    codes = await many_tickets(road, 50, bus=200)
    await road.gate()
    monkeypatch.setattr(uploads, "UPLOAD_WAIT_S_MAX", 60.0)  # however slow the machine is
    (batcher,) = road.parts.redeemer._batchers
    monkeypatch.setattr(batcher, "_queue_max", UPLOADED_SCANS_AT_ONCE_MAX + 20)
    sizes: list[int] = []
    run = ScriptRunner.run

    async def slow(self: ScriptRunner, script: Any, names: Any, *arguments: Any) -> Any:
        if script.name == "redeem":
            sizes.append(len(names) - 5)
            await asyncio.sleep(0.01)
        return await run(self, script, names, *arguments)

    monkeypatch.setattr(ScriptRunner, "run", slow)
    sending = asyncio.gather(
        *(upload(road, [scan(mint(road, code)) for code in codes * 10]) for _ in range(4))
    )
    live: list[str] = []

    async def gate(number: int) -> None:
        while not sending.done():
            answer = await road.scan(mint(road, codes[number]), "bus")
            live.append(answer.json.get("code") or answer.json.get("reason") or answer.json["result"])

    await asyncio.gather(*(gate(number) for number in range(10)))
    uploaded = [word for answers in await sending for word in said(answers)]

    assert set(live) == {"success"} and len(live) > 20
    assert uploaded == ["success"] * 2_000
    assert max(sizes) <= UPLOADED_SCANS_AT_ONCE_MAX + 10 < SCAN_BATCH_MAX
    await audit(road)
    counted = dict(await pg.fetch("SELECT uploaded, count(*) FROM redemption_events GROUP BY uploaded"))
    assert counted == {True: 2_000, False: len(live)}


async def test_a_full_queue_is_tried_again_within_the_request(
    road: Road, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = await many_tickets(road, 60)
    await road.gate()
    (batcher,) = road.parts.redeemer._batchers
    monkeypatch.setattr(batcher, "_queue_max", 8)
    monkeypatch.setattr(uploads, "UPLOAD_RETRY_S", 0.01)
    answers = await upload(road, [scan(mint(road, code)) for code in codes for _ in range(2)])

    assert said(answers) == ["success", "NO_REMAINING"] * 60
    await audit(road)


async def test_what_finds_no_place_in_time_is_told_so_and_may_be_uploaded_again(
    road: Road, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = await many_tickets(road, 100)
    scans = [scan(mint(road, code)) for code in codes]
    asked, answering, run = asyncio.Event(), asyncio.Event(), ScriptRunner.run

    async def hang(self: ScriptRunner, script: Any, *arguments: Any) -> Any:
        if script.name == "redeem":
            asked.set()
            await answering.wait()
        return await run(self, script, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ScriptRunner, "run", hang)
        patch.setattr(uploads, "UPLOAD_WAIT_S_MAX", 1.0)
        sending = asyncio.create_task(upload(road, scans))
        await asked.wait()
        await asyncio.sleep(1.2)
        answering.set()
        answers = await sending
    places = UPLOADED_SCANS_AT_ONCE_MAX
    assert said(answers) == ["success"] * places + ["OVERLOADED"] * (100 - places)
    assert [each["scan_id"] for each in answers] == [each["scan_id"] for each in scans]
    assert said(await upload(road, scans)) == ["success"] * 100
    await audit(road)


async def test_too_many_uploads_at_once_are_told_to_come_back(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = await a_ticket(road)
    await road.gate()
    answering, run = asyncio.Event(), ScriptRunner.run

    async def hang(self: ScriptRunner, script: Any, *arguments: Any) -> Any:
        if script.name == "redeem":
            await answering.wait()
        return await run(self, script, *arguments)

    monkeypatch.setattr(ScriptRunner, "run", hang)
    monkeypatch.setattr(uploads, "UPLOADS_AT_ONCE_MAX", 2)
    redeemer = road.parts.redeemer
    inside = []
    for number in range(2):
        inside.append(asyncio.create_task(send(road, [scan(mint(road, code)) for _ in range(3)])))
        await eventually(lambda: asyncio.sleep(0, len(redeemer._batchers[0]._calls) > number))  # noqa: B023
    try:
        async with asyncio.timeout(PATIENCE_S):
            refused = await send(road, [scan(mint(road, code))])
    finally:
        answering.set()

    assert (refused.status, refused.json["code"]) == (503, "OVERLOADED") and refused.headers["Retry-After"]
    assert [answer.status for answer in await asyncio.gather(*inside)] == [200, 200]
    assert (await send(road, [scan(mint(road, code))])).status == 200


# --- reports --------------------------------------------------------------------------------------------------------


async def test_reports_say_what_was_uploaded_and_when_it_was_scanned(road: Road) -> None:
    code = await a_ticket(road, bus=2)
    then = now().replace(microsecond=0) - 2 * HOUR
    (told,) = await upload(road, [scan(mint(road, code, made=then), at=then)])
    live = (await road.scan(mint(road, code), "bus")).json
    await road.flushed()
    analyst = await road.analyst()
    listed = (await road.call("GET", "/reports/redemptions", headers=analyst)).json["redemptions"]
    file = (
        (await road.call("GET", "/reports/redemptions?format=csv", headers=analyst)).raw.decode().splitlines()
    )

    seen = {each["event_id"]: each for each in listed}
    assert {name: each["uploaded"] for name, each in seen.items()} == {
        told["event_id"]: True,
        live["event_id"]: False,
    }
    assert datetime.fromisoformat(seen[told["event_id"]]["scanned_at"]) == then
    assert datetime.fromisoformat(seen[told["event_id"]]["ts"]) - then > HOUR
    uploaded = {line.split(",")[0]: line.split(",")[-1] for line in file}
    assert uploaded == {"event_id": "uploaded", told["event_id"]: "true", live["event_id"]: "false"}


async def test_an_entry_of_before_there_were_uploads_is_written_as_it_was(
    road: Road, pg: asyncpg.Connection[Any], redis: Redis
) -> None:
    code = await a_ticket(road, bus=2)
    await road.flushed()
    at_ms = int(time.time() * 1000)
    line = f"7\t{code}\tferry\tACTIVE\t,bus=2,\t\t{at_ms}\tab\told-scan\t{at_ms}\tgina\tpier\x1fgate-7"
    await redis.xadd(keys.redemptions(0), {"d": line})
    await road.flushed()

    row = await pg.fetchrow("SELECT * FROM redemption_events WHERE scan_id = 'old-scan'")
    assert row is not None and (row["reason"], row["venue_code"], row["uploaded"]) == (
        "WRONG_FUNCTION",
        "pier",
        False,
    )
