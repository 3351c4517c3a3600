"""500 orders while WeChat misbehaves in every way at once: whoever paid has tickets, or gets the money back.

And no secret, key, openid or signature of that day, on which all failed that can, is in any log, error or metric.

Another run: `MARKET_SEEDS=2,3,4 pytest tests/payment/test_misbehaviour.py`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from server.dev.wechat_calls import CallFault
from tests.payment.ledger import Books, disagreements
from tests.payment.market import ORDERS
from tests.payment.market_day import Day
from tests.payment.needles import found

pytestmark = pytest.mark.timeout(300)  # the day is a minute long, and part of whichever test is the first


def test_what_was_paid_at_wechat_has_tickets_here_or_is_to_be_refunded_with_an_alert(
    market_day: Day, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\n{market_day.summary()}")  # noqa: T201
    assert disagreements(market_day.books) == []
    assert len(market_day.books.orders) == len(set(market_day.order_ids)) == ORDERS


def test_nobody_paid_twice(market_day: Day) -> None:
    assert market_day.books.paid_twice == {}
    applied = Counter(row["order_id"] for row in market_day.books.payments if row["status"] == "APPLIED")
    assert set(applied.values()) == {1}


def test_the_check_is_clean(market_day: Day) -> None:
    status, report = market_day.check
    assert status == 0, report


def test_no_notification_that_is_not_wechats_was_taken(market_day: Day) -> None:
    assert market_day.wrong_ones_taken == []


def test_buyers_are_told_nothing_worse_than_to_try_again(market_day: Day) -> None:
    legal = {"503 GATEWAY_UNAVAILABLE", "409 PAYMENT_SUPERSEDED", "409 ORDER_NOT_PAYABLE"}
    legal |= {"409 ORDER_NOT_CANCELLABLE", "503 NOT_RECORDED_YET", "503 POSTGRES_UNAVAILABLE"}
    assert market_day.told.keys() <= legal
    assert market_day.tally["gave up after 503"] <= ORDERS / 100
    assert not [event for event in market_day.events if event["event"] in ("request_failed", "job_failed")]


def test_the_day_was_as_bad_as_it_should_be(market_day: Day) -> None:
    faults = Counter(call.fault for call in market_day.calls)
    everything = [CallFault.HANG, CallFault.FAIL_BEFORE, CallFault.FAIL_AFTER, CallFault.LIMITED]
    assert min(faults[fault] for fault in (*everything, CallFault.BAD_SIGNATURE)) > 10, faults
    assert len(market_day.calls) > 3 * ORDERS
    statuses = Counter(row["status"] for row in market_day.books.orders.values())
    assert statuses["PAID"] > ORDERS / 2
    assert statuses["REFUND_REQUIRED"] > 10 and statuses["EXPIRED"] > 10 and statuses["CANCELLED"] > 0, (
        statuses
    )
    assert len(market_day.books.theirs) > ORDERS * 1.2  # switched
    assert market_day.exits == [0, 0, 0]


# --- the judge is no rubber stamp -----------------------------------------------------------------------------


def _first(rows: Any, **wanted: Any) -> dict[str, Any]:
    found = rows.values() if hasattr(rows, "values") else rows
    row: dict[str, Any] = next(
        row for row in found if all(row[name] == value for name, value in wanted.items())
    )
    return row


def _without_tickets(books: Books) -> None:
    _first(books.orders, status="PAID")["tickets"] = 0


def _with_tickets(books: Books) -> None:
    _first(books.orders, status="CANCELLED")["tickets"] = 1


def _unheard(books: Books) -> None:
    books.payments.remove(_first(books.payments, status="APPLIED"))  # type: ignore[attr-defined]


def _applied_twice(books: Books) -> None:
    _first(books.payments, status="REFUND_REQUIRED")["status"] = "APPLIED"


def _another_amount(books: Books) -> None:
    _first(books.payments, status="APPLIED")["amount_fen"] += 1


def _silent(books: Books) -> None:
    books.alerts.clear()  # type: ignore[attr-defined]


def _still_waiting(books: Books) -> None:
    _first(books.orders, status="EXPIRED")["status"] = "PENDING_PAYMENT"


def _live(books: Books) -> None:
    _first(books.attempts, phase="CLOSED")["phase"] = "OPEN"


def _other_bytes(books: Books) -> None:
    next(iter(books.posted.values())).add(b"others")


def _paid_by_nobody(books: Books) -> None:
    _first(books.payments, status="APPLIED")["gateway_txn_id"] = "made up"


@pytest.mark.parametrize(
    "tamper",
    [
        *(_without_tickets, _with_tickets, _unheard, _applied_twice, _another_amount),
        *(_silent, _still_waiting, _live, _other_bytes, _paid_by_nobody),
    ],
)
def test_books_that_do_not_agree_are_found_out(tamper: Callable[[Books], None], market_day: Day) -> None:
    books = market_day.books
    copy = Books(
        orders={name: dict(row) for name, row in books.orders.items()},
        payments=[dict(row) for row in books.payments],
        attempts={name: dict(row) for name, row in books.attempts.items()},
        theirs=MappingProxyType(books.theirs),
        posted={number: set(requests) for number, requests in books.posted.items()},
        alerts=list(books.alerts),
    )
    tamper(copy)
    assert disagreements(copy)


def test_money_taken_twice_is_counted(market_day: Day) -> None:
    books = market_day.books
    paid, other = list(books.taken.values())[:2]
    theirs = dict(books.theirs)
    theirs[other] = dataclasses.replace(theirs[other], attach=theirs[paid].attach)
    assert theirs[paid].attach in dataclasses.replace(books, theirs=theirs).paid_twice


# --- no secret is told ----------------------------------------------------------------------------------------


def test_no_log_line_of_any_process_holds_a_secret(market_day: Day) -> None:
    assert set(market_day.logs) == {"work", "serve-1", "serve-2"}
    for name, log in market_day.logs.items():
        assert len(log.splitlines()) > 100
        leaks = found(log, market_day.needles)
        assert not leaks, name


def test_no_error_that_a_client_or_wechat_was_told_holds_a_secret(market_day: Day) -> None:
    assert len(market_day.errors) > 100
    leaks = found("\n".join(market_day.errors), market_day.needles)
    assert not leaks


def test_no_metric_holds_a_secret(market_day: Day) -> None:
    assert market_day.metrics.count("\ngateline_") > 100
    leaks = found(market_day.metrics, market_day.needles)
    assert not leaks


def test_what_is_looked_for_is_all_there_is(market_day: Day) -> None:
    least = {
        **dict.fromkeys(
            ("API_V3_KEY", "MINIPROGRAM_SECRET", "SECRET", "JWT_KEYS", "QR_KEYS", "GATEWAY_SECRETS"), 1
        ),
        "MCH_KEY": 24,
        **dict.fromkeys(("openid", "unionid", "session_key", "token"), 40),
        **dict.fromkeys(("code", "access_token", "refresh_token"), 40),
        **dict.fromkeys(("prepay_id", "code_url", "h5_url", "package", "codeUrl", "h5Url", "launch"), 100),
        **dict.fromkeys(("paySign", "signature of WeChat", "signature of ours", "ciphertext"), 500),
        "words": 10,
    }
    numbers = {kind: len(pieces) for kind, pieces in market_day.needles.items()}
    assert numbers.keys() == least.keys()
    assert not {kind: numbers[kind] for kind in least if numbers[kind] < least[kind]}
    assert all(len(piece) >= 6 for pieces in market_day.needles.values() for piece in pieces)


def test_one_that_is_planted_is_found(market_day: Day) -> None:
    log = market_day.logs["serve-1"]
    middle = len(log) // 2
    for kind, pieces in market_day.needles.items():
        for piece in sorted(pieces)[:3]:
            assert (kind, piece) in found(f"{log[:middle]}x{piece}x{log[middle:]}", {kind: pieces})


def test_everything_that_brings_secrets_along_did_happen(market_day: Day) -> None:
    events = [msgspec.json.decode(line) for log in market_day.logs.values() for line in log.splitlines()]
    happened = Counter(event["event"] for event in events)
    assert happened["request_failed"] == 3 and happened["job_failed"] >= 1 and happened["not_http"] == 4
    assert happened["wechat_login_failed"] > 20 and happened["wechat_answer_not_verified"] > 20
    assert sum("exception" in event for event in events) >= 4
    failed = {event["code"] for event in events if event["event"] == "wechat_call_failed"}
    assert {"NETWORK", "TIMEOUT", "UNVERIFIED", "UNREADABLE", "OTHER", "PARAM_ERROR"} <= failed
    alerts = {event["alert"] for event in events if event["event"] == "alert"}
    assert alerts >= {
        *("REFUND_REQUIRED", "PAYMENT_REJECTED", "PAYMENT_AMOUNT_MISMATCH", "PAYMENT_PAYEE_MISMATCH"),
        *("PAYMENT_FOR_UNKNOWN_ORDER", "WECHAT_NOTIFICATION_UNREADABLE", "WECHAT_LOGIN_MISCONFIGURED"),
        "JOB_FAILED",
    }
