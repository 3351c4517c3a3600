"""A notification that somebody has listened to and plays again: it changes nothing, and soon it is not believed."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from server.hosted import signing
from server.limits import WEBHOOK_SKEW_S_MAX
from server.web import webhooks
from tests.road import Answer, Road


class Mail:
    """A signed notification as it went over the line."""

    def __init__(self, road: Road, order_id: str, *, at_s: int) -> None:
        self._road = road
        self.body = (
            b'{"gateway":"hosted","gateway_txn_id":"t-1","order_id":"%s","status":"SUCCESS","amount_fen":1000,'
            b'"currency":"CNY","paid_at":"2026-11-22T08:00:00Z"}' % order_id.encode()
        )
        self.headers = signing.headers(road.config.gateway_secrets, self.body, at_s)

    async def post(self, **changes: str) -> Answer:
        headers = {**self.headers, "Content-Type": "application/json", **changes}
        return await self._road.call("POST", "/payments/notify", data=self.body, headers=headers)


async def record(pg: asyncpg.Connection[Any], order_id: str) -> tuple[str, int, int]:
    """(status, payments, tickets) of the order."""
    row = await pg.fetchrow(
        "SELECT status, (SELECT count(*) FROM payments WHERE order_id = $1),"
        " (SELECT count(*) FROM tickets WHERE order_id = $1) FROM orders WHERE id = $1",
        order_id,
    )
    assert row is not None
    return tuple(row)


async def made(road: Road) -> str:
    order_id: str = (await road.order({await road.product(): 1})).json["order_id"]
    await road.flushed()
    return order_id


async def test_a_notification_played_again_is_answered_as_before_and_settles_nothing_more(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    order_id = await made(road)
    mail = Mail(road, order_id, at_s=int(time.time()))
    told = [await mail.post() for _ in range(5)]
    assert {(answer.status, answer.raw) for answer in told} == {(200, told[0].raw)}
    assert await record(pg, order_id) == ("PAID", 1, 1)


async def test_after_five_minutes_the_same_bytes_are_not_believed(
    road: Road, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(time.time())
    monkeypatch.setattr(webhooks, "time", SimpleNamespace(time=lambda: now))  # it stands still
    order_id = await made(road)
    for age_s in (WEBHOOK_SKEW_S_MAX + 1, -WEBHOOK_SKEW_S_MAX - 1, 86_400, now):
        answer = await Mail(road, order_id, at_s=now - age_s).post()
        assert (answer.status, answer.json["code"]) == (401, "SIGNATURE_INVALID")
    assert await record(pg, order_id) == ("PENDING_PAYMENT", 0, 0)
    for age_s in (WEBHOOK_SKEW_S_MAX, -WEBHOOK_SKEW_S_MAX):
        assert (await Mail(road, order_id, at_s=now - age_s).post()).status == 200
    old = Mail(road, order_id, at_s=now)
    monkeypatch.setattr(webhooks, "time", SimpleNamespace(time=lambda: now + WEBHOOK_SKEW_S_MAX + 1))
    assert (await old.post()).status == 401


async def test_an_old_one_is_not_made_young_by_another_time_in_its_header(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    order_id, now = await made(road), int(time.time())
    old = Mail(road, order_id, at_s=now - 3_600)
    for told in (str(now), f"0{now}", f"{now}.0", f"+{now}", f" {now}", "", "١٢٣", "9" * 13):
        answer = await old.post(**{signing.TIMESTAMP_HEADER: told})
        assert (answer.status, answer.json["code"]) == (401, "SIGNATURE_INVALID"), told
    assert await record(pg, order_id) == ("PENDING_PAYMENT", 0, 0)
