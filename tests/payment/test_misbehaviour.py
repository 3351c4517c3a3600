"""500 orders while WeChat misbehaves in every way at once: whoever paid has tickets, or gets the money back.

Another run: `MARKET_SEEDS=2,3,4 pytest tests/payment/test_misbehaviour.py`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest

from server.dev.wechat_calls import CallFault
from tests.payment.ledger import Books, disagreements
from tests.payment.market import ORDERS
from tests.payment.market_day import Day

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
