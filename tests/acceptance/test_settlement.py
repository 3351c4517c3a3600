"""Settlement: a payment is told many times, in any order and by any way, and counts once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from server.domain.errors import ErrorCode, Refusal
from server.flows import lookup
from server.flows.settle import FREE_GATEWAY
from server.hosted import signing
from server.jobs.reconcile import reconcile
from tests.conftest import Audit, Serve, eventually, key
from tests.road import Answer, Road

PAID_AT = datetime(2026, 5, 1, 8, 30, tzinfo=UTC)


class Gateway:
    """A payment gateway that answers for the transactions it is given; tests spoil its answers by `spoil`."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.transactions: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.unsigned = False
        self.odd: set[str] = set()  # orders about which there is no proper answer
        app = web.Application()
        app.router.add_get("/transactions/{order_id}", self._answer)
        self._server = TestServer(app)

    async def start(self) -> str:
        """Serve; returns the address."""
        await self._server.start_server()
        return str(self._server.make_url("/")).rstrip("/")

    async def stop(self) -> None:
        """Stop serving."""
        await self._server.close()

    def paid(self, order_id: str, amount_fen: int, /, **changes: Any) -> None:
        """From now on the gateway knows this order as paid."""
        self.transactions[order_id] = {
            "gateway": "hosted",
            "gateway_txn_id": f"txn-{order_id}",
            "order_id": order_id,
            "status": "SUCCESS",
            "amount_fen": amount_fen,
            "currency": "CNY",
            "paid_at": PAID_AT,
        } | changes

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.encode()
        assert signing.holds([self.secret], request.headers, path, int(time.time()))
        order_id = request.match_info["order_id"]
        self.asked.append(order_id)
        if order_id in self.odd:
            raise web.HTTPInternalServerError
        if order_id not in self.transactions:
            raise web.HTTPNotFound
        body = msgspec.json.encode(self.transactions[order_id])
        secret = b"another" if self.unsigned else self.secret
        response = web.StreamResponse(headers=signing.headers([secret], body, int(time.time())))
        response.content_length = len(body)
        await response.prepare(request)
        for byte in range(0, len(body), 40):  # as a network may deliver it
            await response.write(body[byte : byte + 40])
            await asyncio.sleep(0.001)
        return response


@pytest.fixture
async def gateway(environment: dict[str, str]) -> AsyncIterator[Gateway]:
    """A gateway that the server of this test asks."""
    secret = key()
    environment["GATELINE_GATEWAY_SECRETS"] = secret
    gateway = Gateway(msgspec.convert(secret, bytes))
    environment["GATELINE_GATEWAY_URL"] = await gateway.start()
    yield gateway
    await gateway.stop()


async def query(road: Road, order_id: str) -> Answer:
    """The buyer asks whether it is paid."""
    return await road.call("POST", f"/orders/{order_id}/query", headers=road.buyer())


async def ordered(road: Road, *, qty: int = 1, **product: Any) -> tuple[str, int]:
    """An unpaid order of a new product; (order id, product id). A unit costs 1,000 fen."""
    made = await road.product(**product)
    return (await road.order({made: qty})).json["order_id"], made


async def state(pg: asyncpg.Connection[Any]) -> tuple[list[str], list[str], int]:
    """(statuses of all orders, statuses of all payments, how many tickets)."""
    orders = [row[0] for row in await pg.fetch("SELECT status FROM orders ORDER BY id")]
    payments = [row[0] for row in await pg.fetch("SELECT status FROM payments ORDER BY received_at")]
    return orders, payments, await pg.fetchval("SELECT count(*) FROM tickets")


async def cancelled(road: Road, order_id: str) -> None:
    """The buyer cancels."""
    answer = await road.call("POST", f"/orders/{order_id}/cancel", headers=road.buyer())
    assert answer.json["status"] == "CANCELLED"


# --- once -----------------------------------------------------------------------------------------------------


async def test_a_notification_told_a_hundred_times_amid_queries_settles_once(
    gateway: Gateway, serve: Serve, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    one, other = await serve(), await serve()
    order_id, product = await ordered(one, qty=3, functions={"bus": 2})
    gateway.paid(order_id, 3_000)
    acts = []
    for number in range(100):
        acts.append((one, other)[number % 2].notify(order_id, 3_000, paid_at=PAID_AT))
        if number % 10 == 0:
            acts.append(query((other, one)[number % 2], order_id))
    answers = await asyncio.gather(*acts)

    notified = [answer for answer in answers if "result" in answer.json]
    queried = [answer for answer in answers if "result" not in answer.json]
    assert (len(notified), len(queried)) == (100, 10)
    for answers_of_a_kind in (notified, queried):
        assert {(answer.status, answer.raw) for answer in answers_of_a_kind} == {
            (200, answers_of_a_kind[0].raw)
        }
    assert notified[0].json["result"] == queried[0].json["status"] == "PAID"
    await audit(one)
    assert await state(pg) == (["PAID"], ["APPLIED"], 3)
    level = (await one.parts.stock.levels([product]))[product]
    assert (level.reserved, level.sold) == (0, 3)


async def test_one_transaction_for_two_orders_at_once_pays_one_of_them(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    product = await road.product(sellable=20)
    before = await road.alerts("PAYMENT_TRANSACTION_CONFLICT")
    pairs = [[(await road.order({product: 1})).json["order_id"] for _ in range(2)] for _ in range(8)]
    answers = await asyncio.gather(
        *(road.notify(order_id, 1_000, txn=f"txn-{n}") for n, pair in enumerate(pairs) for order_id in pair)
    )

    for pair in zip(answers[::2], answers[1::2], strict=True):
        assert sorted(answer.status for answer in pair) == [200, 409]
        assert {answer.json.get("code") for answer in pair} == {None, "TRANSACTION_CONFLICT"}
    assert await road.alerts("PAYMENT_TRANSACTION_CONFLICT") == before + 8
    await audit(road)
    orders, payments, tickets = await state(pg)
    assert sorted(orders) == ["PAID"] * 8 + ["PENDING_PAYMENT"] * 8
    assert (payments, tickets) == (["APPLIED"] * 8, 8)


async def test_a_failed_payment_leaves_the_order_payable(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    order_id, _ = await ordered(road)
    failed = await road.notify(order_id, 1_000, txn="first", status="FAILED")
    resumed = await road.call("POST", f"/orders/{order_id}/pay", headers=road.buyer())

    assert (failed.status, failed.json["result"]) == (200, "PENDING")
    assert (resumed.status, resumed.json["status"]) == (200, "PENDING_PAYMENT")
    assert await state(pg) == (["PENDING_PAYMENT"], [], 0)
    # The same transaction may succeed after all, as another may.
    assert (await road.notify(order_id, 1_000, txn="first")).json["result"] == "PAID"
    late = await road.notify(order_id, 1_000, txn="first", status="FAILED")
    assert late.status == 200
    await audit(road)
    assert await state(pg) == (["PAID"], ["APPLIED"], 1)


# --- money that cannot be used --------------------------------------------------------------------------------


async def test_money_for_a_cancelled_order_is_to_be_refunded(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    order_id, product = await ordered(road)
    await cancelled(road, order_id)
    before = await road.alerts("REFUND_REQUIRED")
    first, again = [await road.notify(order_id, 1_000, paid_at=PAID_AT) for _ in range(2)]

    assert (first.status, first.json["result"]) == (200, "REFUND_REQUIRED")
    assert again.raw == first.raw
    assert await road.alerts("REFUND_REQUIRED") == before + 1, (
        "a person is told once, not once per repetition"
    )
    await audit(road)
    assert await state(pg) == (["REFUND_REQUIRED"], ["REFUND_REQUIRED"], 0)
    level = (await road.parts.stock.levels([product]))[product]
    assert (level.reserved, level.sold) == (0, 0)


async def test_money_for_an_expired_order_is_to_be_refunded(
    serve: Serve, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    road = await serve(hold_s=1)
    order_id, _ = await ordered(road)

    async def expired() -> bool:
        return bool(await pg.fetchval("SELECT status = 'EXPIRED' FROM orders"))

    await eventually(expired)
    before = await road.alerts("REFUND_REQUIRED")
    told = await road.notify(order_id, 1_000)

    assert (told.status, told.json["result"]) == (200, "REFUND_REQUIRED")
    assert await road.alerts("REFUND_REQUIRED") == before + 1
    await audit(road)
    assert await state(pg) == (["REFUND_REQUIRED"], ["REFUND_REQUIRED"], 0)


async def test_a_refund_is_told_to_people_even_when_the_commit_was_not_heard_of(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost as the transaction commits: the gateway hears 503, repeats, and hears the result."""
    order_id, _ = await ordered(road)
    await cancelled(road, order_id)
    before = await road.alerts("REFUND_REQUIRED")
    with_lock = road.parts.paying.lookup.with_lock

    async def lose_the_answer(*arguments: Any) -> Any:
        await with_lock(*arguments)
        raise Refusal(ErrorCode.POSTGRES_UNAVAILABLE)

    with monkeypatch.context() as patch:
        patch.setattr(road.parts.paying.lookup, "with_lock", lose_the_answer)
        assert (await road.notify(order_id, 1_000)).status == 503
    assert (await road.notify(order_id, 1_000)).json["result"] == "REFUND_REQUIRED"
    assert await road.alerts("REFUND_REQUIRED") >= before + 1


async def test_a_second_payment_of_a_paid_order_is_to_be_refunded_and_issues_nothing(
    road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    order_id, _ = await ordered(road)
    before = await road.alerts("REFUND_REQUIRED")
    answers = await asyncio.gather(*(road.notify(order_id, 1_000, txn=f"txn-{n}") for n in range(5)))

    assert sorted(answer.json["result"] for answer in answers) == ["PAID", *["REFUND_REQUIRED"] * 4]
    assert await road.alerts("REFUND_REQUIRED") == before + 4
    await audit(road)
    orders, payments, tickets = await state(pg)
    assert (orders, sorted(payments), tickets) == (["PAID"], ["APPLIED", *["REFUND_REQUIRED"] * 4], 1)


async def test_the_wrong_amount_or_currency_pays_nothing_and_is_an_alert(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    order_id, _ = await ordered(road)
    before = await road.alerts("PAYMENT_AMOUNT_MISMATCH")
    for amount, changes in ((999, {}), (1_001, {}), (0, {}), (1_000, {"currency": "USD"})):
        refused = await road.notify(order_id, amount, **changes)
        assert (refused.status, refused.json["code"]) == (409, "AMOUNT_MISMATCH")

    assert await road.alerts("PAYMENT_AMOUNT_MISMATCH") == before + 4
    assert await state(pg) == (["PENDING_PAYMENT"], [], 0)
    assert (await road.notify(order_id, 1_000)).json["result"] == "PAID"


async def test_money_for_an_unknown_order_is_refused_with_an_alert(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    before = await road.alerts("PAYMENT_FOR_UNKNOWN_ORDER")
    for order_id in ("01HZZZZZZZZZZZZZZZZZZZZZZZ", "not-one-of-ours"):
        refused = await road.notify(order_id, 1_000)
        assert (refused.status, refused.json["code"]) == (404, "ORDER_NOT_FOUND")

    assert await road.alerts("PAYMENT_FOR_UNKNOWN_ORDER") == before + 2
    assert await state(pg) == ([], [], 0)


# --- who tells it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wechat", FREE_GATEWAY])
async def test_the_hosted_gateway_does_not_speak_under_the_name_of_another_way_to_pay(
    name: str, gateway: Gateway, road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    order_id, _ = await ordered(road)
    await road.flushed()

    told = await road.notify(order_id, 1_000, gateway=name, txn="4200000000202605010000000001")
    gateway.paid(order_id, 1_000, gateway=name)
    asked = await query(road, order_id)

    assert (told.status, told.json["code"]) == (400, "VALIDATION_FAILED"), told
    assert (asked.status, asked.json["code"]) == (503, "GATEWAY_UNAVAILABLE"), asked
    assert await state(pg) == (["PENDING_PAYMENT"], [], 0)
    assert (await road.notify(order_id, 1_000)).json["result"] == "PAID", "under its own it is heard"
    await audit(road)


async def test_only_a_fresh_and_rightly_signed_notification_is_heard(
    road: Road, pg: asyncpg.Connection[Any]
) -> None:
    order_id, _ = await ordered(road)
    now = int(time.time())
    body = msgspec.json.encode(
        {
            "gateway": "hosted",
            "gateway_txn_id": "txn-1",
            "order_id": order_id,
            "status": "SUCCESS",
            "amount_fen": 1_000,
            "currency": "CNY",
            "paid_at": PAID_AT,
        }
    )
    good = signing.headers(road.config.gateway_secrets, body, now)
    signature, stamp = signing.SIGNATURE_HEADER, signing.TIMESTAMP_HEADER
    forged: list[tuple[bytes, dict[str, str]]] = [
        (body, {}),
        (body, {stamp: good[stamp]}),
        (body, {signature: good[signature]}),
        (body, signing.headers([b"x" * 32], body, now)),
        (body, signing.headers(road.config.gateway_secrets, body, now - 302)),
        (body, signing.headers(road.config.gateway_secrets, body, now + 302)),
        (body, good | {stamp: str(now + 1)}),
        (body, good | {stamp: f"+{now}"}),
        (body, good | {signature: good[signature].removeprefix("v1=")}),
        (body, good | {signature: good[signature].upper()}),
        (body, good | {signature: good[signature][:-1]}),
        (body.replace(b"SUCCESS", b"SUCCESs"), good),
        (body + b" ", good),
        (b"", good),
    ]
    for number, (sent, headers) in enumerate(forged):
        answer = await road.call("POST", "/payments/notify", data=sent, headers=headers)
        assert (answer.status, answer.json["code"]) == (401, "SIGNATURE_INVALID"), number
    await road.flushed()
    assert await state(pg) == (["PENDING_PAYMENT"], [], 0)
    assert (await road.call("POST", "/payments/notify", data=body, headers=good)).status == 200


async def test_while_a_secret_is_rotated_both_are_accepted_and_the_new_one_signs(
    serve: Serve, config: Any
) -> None:
    (old,), new = config.gateway_secrets, b"n" * 32
    road = await serve(gateway_secrets=(new, old))
    for secret in (old, new):
        order_id, _ = await ordered(road)
        assert (await road.notify(order_id, 1_000, secret=secret)).json["result"] == "PAID"


# --- the query ----------------------------------------------------------------------------------------------------


async def test_a_query_settles_what_the_gateway_says(
    gateway: Gateway, road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    order_id, _ = await ordered(road)
    assert (await query(road, order_id)).json["status"] == "PENDING_PAYMENT"
    gateway.paid(order_id, 1_000, status="FAILED")
    assert (await query(road, order_id)).json["status"] == "PENDING_PAYMENT"
    gateway.paid(order_id, 1_000)
    assert (await query(road, order_id)).json["status"] == "PAID"
    assert len(gateway.asked) == 3
    assert (await query(road, order_id)).json["status"] == "PAID"
    assert len(gateway.asked) == 3, "a paid order is not asked about"
    await audit(road)
    assert await state(pg) == (["PAID"], ["APPLIED"], 1)


async def test_a_query_trusts_only_a_signed_answer_about_this_order_and_amount(
    gateway: Gateway, road: Road, pg: asyncpg.Connection[Any]
) -> None:
    order_id, product = await ordered(road)
    other = (await road.order({product: 1})).json["order_id"]
    gateway.paid(order_id, 1_000)
    gateway.unsigned = True
    assert (await query(road, order_id)).json["code"] == "GATEWAY_UNAVAILABLE"
    gateway.unsigned = False
    gateway.paid(order_id, 1_000, order_id=other)
    assert (await query(road, order_id)).json["code"] == "GATEWAY_UNAVAILABLE"
    gateway.paid(order_id, 900)
    assert (await query(road, order_id)).json["code"] == "AMOUNT_MISMATCH"
    await gateway.stop()
    answer = await query(road, order_id)
    assert (answer.status, answer.json["code"]) == (503, "GATEWAY_UNAVAILABLE")
    await road.flushed()
    assert await state(pg) == (["PENDING_PAYMENT"] * 2, [], 0)


async def test_payments_whose_notification_was_lost_are_found_by_asking(
    gateway: Gateway, road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    paid, product = await ordered(road)
    unpaid = (await road.order({product: 1})).json["order_id"]
    young = (await road.order({product: 1})).json["order_id"]
    gateway.paid(paid, 1_000)
    gateway.paid(young, 1_000)
    await road.flushed()
    await pg.execute("UPDATE orders SET created_at = now() - interval '2 min' WHERE id <> $1", young)
    parts = road.parts
    rounds = await asyncio.gather(
        *(reconcile(parts.database, parts.provider, parts.settlement) for _ in range(4))
    )

    assert sum(rounds) == 2
    assert sorted(gateway.asked) == sorted([paid, unpaid])
    statuses = dict(await pg.fetch("SELECT id, status FROM orders"))
    assert statuses == {paid: "PAID", unpaid: "PENDING_PAYMENT", young: "PENDING_PAYMENT"}
    assert await reconcile(parts.database, parts.provider, parts.settlement) == 0
    await audit(road)


async def test_one_order_that_the_gateway_cannot_answer_for_does_not_hide_the_payments_of_others(
    gateway: Gateway, road: Road, pg: asyncpg.Connection[Any]
) -> None:
    odd, product = await ordered(road)
    paid = [(await road.order({product: 1})).json["order_id"] for _ in range(3)]
    gateway.odd.add(odd)
    for order_id in paid:
        gateway.paid(order_id, 1_000)
    await road.flushed()
    await pg.execute("UPDATE orders SET created_at = now() - interval '2 min'")
    parts = road.parts
    assert await reconcile(parts.database, parts.provider, parts.settlement) == 4
    assert await state(pg) == (["PENDING_PAYMENT", *["PAID"] * 3], ["APPLIED"] * 3, 3)

    # When it answers for nobody it is away: the job is told, and everyone was asked about once.
    more = [(await road.order({product: 1})).json["order_id"] for _ in range(5)]
    gateway.odd.update(more)
    await road.flushed()
    await pg.execute("UPDATE orders SET created_at = now() - interval '2 min', asked_at = NULL")
    gateway.asked.clear()
    with pytest.raises(Refusal):
        await reconcile(parts.database, parts.provider, parts.settlement)
    assert sorted(gateway.asked) == sorted([odd, *more])


async def test_money_that_came_at_the_last_moment_and_was_not_told_is_found_after_the_end(
    gateway: Gateway, road: Road, pg: asyncpg.Connection[Any], audit: Audit
) -> None:
    asked_for, found = [(await ordered(road))[0] for _ in range(2)]
    for order_id in (asked_for, found):
        gateway.paid(order_id, 1_000)
        await cancelled(road, order_id)
    before = await road.alerts("REFUND_REQUIRED")
    assert (await query(road, asked_for)).json["status"] == "REFUND_REQUIRED"
    parts = road.parts
    assert await reconcile(parts.database, parts.provider, parts.settlement) == 0, "it has just ended"
    await pg.execute("UPDATE orders SET ended_at = ended_at - interval '2 min'")
    assert await reconcile(parts.database, parts.provider, parts.settlement) == 1
    assert await reconcile(parts.database, parts.provider, parts.settlement) == 0
    assert await road.alerts("REFUND_REQUIRED") == before + 2
    await audit(road)
    assert await state(pg) == (["REFUND_REQUIRED"] * 2, ["REFUND_REQUIRED"] * 2, 0)


# --- before the order is recorded ----------------------------------------------------------------------------------


async def test_a_payment_that_comes_before_the_order_is_recorded_waits_for_it(
    serve: Serve, pg: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch, audit: Audit
) -> None:
    road = await serve(jobs=False)
    order_id, _ = await road.jobs_by_hand(ordered(road))
    waiting = asyncio.ensure_future(road.notify(order_id, 1_000))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.2)
    await road.parts.flusher.drain(road.parts.stream_names)
    assert (await waiting).json["result"] == "PAID"

    # Nobody flushes: the gateway is told to come again, within a bounded time.
    monkeypatch.setattr(lookup, "READ_OWN_WRITE_S_MAX", 0.1)
    late, _ = await road.jobs_by_hand(ordered(road))
    for _ in range(2):
        refused = await road.notify(late, 1_000)
        assert (refused.status, refused.json["code"]) == (503, "NOT_RECORDED_YET")
        assert "Retry-After" in refused.headers
    await road.parts.flusher.drain(road.parts.stream_names)
    assert (await road.notify(late, 1_000)).json["result"] == "PAID"
    await road.jobs_by_hand(audit(road))
    assert await state(pg) == (["PAID"] * 2, ["APPLIED"] * 2, 2)


# --- Money that came too late, and whose notification was lost -------------------------------------------------


async def test_a_lost_payment_of_an_ended_order_is_found_by_the_explicit_query(
    gateway: Gateway, serve: Serve, pg: asyncpg.Connection[Any]
) -> None:
    road = await serve()
    order_id, _ = await ordered(road)
    gateway.paid(order_id, 1_000)
    await cancelled(road, order_id)

    answer = await query(road, order_id)

    assert answer.json["status"] == "REFUND_REQUIRED"
    assert await state(pg) == (["REFUND_REQUIRED"], ["REFUND_REQUIRED"], 0)


async def test_a_lost_payment_of_an_ended_order_is_found_by_reconciliation(
    gateway: Gateway, serve: Serve, pg: asyncpg.Connection[Any]
) -> None:
    road = await serve()
    order_id, _ = await ordered(road)
    other_id, _ = await ordered(road)
    gateway.paid(order_id, 1_000)
    for each in (order_id, other_id):
        await cancelled(road, each)
    await pg.execute("UPDATE orders SET ended_at = now() - interval '2 minutes', asked_at = NULL")
    before = await road.alerts("REFUND_REQUIRED")

    asked = await reconcile(road.parts.database, road.parts.provider, road.parts.settlement)
    again = await reconcile(road.parts.database, road.parts.provider, road.parts.settlement)

    assert (asked, again) == (2, 0)
    assert sorted(gateway.asked) == sorted([order_id, other_id])
    assert (await state(pg))[0] == ["REFUND_REQUIRED", "CANCELLED"]
    assert await road.alerts("REFUND_REQUIRED") == before + 1
    await pg.execute("UPDATE orders SET ended_at = now() - interval '2 days', asked_at = NULL")
    assert await reconcile(road.parts.database, road.parts.provider, road.parts.settlement) == 0
