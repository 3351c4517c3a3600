"""Guessing, hoarding and asking too often, over HTTP: who is refused with 429, and who never is."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import uuid4

import pytest
import structlog
from redis.asyncio import Redis

from server.dev.embedded import EmbeddedValkey
from server.domain.catalog import Role
from server.flows import staff
from server.hot import keys, throttle
from server.hot.pace import Pace, steady
from server.hot.scripts import ScriptRunner
from server.limits import (
    INQUIRIES_FREE,
    LOGIN_ADDRESS_TRIES_FREE,
    LOGIN_HELD_REMEMBERED_S,
    LOGIN_TRIES_FREE,
    QR_SHOWN_FREE,
)
from server.store.pool import Database
from tests.conftest import Serve
from tests.road import PASSWORD, PATIENCE_S, Answer, Road
from tests.web.stage import refused
from tests.web.wire import posted, wire

SLOW = Pace(LOGIN_TRIES_FREE, 60, 30, 60)  # the first pause is longer than a slow machine takes to ask again
WRONG = "not the password"
LOCAL = 'gateline_limited_total{limit="login",outcome="local"}'
pytest_plugins = ("tests.outage.conftest",)


async def log_in(road: Road, username: str, password: str = WRONG, **headers: str) -> Answer:
    login = {"username": username, "password": password}
    return await road.call("POST", "/operators/login", json=login, headers=headers)


def held(answer: Answer, code: str, *, at_most_s: int = 60) -> int:
    """Checks that this came too often; the seconds to wait."""
    body = refused(answer, 429, code)
    seconds: int = body["retry_after_s"]
    assert answer.headers["Retry-After"] == str(seconds)
    assert 1 <= seconds <= at_most_s
    return seconds


# --- Logins of the staff ------------------------------------------------------------------------------------


async def test_after_five_wrong_passwords_the_next_is_refused_by_every_worker_before_it_is_looked_at(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await serve(), await serve(jobs=False)
    await one.staff("gina", Role.GATE)
    monkeypatch.setattr(throttle, "_TRIES", SLOW)
    hashed = []
    verify = staff.verify_password
    monkeypatch.setattr(staff, "verify_password", lambda *given: hashed.append(given) or verify(*given))

    for worker in (one, two, one, two, one):
        refused(await log_in(worker, "gina"), 401, "LOGIN_FAILED")
    assert len(hashed) == LOGIN_TRIES_FREE
    for worker in (one, two):
        assert held(await log_in(worker, "gina", PASSWORD), "TOO_MANY_ATTEMPTS") > 20
    assert len(hashed) == LOGIN_TRIES_FREE, "nothing was hashed for those"
    await one.parts.redis.hincrby(keys.tries("gina", "127.0.0.1"), "t", -30_000)  # type: ignore[misc]  # later
    await asyncio.sleep(LOGIN_HELD_REMEMBERED_S)
    assert (await log_in(two, "gina", PASSWORD)).status == 200
    assert (await log_in(one, "gina")).status == 401, "what failed before is forgotten"


async def test_attempts_of_one_moment_do_not_slip_through(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "_TRIES", SLOW)
    monkeypatch.setattr(staff, "LOGINS_FROM_MAX", 40)
    workers = [await serve(), await serve(jobs=False)]
    await workers[0].staff("gina", Role.GATE)
    answers = await asyncio.gather(*(log_in(workers[number % 2], "gina") for number in range(40)))
    assert Counter(answer.status for answer in answers) == {401: LOGIN_TRIES_FREE, 429: 40 - LOGIN_TRIES_FREE}


async def test_neither_words_nor_delays_tell_whether_an_account_exists(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "_TRIES", Pace(LOGIN_TRIES_FREE, 3_600, 3_600, 3_600))
    await road.staff("gina", Role.GATE)
    told: dict[str, list[Any]] = {}
    for username in ("gina", "nobody"):
        told[username] = []
        for _ in range(LOGIN_TRIES_FREE + 2):
            answer = await log_in(road, username)
            headers = {
                name: value
                for name, value in answer.headers.items()
                if name.lower() not in ("date", "x-request-id")
            }
            if answer.status == 429:  # seconds pass while we ask
                assert 3_500 <= answer.json.pop("retry_after_s") == int(headers.pop("Retry-After"))
                del headers["Content-Length"]
            told[username].append((answer.status, {**answer.json, "request_id": ""}, headers))
    assert told["gina"] == told["nobody"]


async def test_the_address_that_counts_is_the_one_that_our_proxy_wrote(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "_TRIES", SLOW)
    road = await serve(client_ip_header="X-Forwarded-For")
    await road.staff("gina", Role.GATE)
    for _ in range(LOGIN_TRIES_FREE):
        await log_in(road, "gina", **{"X-Forwarded-For": "203.0.113.7"})
    held(await log_in(road, "gina", PASSWORD, **{"X-Forwarded-For": "203.0.113.7"}), "TOO_MANY_ATTEMPTS")
    forged = {"X-Forwarded-For": "203.0.113.9, 203.0.113.7"}  # its sender's own word comes first
    held(await log_in(road, "gina", PASSWORD, **forged), "TOO_MANY_ATTEMPTS")
    assert (await log_in(road, "gina", PASSWORD, **{"X-Forwarded-For": "203.0.113.8"})).status == 200


async def test_one_network_of_ipv6_is_one_client(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "_TRIES", SLOW)
    road = await serve(client_ip_header="X-Forwarded-For")
    for number in range(LOGIN_TRIES_FREE):
        await log_in(road, "gina", **{"X-Forwarded-For": f"2001:db8:1:2:{number:x}::1"})
    for last, status in (("2001:db8:1:2:ffff::9", 429), ("2001:db8:1:3::1", 401)):
        assert (await log_in(road, "gina", **{"X-Forwarded-For": last})).status == status


async def test_guessing_at_many_accounts_does_not_hold_staff_that_logged_in_here_before(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    await road.staff("gina", Role.GATE)
    assert (await log_in(road, "gina", PASSWORD)).status == 200
    monkeypatch.setattr(
        staff, "verify_password", lambda password, phc: password == PASSWORD
    )  # 100 of them: fast
    for number in range(LOGIN_ADDRESS_TRIES_FREE):
        assert (await log_in(road, f"name-{number}")).status == 401
    held(await log_in(road, "name-x"), "TOO_MANY_ATTEMPTS")
    assert (await log_in(road, "gina", PASSWORD)).status == 200


async def test_while_redis_is_away_the_staff_logs_in(serve: Serve, own_valkey: EmbeddedValkey) -> None:
    road = await serve(redis_url=own_valkey.url)
    await road.staff("gina", Role.GATE)
    own_valkey.kill()
    for _ in range(LOGIN_TRIES_FREE):
        assert (await log_in(road, "gina")).status == 401
    seconds = held(await log_in(road, "gina", PASSWORD), "TOO_MANY_ATTEMPTS", at_most_s=1)
    await asyncio.sleep(seconds)
    assert (await log_in(road, "gina", PASSWORD)).status == 200
    text = (await road.call("GET", "/metrics")).raw.decode()
    (line,) = [each for each in text.splitlines() if each.startswith(LOCAL)]
    assert float(line.rpartition(" ")[2]) >= LOGIN_TRIES_FREE + 2
    own_valkey.start()


async def test_a_login_that_found_no_place_to_hash_is_not_counted(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    await road.staff("gina", Role.GATE)
    monkeypatch.setattr(staff, "PASSWORD_QUEUE_STRANGERS_MAX", 0)
    for _ in range(3 * LOGIN_TRIES_FREE):
        refused(await log_in(road, "gina", PASSWORD), 503, "OVERLOADED")
    monkeypatch.undo()
    assert (await log_in(road, "gina", PASSWORD)).status == 200


async def test_a_flood_of_logins_does_not_keep_redis_from_counting_them(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not counted in time is refused undecided: so no more come at once than can be counted."""
    monkeypatch.setattr(staff, "LOGINS_STRANGERS_MAX", 4)
    answers = await asyncio.gather(*(log_in(road, f"name-{number}") for number in range(30)))
    told = Counter(answer.status for answer in answers)
    assert told[401] >= 4 and told[503] > 0 and told[401] + told[503] == 30
    for answer in answers:
        assert answer.json["code"] in ("LOGIN_FAILED", "OVERLOADED")


# --- Guests -------------------------------------------------------------------------------------------------


async def test_guests_of_one_address_are_bounded_across_workers(serve: Serve) -> None:
    workers = [await serve(guests_a_minute_max=2), await serve(jobs=False, guests_a_minute_max=2)]
    answers = [await workers[number % 2].call("POST", "/auth/guest/login") for number in range(4)]
    assert [answer.status for answer in answers[:2]] == [200] * 2
    for answer in answers[2:]:
        assert 15 < held(answer, "TOO_MANY_GUESTS") <= 30


# --- Orders -------------------------------------------------------------------------------------------------


async def test_a_buyer_makes_so_many_orders_in_the_time_of_a_hold_and_a_retry_is_always_answered(
    serve: Serve,
) -> None:
    one, two = await serve(buyer_orders_max=3), await serve(jobs=False, buyer_orders_max=3)
    product = await one.product(sellable=100)
    await two.parts.directory.refresh()
    made = [
        await (one, two)[number % 2].order({product: 1}, idempotency_key=f"k{number}") for number in range(3)
    ]
    assert [answer.status for answer in made] == [201] * 3
    for worker in (one, two):
        seconds = held(await worker.order({product: 1}), "TOO_MANY_ORDERS", at_most_s=900)
        assert seconds > 880, "the whole time of a hold"
        for number in range(3):
            again = await worker.order({product: 1}, idempotency_key=f"k{number}")
            assert (again.status, again.raw) == (201, made[number].raw)
        conflict = await worker.order({product: 2}, idempotency_key="k0")
        refused(conflict, 409, "IDEMPOTENCY_CONFLICT")
    assert (await two.order({product: 1}, buyer="bob")).status == 201
    stock = await one.parts.stock.levels([product])
    assert stock[product].reserved == 4


async def test_orders_of_one_moment_are_counted_one_after_the_other(serve: Serve) -> None:
    workers = [await serve(buyer_orders_max=4), await serve(jobs=False, buyer_orders_max=4)]
    product = await workers[0].product(sellable=100)
    await workers[1].parts.directory.refresh()
    answers = await asyncio.gather(*(workers[number % 2].order({product: 1}) for number in range(40)))
    assert Counter(answer.status for answer in answers) == {201: 4, 429: 36}


async def test_the_buyer_may_order_again_after_the_time_that_was_told(serve: Serve) -> None:
    road = await serve(buyer_orders_max=1, hold_s=60)
    product = await road.product(sellable=100)
    assert (await road.order({product: 1})).status == 201
    seconds = held(await road.order({product: 1}), "TOO_MANY_ORDERS")
    assert seconds > 40
    name = keys.recent_orders("demo:ann")
    await road.parts.redis.set(name, f"{int(await road.parts.redis.get(name)) - seconds * 1_000} ")  # later
    assert (await road.order({product: 1})).status == 201


# --- QR and questions to the gateway ------------------------------------------------------------------------


async def test_a_tickets_qr_is_bounded_across_workers_and_strangers_use_up_nothing_of_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "_SHOWN", steady(QR_SHOWN_FREE, 30))
    one, two = await serve(), await serve(jobs=False)
    (ticket,) = await one.buy({await one.product(): 1})
    (other,) = await one.buy({await one.product(): 1})
    path = f"/qr/{ticket['ticket_code']}?image=none"
    for _ in range(2 * QR_SHOWN_FREE):
        refused(await one.call("POST", path, headers=one.buyer("bob")), 404, "TICKET_NOT_FOUND")
    shown = [
        await (one, two)[number % 2].call("POST", path, headers=one.buyer())
        for number in range(QR_SHOWN_FREE)
    ]
    assert {answer.status for answer in shown} == {200}
    beyond = [await worker.call("POST", path, headers=one.buyer()) for worker in (one, two)]
    assert all(held(answer, "TOO_MANY_REQUESTS", at_most_s=30) > 20 for answer in beyond)
    refused(await one.call("POST", path, headers=one.buyer("bob")), 404, "TICKET_NOT_FOUND")
    assert await one.qr(other["ticket_code"]), "each ticket for itself"
    scanned = await one.scan(shown[0].json["qr_token"], "bus")
    assert scanned.json["result"] == "success", "what was shown is good"


async def test_the_gateway_is_not_asked_about_one_order_as_often_as_its_buyer_likes(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "_INQUIRED", steady(INQUIRIES_FREE, 30))
    product = await road.product()
    orders = [(await road.order({product: 1})).json["order_id"] for _ in range(2)]
    path = f"/orders/{orders[0]}/query"
    for _ in range(3 * INQUIRIES_FREE):
        refused(await road.call("POST", path, headers=road.buyer("bob")), 404, "ORDER_NOT_FOUND")
    for _ in range(INQUIRIES_FREE):
        refused(await road.call("POST", path, headers=road.buyer()), 503, "GATEWAY_UNAVAILABLE")
    assert held(await road.call("POST", path, headers=road.buyer()), "TOO_MANY_REQUESTS", at_most_s=30) > 20
    another = await road.call("POST", f"/orders/{orders[1]}/query", headers=road.buyer())
    refused(another, 503, "GATEWAY_UNAVAILABLE")
    assert (await road.notify(orders[0], 1000)).status == 200
    for _ in range(2 * INQUIRIES_FREE):  # there is nothing to ask any more
        assert (await road.call("POST", path, headers=road.buyer())).json["status"] == "PAID"


# --- Gates --------------------------------------------------------------------------------------------------


async def test_a_gate_is_never_throttled_by_its_address_whatever_it_scans(road: Road) -> None:
    """A venue's gates, its staff and its visitors sit behind one address: here they all do."""
    product = await road.product({"bus": 300}, sellable=1_000)
    (ticket,) = await road.buy({product: 1})
    code, gate = ticket["ticket_code"], await road.gate()
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(LOGIN_TRIES_FREE + 3):  # the same address misbehaves in every other way
            await log_in(road, "gina")
            await road.call("POST", "/auth/guest/login")
        good = [road.sealed(code) for _ in range(250)]
        bad = [f"{token[:-6]}AAAAAA" for token in good]
        used = [good[0]] * 100
        answers = await asyncio.gather(*(road.scan(token, "bus") for token in (*good, *bad, *used)))
        told = Counter(answer.json.get("reason", "success") for answer in answers)
        assert {answer.status for answer in answers} == {200}
        assert told["QR_TAMPERED"] == 250
        assert told["success"] + told[None] == 250
        assert told["ALREADY_REDEEMED"] == 100
        async with wire(road.url) as line:
            for number in range(600):
                body = {"qr_token": "x" * 87, "function_code": "bus", "scan_id": uuid4().hex}
                kind = (
                    "application/json" + number % 2 * "; charset=utf-8"
                )  # by the lane, and the ordinary way
                await line.send(posted(body, gate, kind=kind))
                assert (await line.answer()).json["reason"] == "QR_MALFORMED"
        for _ in range(300):
            forged = await road.call("POST", "/venue/scan", json={}, headers={"Authorization": "Bearer x"})
            assert forged.status == 401
        upload = {"scans": [{"qr_token": "x", "function_code": "bus", "scanned_at": "2026-01-01T00:00:00Z"}]}
        for _ in range(100):
            assert (await road.call("POST", "/venue/scans", json=upload, headers=gate)).status == 200


# --- Enumeration --------------------------------------------------------------------------------------------


class Asked:
    """What each request asks of the databases."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_request: dict[str, list[str]] = {}
        for owner, method in (
            (Database, "connection"),
            (Database, "transaction"),
            (Redis, "execute_command"),
            (ScriptRunner, "run"),
        ):
            monkeypatch.setattr(
                owner, method, self._noting(getattr(owner, method), f"{owner.__name__}.{method}")
            )

    def _noting(self, ask: Any, what: str) -> Any:
        def noted(*arguments: Any, **named: Any) -> Any:
            request_id = structlog.contextvars.get_contextvars().get("request_id", "")
            self.by_request.setdefault(request_id, []).append(what)
            return ask(*arguments, **named)

        return noted


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/orders/{order}"),
        ("POST", "/orders/{order}/pay"),
        ("POST", "/orders/{order}/query"),
        ("POST", "/orders/{order}/cancel"),
        ("POST", "/qr/{code}"),
        ("GET", "/qr/{code}/info"),
    ],
)
async def test_someone_elses_order_or_ticket_costs_as_much_as_one_that_is_not_there(
    road: Road, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    """So that not even the time of the answer tells which of them exists."""
    product = await road.product()
    (ticket,) = await road.buy({product: 1}, buyer="bob")
    bobs = {
        "order": (await road.order({product: 1}, buyer="bob")).json["order_id"],
        "code": ticket["ticket_code"],
    }
    await road.flushed()
    unknown = {"order": f"{bobs['order'][:-6]}000000", "code": "0" * 16}
    asked = Asked(monkeypatch)
    cost = []
    for which in (bobs, unknown):
        request_id = uuid4().hex
        headers = {**road.buyer("ann"), "X-Request-Id": request_id}
        answer = await road.call(method, path.format(**which), headers=headers)
        refused(answer, 404, ("ORDER_NOT_FOUND", "TICKET_NOT_FOUND"))
        cost.append((asked.by_request[request_id], {**answer.json, "request_id": ""}))
    assert cost[0] == cost[1]
    assert cost[0][0], "something was asked"
