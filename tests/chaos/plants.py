"""Every kind of breach, ready to be planted into real books: what the auditor has to see."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from redis.asyncio import Redis

from tests.chaos.audit.findings import Kind

PASSED = "(SELECT event_id FROM redemption_events WHERE result = 'success' ORDER BY event_id LIMIT 1)"
COPY = "INSERT INTO {0} SELECT (jsonb_populate_record(t, '{1}')).* FROM {0} AS t WHERE {2} LIMIT 1"
UNPAID = "(SELECT min(id) FROM orders WHERE status IN ('CANCELLED', 'EXPIRED'))"
A_PAYMENT = "gateway = 'hosted' AND status = 'APPLIED'"

# What is planted into Postgres: what it is, how it must be counted and under which rule, and the SQL.
IN_POSTGRES = {
    "an event is gone": (Kind.LOST, "4", f"DELETE FROM redemption_events WHERE event_id = {PASSED}"),
    "an event says another thing": (
        Kind.BREACH, "4", f"UPDATE redemption_events SET ticket_status = ticket_status, function_code = 'x' "
        f"WHERE event_id = {PASSED}",
    ),
    "an event that nobody asked for": (
        Kind.BREACH, "4",
        COPY.format("redemption_events", '{"event_id": "00-1-1", "scan_id": "ghost"}', "result = 'reject'"),
    ),
    "a scan recorded twice": (
        Kind.DOUBLED, "5", COPY.format("redemption_events", '{"event_id": "00-1-2"}', "result = 'reject'"),
    ),
    "a QR spent twice": (
        Kind.DOUBLED, "5", "DROP INDEX redemption_events_spent_once; "
        + COPY.format("redemption_events", '{"event_id": "00-1-3", "scan_id": "other"}', f"event_id = {PASSED}"),
    ),
    "more successes than uses": (
        Kind.DOUBLED, "3", "ALTER TABLE entitlements DROP CONSTRAINT entitlements_total_positive; "
        "UPDATE entitlements SET total_uses = 0, remaining_uses = 0 WHERE remaining_uses < total_uses",
    ),
    "a use gone without a success": (
        Kind.BREACH, "3", "UPDATE entitlements SET remaining_uses = remaining_uses - 1 WHERE remaining_uses > 1",
    ),
    "an order is gone": (
        Kind.LOST, "orders", "CREATE TABLE gone AS SELECT id FROM orders WHERE status IN ('CANCELLED', 'EXPIRED'); "
        "DELETE FROM order_lines WHERE order_id IN (SELECT id FROM gone); "
        "DELETE FROM payments WHERE order_id IN (SELECT id FROM gone); "
        "DELETE FROM orders WHERE id IN (SELECT id FROM gone)",
    ),
    "an order of other units": (
        Kind.BREACH, "orders", f"UPDATE order_lines SET qty = qty + 1 WHERE order_id = {UNPAID}",
    ),
    "two orders by one key": (
        Kind.DOUBLED, "orders", "ALTER TABLE orders DROP CONSTRAINT orders_idempotency; "
        + COPY.format("orders", '{"id": "GHOST"}', f"id = {UNPAID}"),
    ),
    "a cancelled order that is not": (
        Kind.LOST, "orders", "UPDATE orders SET status = 'EXPIRED' WHERE status = 'CANCELLED'",
    ),
    "a payment is gone": (Kind.LOST, "2", f"DELETE FROM payments WHERE {A_PAYMENT}"),
    "a payment that nobody made": (
        Kind.BREACH, "7",
        COPY.format("payments", '{"gateway_txn_id": "ghost", "status": "REFUND_REQUIRED"}', A_PAYMENT),
    ),
    "an order paid twice": (
        Kind.DOUBLED, "2",
        "DROP INDEX payments_applied_once; " + COPY.format("payments", '{"gateway_txn_id": "ghost"}', A_PAYMENT),
    ),
    "another amount": (Kind.BREACH, "7", f"UPDATE payments SET amount_fen = amount_fen + 1 WHERE {A_PAYMENT}"),
    "paid without a payment": (
        Kind.BREACH, "7", "UPDATE orders SET status = 'PAID' WHERE status = 'CANCELLED'",
    ),
    "a ticket is missing": (
        Kind.BREACH, "2", "CREATE TABLE gone AS SELECT max(code) AS code FROM tickets; "
        "DELETE FROM entitlements WHERE ticket_code IN (SELECT code FROM gone); "
        "DELETE FROM tickets WHERE code IN (SELECT code FROM gone)",
    ),
    "a ticket issued twice": (
        Kind.DOUBLED, "2", "ALTER TABLE tickets DROP CONSTRAINT tickets_issued_once; "
        + COPY.format("tickets", '{"code": "GHOST"}', "true"),
    ),
    "sold past the cap": (Kind.BREACH, "1", "UPDATE products SET sellable = 0"),
    "money with fractions": (Kind.BREACH, "6", "ALTER TABLE orders ALTER total_fen TYPE numeric"),
    "an order of another total": (Kind.BREACH, "6", f"UPDATE orders SET total_fen = 1 WHERE id = {UNPAID}"),
    "an entry that was set aside": (
        Kind.BREACH, "dead", "INSERT INTO dead_letters VALUES ('{s00}:redemptions', '1-1', 'why', 'what')",
    ),
    "a message that was not told": (
        Kind.BREACH, "published", "INSERT INTO outbox (kind, subject) VALUES ('cap', '1')",
    ),
    "a stream that is not written": (Kind.BREACH, "flushed", "UPDATE stream_cursors SET last_id = '1-1'"),
}  # fmt: skip


class Planted(NamedTuple):
    """One scene: books that may be spoilt."""

    redis: Redis
    diaries: Path

    def append(self, *lines: dict[str, Any]) -> None:
        """Write more lines into a diary."""
        with (self.diaries / "ghost.jsonl").open("a") as file:
            for line in lines:
                file.write(json.dumps({"at": 1.0, "who": "ghost", **line}) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """All that is written."""
        return [
            json.loads(line)
            for file in self.diaries.glob("*.jsonl")
            for line in file.read_text().splitlines()
        ]

    def passed(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A scan that was told success: its intent and its answer."""
        lines = self.lines()
        answer = next(
            line for line in lines
            if line["said"] == "answer" and line["kind"] == "scan" and line["body"].get("result") == "success"
        )  # fmt: skip
        return next(line for line in lines if line["said"] == "intent" and line["id"] == answer["id"]), answer


Plant = Callable[[Planted], Awaitable[None]]


def in_redis(act: Callable[[Redis], Awaitable[Any]]) -> Plant:
    """Something done to Redis behind everybody's back."""

    async def plant(planted: Planted) -> None:
        await act(planted.redis)

    return plant


def in_diaries(act: Callable[[Planted], None]) -> Plant:
    """Something that a client was told, it says."""

    async def plant(planted: Planted) -> None:
        act(planted)

    return plant


async def _spoil_ticket(redis: Redis, *, field: str) -> None:
    async for name in redis.scan_iter(match="{s00}:t:*"):
        ticket = await redis.hgetall(name)
        spent = [each for each in ticket if each.startswith("j:")]
        if spent and field == "j":
            await redis.hdel(name, *spent)
        elif spent:
            await redis.hset(name, "r", ticket["r"].replace("=", "=9"))


async def _forget_verdicts(redis: Redis) -> None:
    async for name in redis.scan_iter(match="{s00}:said:*"):
        await redis.delete(name)


async def _add_to_stock(redis: Redis) -> None:
    async for name in redis.scan_iter(match="{stock}:p:*"):
        await redis.hincrby(name, "reserved", 1)


def _told(kind: str, command_id: str, status: int, body: Any, **intent: Any) -> Callable[[Planted], None]:
    def act(planted: Planted) -> None:
        planted.append(
            {"said": "intent", "kind": kind, "id": command_id, **intent},
            {"said": "answer", "kind": kind, "id": command_id, "status": status, "body": body},
        )

    return act


def _second_verdict(planted: Planted) -> None:
    _, answer = planted.passed()
    planted.append({**answer, "body": {**answer["body"], "result": "reject", "reason": "NO_REMAINING"}})


def _green_twin(planted: Planted) -> None:
    intent, answer = planted.passed()
    planted.append(
        {**intent, "id": "twin"}, {**answer, "id": "twin", "body": {**answer["body"], "event_id": None}}
    )


def _forged_green(planted: Planted) -> None:
    intent, _ = planted.passed()
    for file in planted.diaries.glob("*.jsonl"):
        text = file.read_text().splitlines()
        spoilt = [
            json.dumps({**json.loads(line), "as": "forged"})
            if json.loads(line)["id"] == intent["id"] and json.loads(line)["said"] == "intent"
            else line
            for line in text
        ]
        file.write_text("\n".join(spoilt) + "\n")


_ORDER = {"product": 1, "qty": 1, "total_fen": 5}
_PAYMENT = {"order_id": "GHOST", "amount_fen": 5, "wrong": False}


def _two_orders(planted: Planted) -> None:
    for order_id in "AB":
        _told("order", "k", 201, {"order_id": order_id, "total_fen": 5}, **_ORDER)(planted)


def _two_results(planted: Planted) -> None:
    for result in ("PAID", "REFUND_REQUIRED"):
        _told("notify", "g", 200, {"result": result}, **_PAYMENT)(planted)


BESIDE: dict[str, tuple[Kind, str, Plant]] = {
    "a unit held by nobody": (Kind.BREACH, "1", in_redis(_add_to_stock)),
    "a hold without an order": (Kind.BREACH, "1", in_redis(lambda r: r.hset("{stock}:o:GHOST", "deadline_ms", "1"))),
    "uses at the gate that are not": (Kind.BREACH, "3", in_redis(lambda r: _spoil_ticket(r, field="r"))),
    "a spent QR that is fresh again": (Kind.BREACH, "5", in_redis(lambda r: _spoil_ticket(r, field="j"))),
    "verdicts forgotten": (Kind.BREACH, "5", in_redis(_forget_verdicts)),
    "a gate that stays shut": (Kind.BREACH, "gates", in_redis(lambda r: r.delete("{s00}:epoch"))),
    "a second verdict": (Kind.DOUBLED, "5", in_diaries(_second_verdict)),
    "one QR green at two gates": (Kind.DOUBLED, "5", in_diaries(_green_twin)),
    "a forged QR that passed": (Kind.BREACH, "4", in_diaries(_forged_green)),
    "an order told and not there": (
        Kind.LOST, "orders", in_diaries(_told("order", "k", 201, {"order_id": "GHOST", "total_fen": 5}, **_ORDER)),
    ),
    "two orders told for one key": (
        Kind.DOUBLED, "orders",
        in_diaries(_two_orders),
    ),
    "an order that its buyer cannot see": (Kind.BREACH, "orders", in_diaries(_told("look", "GHOST", 404, {}))),
    "fractions of a fen": (
        Kind.BREACH, "6", in_diaries(_told("look", "GHOST", 200, {"order_id": "GHOST", "total_fen": 0.5})),
    ),
    "a payment told and not there": (
        Kind.LOST, "2", in_diaries(_told("notify", "ghost", 200, {"result": "PAID"}, **_PAYMENT)),
    ),
    "a payment told in two ways": (
        Kind.DOUBLED, "2",
        in_diaries(_two_results),
    ),
    "a payment for no order": (Kind.BREACH, "2", in_diaries(_told("notify", "ghost", 404, {}, **_PAYMENT))),
    "a wrong amount that was taken": (
        Kind.BREACH, "7",
        in_diaries(_told("notify", "ghost", 200, {"result": "PAID"}, **{**_PAYMENT, "wrong": True})),
    ),
    "a ticket shown and not there": (
        Kind.LOST, "tickets", in_diaries(_told("tickets", "GHOST", 200, {"tickets": [{"ticket_code": "GHOST"}]})),
    ),
}  # fmt: skip

PLANTS: dict[str, tuple[Kind, str, Plant | str]] = {**IN_POSTGRES, **BESIDE}
