"""In a Mini Program it is the bridge or nothing: no combination of what a client says leads to another channel."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis

from server.hot import throttle
from server.hot.pace import steady
from tests.conftest import Audit
from tests.payment.conftest import OpenShop
from tests.payment.record import Postgres, record
from tests.payment.shop import BRIDGE, IN_MINIPROGRAM, PAYS, WAYS, Shop
from tests.road import Answer

ENVIRONMENTS = (None, "miniprogram", "wechat", "none")
SUPPORTED = (None, True, False)
VERSIONS = (None, "1.1.9", "1.2.0", "1.10")
AGENTS = {
    "Mozilla/5.0 (iPhone) MicroMessenger/8.0.50 miniProgram": "miniprogram",
    "mozilla/5.0 (windows) MINIPROGRAM/x MICROMESSENGER/7.0": "miniprogram",
    "Mozilla/5.0 (Linux; Android 14) MicroMessenger/8.0.50": "wechat",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5) Mobile Safari miniProgram": "none",  # not of WeChat at all
    "Mozilla/5.0 (X11; Linux x86_64)": "none",
}
GATEWAYS = (None, "hosted")
REFUSED = "MINI_PROGRAM_BRIDGE_REQUIRED"
AT_ONCE = 10  # they wait for one row, each no longer than 5 s


class Case(NamedTuple):
    """What one client says of itself, and what must come of it."""

    context: dict[str, Any]
    agent: str
    body: dict[str, Any]
    expected: str  # a channel, or REFUSED


def _case(
    kind: str | None, supported: bool | None, version: str | None, agent: str, gateway: str | None
) -> Case:
    told = {
        "environmentType": kind,
        "miniProgramBridgeSupported": supported,
        "miniProgramBridgeVersion": version,
    }
    context = {name: value for name, value in told.items() if value is not None}
    return Case(
        context,
        agent,
        {"gateway": gateway} if gateway else {},
        _expected(kind, supported, version, agent, gateway),
    )


def _expected(
    kind: str | None, supported: bool | None, version: str | None, agent: str, gateway: str | None
) -> str:
    """Written down anew from the rules, and simpler: each version here is good or it is not."""
    where = {kind, AGENTS[agent]}
    if "miniprogram" in where:
        return "MINIPROGRAM_BRIDGE" if supported and version in ("1.2.0", "1.10") else REFUSED
    if gateway == "hosted":
        return "HOSTED"
    if "wechat" in where:
        return "WECHAT_JSAPI"
    return "WECHAT_H5" if "Mobile" in agent else "WECHAT_NATIVE"


CASES = [_case(*each) for each in itertools.product(ENVIRONMENTS, SUPPORTED, VERSIONS, AGENTS, GATEWAYS)]
REFUSALS = [case for case in CASES if case.expected == REFUSED]


def told(answer: Answer) -> str:
    """The channel, or the code of the refusal."""
    code: str = answer.json.get("code") or answer.json["channel"]
    return code


async def everything(pg: Postgres, redis: Redis) -> dict[str, Any]:
    """All rows of all tables, and what all keys of Redis hold, but buckets of limits: those go by themselves."""
    tables = await pg.fetch("SELECT relname FROM pg_stat_user_tables ORDER BY 1")
    rows = {
        name: await pg.fetch(f"SELECT * FROM {name} ORDER BY 1")  # noqa: S608
        for (name,) in tables
    }
    keys = sorted(key for key in await redis.keys("*") if not key.startswith("{limits}:"))
    dumped: dict[str, Any] = {}
    for key in keys:
        kind = await redis.type(key)
        if kind == "stream":
            info = await redis.xinfo_stream(key)
            dumped[key] = (info["length"], info["last-generated-id"], info["entries-added"])
        else:
            dumped[key] = await (redis.hgetall(key) if kind == "hash" else redis.get(key))
    return {**rows, "redis": dumped}


async def ask_all(cases: list[Case], ask: Any) -> list[Answer]:
    """In bounded batches, in the order of the cases."""
    answers: list[Answer] = []
    for at in range(0, len(cases), AT_ONCE):
        answers += await asyncio.gather(*(ask(case) for case in cases[at : at + AT_ONCE]))
    return answers


def upgrade(answer: Answer) -> tuple[int, bool, str]:
    """What a refusal says about the way out."""
    return answer.status, answer.json["requiresUpgrade"], answer.json["minBridgeVersion"]


def test_the_cases_are_many_and_of_every_kind() -> None:
    kinds = {kind: sum(case.expected == kind for case in CASES) for kind in {case.expected for case in CASES}}

    assert sum(kinds.values()) == 480
    assert kinds[REFUSED] > 150
    assert kinds.keys() == {REFUSED, "HOSTED", *WAYS}


async def test_an_order_refused_for_want_of_a_bridge_was_never_there(
    shop: Shop, pg: Postgres, redis: Redis, audit: Audit
) -> None:
    product = await shop.road.product()
    await shop.headers("wang")
    await shop.road.flushed()
    before = await everything(pg, redis)
    assert before["redis"], "there is something to compare"

    answers = await ask_all(
        REFUSALS, lambda case: shop.order(product, agent=case.agent, context=case.context, **case.body)
    )

    assert {told(each) for each in answers} == {REFUSED}
    assert {upgrade(each) for each in answers} == {(400, True, "1.2.0")}
    assert all("order_id" not in each.json for each in answers)
    assert await everything(pg, redis) == before
    assert shop.wechat.orders() == {}
    await audit(shop.road)


async def test_every_other_client_gets_the_channel_of_the_rules_for_a_new_order(
    shop: Shop, audit: Audit
) -> None:
    product = await shop.road.product(sellable=1_000)
    await shop.headers("wang")
    cases = [case for case in CASES if case.expected != REFUSED]

    answers = await ask_all(
        cases, lambda case: shop.order(product, agent=case.agent, context=case.context, **case.body)
    )

    wrong = [
        (case, told(each)) for case, each in zip(cases, answers, strict=True) if told(each) != case.expected
    ]
    assert wrong == []
    types = {seen.trade_type for seen in shop.wechat.orders().values()}
    assert types == {"JSAPI", "NATIVE", "MWEB"}
    await audit(shop.road)


async def test_a_resume_refused_for_want_of_a_bridge_leaves_the_order_as_it_was_and_payable(
    shop: Shop, pg: Postgres, redis: Redis, audit: Audit
) -> None:
    made = await shop.order(await shop.road.product())
    order_id = made.json["order_id"]
    await shop.road.flushed()
    before, asked = await everything(pg, redis), len(shop.wechat.received)

    answers = await ask_all(
        REFUSALS, lambda case: shop.resume(order_id, agent=case.agent, context=case.context, **case.body)
    )

    assert {told(each) for each in answers} == {REFUSED}
    assert {upgrade(each) for each in answers} == {(400, True, "1.2.0")}
    assert await everything(pg, redis) == before
    assert len(shop.wechat.received) == asked
    assert await shop.pay(made) in PAYS
    await shop.until_status(order_id, "PAID")
    await audit(shop.road)


async def test_every_other_client_gets_the_channel_of_the_rules_for_a_resume(
    shop: Shop, pg: Postgres, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "_INQUIRED", steady(1_000, 1))
    made = await shop.order(await shop.road.product())
    order_id = made.json["order_id"]
    cases = sorted((case for case in CASES if case.expected != REFUSED), key=lambda case: case.expected)
    for _, of_one_channel in itertools.groupby(cases, key=lambda case: case.expected):
        first, *rest = of_one_channel  # the first one switches
        answers = [await shop.resume(order_id, agent=first.agent, context=first.context, **first.body)]
        answers += await ask_all(
            rest, lambda case: shop.resume(order_id, agent=case.agent, context=case.context, **case.body)
        )

        assert {(each.status, told(each)) for each in answers} == {(200, first.expected)}
    assert (await record(pg, order_id)).attempts == ["CLOSED"] * 4 + ["OPEN"]
    assert await shop.pay(answers[-1]) in PAYS
    await shop.until_status(order_id, "PAID")
    await audit(shop.road)


async def test_the_configured_minimum_version_holds(open_shop: OpenShop) -> None:
    shop = await open_shop(merchant={"bridge_version_min": "2.10.0"})
    product = await shop.road.product()

    answers = {
        version: await shop.order(
            product, agent=IN_MINIPROGRAM, context={**BRIDGE, "miniProgramBridgeVersion": version}
        )
        for version in ("1.2.0", "2.9.9", "2.10", "3")
    }

    assert {version: told(each) for version, each in answers.items()} == {
        "1.2.0": REFUSED,
        "2.9.9": REFUSED,
        "2.10": "MINIPROGRAM_BRIDGE",
        "3": "MINIPROGRAM_BRIDGE",
    }
    assert upgrade(answers["2.9.9"]) == (400, True, "2.10.0")
