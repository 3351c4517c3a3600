"""The rules of the simulated WeChat: what it refuses, by which status and code, and how long anything pays."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.dev import wechat_book
from server.dev.wechat_book import Book, Order, PayFault, TradeState
from server.dev.wechat_keys import WeChatKeys
from server.dev.wechat_people import People
from server.dev.wechat_rules import H5, JSAPI, NATIVE, Refusal
from tests.dev.wechat_scene import asked as parameters

NOW = 1_800_000_000.0
NOTIFY = "https://tickets.example/payments/wechat/notify"


@pytest.fixture
def people(keys: WeChatKeys) -> People:
    return People(keys.salt)


@pytest.fixture
def book(keys: WeChatKeys, people: People) -> Book:
    return Book(keys, people)


@pytest.fixture
def asked(keys: WeChatKeys, people: People) -> Callable[..., dict[str, Any]]:
    """Good parameters with changes."""
    openid = people.openid("ann", keys.miniprogram_appid)
    return lambda **changes: parameters(keys, NOTIFY, openid, **changes)


def at(seconds: float) -> str:
    """A moment after NOW, as time_expire spells it."""
    return (datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=seconds)).isoformat()


PARAM = (400, "PARAM_ERROR")
REFUSED: list[tuple[str, str, dict[str, Any], tuple[int, str]]] = [
    ("no description", JSAPI, {"description": None}, PARAM),
    ("an empty description", JSAPI, {"description": ""}, PARAM),
    ("a description of 128 bytes in 43 characters", JSAPI, {"description": "票" * 42 + "ab"}, PARAM),
    ("an attach of 129 bytes", JSAPI, {"attach": "a" * 129}, PARAM),
    ("a number of five", JSAPI, {"out_trade_no": "abcde"}, PARAM),
    ("a number of 33", JSAPI, {"out_trade_no": "a" * 33}, PARAM),
    ("a number with a space", JSAPI, {"out_trade_no": "abc def"}, PARAM),
    ("a number with a newline", JSAPI, {"out_trade_no": "abcdef\n"}, PARAM),
    ("an appid that is no text", JSAPI, {"appid": 7}, PARAM),
    ("no amount", JSAPI, {"amount": None}, PARAM),
    ("nothing to pay", JSAPI, {"amount": {"total": 0}}, PARAM),
    ("a negative amount", JSAPI, {"amount": {"total": -1}}, PARAM),
    ("an amount with a point", JSAPI, {"amount": {"total": 12.0}}, PARAM),
    ("an amount in quotes", JSAPI, {"amount": {"total": "12"}}, PARAM),
    ("an amount of true", JSAPI, {"amount": {"total": True}}, PARAM),
    ("dollars", JSAPI, {"amount": {"total": 12, "currency": "USD"}}, PARAM),
    ("plain http to a host elsewhere", JSAPI, {"notify_url": "http://tickets.example/n"}, PARAM),
    ("a notify_url with a query", JSAPI, {"notify_url": NOTIFY + "?order=7"}, PARAM),
    ("a notify_url with a fragment", JSAPI, {"notify_url": NOTIFY + "#7"}, PARAM),
    ("a notify_url of 256", JSAPI, {"notify_url": NOTIFY.ljust(256, "y")}, PARAM),
    ("a notify_url that is none", JSAPI, {"notify_url": "https://[::1/n"}, PARAM),
    ("a time_expire of now", JSAPI, {"time_expire": at(0)}, PARAM),
    ("a time_expire without offset", JSAPI, {"time_expire": "2099-01-01T00:00:00"}, PARAM),
    ("a time_expire of no day", JSAPI, {"time_expire": "2099-02-30T00:00:00Z"}, PARAM),
    ("no payer", JSAPI, {"payer": None}, PARAM),
    ("an empty openid", JSAPI, {"payer": {"openid": ""}}, PARAM),
    ("somebody's openid nobody has", JSAPI, {"payer": {"openid": "o" + "x" * 27}}, PARAM),
    ("no scene", H5, {"scene_info": None}, PARAM),
    ("a client address that is none", H5, {"scene_info": {"payer_client_ip": "here"}}, PARAM),
    (
        "an H5 scene without its type",
        H5,
        {"scene_info": {"payer_client_ip": "203.0.113.7"}},
        PARAM,
    ),
    (
        "an H5 scene of no known type",
        H5,
        {"scene_info": {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Web"}}},
        PARAM,
    ),
    ("a strange appid", NATIVE, {"appid": "wx0000000000000000"}, (400, "APPID_MCHID_NOT_MATCH")),
    ("a strange merchant", NATIVE, {"mchid": "1900000000"}, (400, "MCH_NOT_EXISTS")),
]


@pytest.mark.parametrize(
    ("trade_type", "changes", "expected"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_parameters_that_wechat_refuses_make_no_order(
    book: Book,
    asked: Callable[..., dict[str, Any]],
    trade_type: str,
    changes: dict[str, Any],
    expected: tuple[int, str],
) -> None:
    refusal = book.create(trade_type, asked(**changes), NOW)

    assert isinstance(refusal, Refusal)
    assert refusal[:2] == expected
    assert book.orders == {}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"description": "票" * 42 + "a", "attach": "a" * 128},
        {"out_trade_no": "aB3_-|*"},
        {"notify_url": "http://127.0.0.1:8080/payments/wechat/notify"},
        {"notify_url": NOTIFY.ljust(255, "y")},
        {"amount": {"total": 1}},
        {"time_expire": at(1)},
        {"time_expire": "2099-01-01T00:00:00.5+08:00"},
    ],
    ids=str,
)
@pytest.mark.parametrize("trade_type", [JSAPI, NATIVE, H5])
def test_parameters_at_the_edge_of_what_is_legal_are_taken(
    book: Book, asked: Callable[..., dict[str, Any]], trade_type: str, changes: dict[str, Any]
) -> None:
    assert isinstance(book.create(trade_type, asked(**changes), NOW), str)


def test_an_openid_is_good_for_its_own_app_alone(
    book: Book, asked: Callable[..., dict[str, Any]], keys: WeChatKeys, people: People
) -> None:
    browser = people.openid("ann", keys.appid)

    assert book.create(JSAPI, asked(payer={"openid": browser}), NOW) == wechat_book.NOT_OPENID
    assert isinstance(book.create(JSAPI, asked(appid=keys.appid, payer={"openid": browser}), NOW), str)
    assert people.openid("bob", keys.appid) != browser
    assert people.unionid("ann") != people.unionid("bob")


def test_people_are_known_again_after_a_restart(keys: WeChatKeys) -> None:
    openid = People(keys.salt).openid("ann", keys.appid)

    assert People(keys.salt).openid("ann", keys.appid) == openid
    assert People(keys.salt).knows(openid, keys.appid)
    assert not People(b"another WeChat").knows(openid, keys.appid)
    assert len(openid) == 28


CHANGES: list[dict[str, Any]] = [
    {"description": "Another"},
    {"amount": {"total": 99, "currency": "CNY"}},
    {"notify_url": NOTIFY + "/other"},
    {"attach": "order 8"},
    {"time_expire": at(60)},
    {"scene_info": {"payer_client_ip": "203.0.113.8", "h5_info": {"type": "Wap"}}},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: next(iter(changes)))
def test_other_parameters_under_a_used_number_are_refused(
    book: Book, asked: Callable[..., dict[str, Any]], changes: dict[str, Any]
) -> None:
    first = asked()
    book.create(JSAPI, first, NOW)

    assert book.create(JSAPI, first | changes, NOW) == wechat_book.USED
    assert wechat_book.USED[:2] == (403, "OUT_TRADE_NO_USED")
    assert book.orders[first["out_trade_no"]].asked == first


def test_another_trade_type_under_a_used_number_is_refused(
    book: Book, asked: Callable[..., dict[str, Any]]
) -> None:
    first = asked()
    book.create(JSAPI, first, NOW)

    assert book.create(NATIVE, first, NOW) == wechat_book.USED


def test_the_same_parameters_again_give_a_fresh_prepay_id_and_either_pays_once(
    book: Book, asked: Callable[..., dict[str, Any]]
) -> None:
    first = asked()
    openid = first["payer"]["openid"]
    old, new = (str(book.create(JSAPI, dict(first), NOW)) for _ in range(2))

    assert old != new
    paid = book.pay(old, openid, NOW)
    assert isinstance(paid, Order)
    assert book.pay(new, openid, NOW) is PayFault.PAID
    assert book.pay(old, openid, NOW) is PayFault.PAID
    assert book.create(JSAPI, first, NOW) == wechat_book.PAID
    assert len(book.orders) == 1


@pytest.mark.parametrize(("trade_type", "life_s"), [(JSAPI, 7200), (NATIVE, 7200), (H5, 300)])
def test_what_it_is_paid_with_outlives_its_time_by_nothing(
    book: Book, asked: Callable[..., dict[str, Any]], trade_type: str, life_s: int
) -> None:
    first = asked()
    openid = first["payer"]["openid"]
    ticket = str(book.create(trade_type, first, NOW))

    assert book.pay(ticket, openid, NOW + life_s) is PayFault.STALE
    assert isinstance(book.pay(ticket, openid, NOW + life_s - 0.1), Order)


def test_time_expire_stops_payment_and_closes_nothing(
    book: Book, asked: Callable[..., dict[str, Any]], keys: WeChatKeys
) -> None:
    first = asked(time_expire=at(60))
    ticket = str(book.create(NATIVE, first, NOW))

    assert book.pay(ticket, "o", NOW + 60) is PayFault.EXPIRED
    order = book.query(keys.mchid, first["out_trade_no"])
    assert isinstance(order, Order)
    assert order.state is TradeState.NOTPAY
    assert isinstance(book.close(keys.mchid, first["out_trade_no"]), Order)


def test_only_whom_the_order_was_made_for_pays_it(
    book: Book, asked: Callable[..., dict[str, Any]], keys: WeChatKeys, people: People
) -> None:
    ticket = str(book.create(JSAPI, asked(), NOW))

    assert book.pay(ticket, people.openid("bob", keys.miniprogram_appid), NOW) is PayFault.NOT_PAYER
    assert isinstance(book.pay(ticket, people.openid("ann", keys.miniprogram_appid), NOW), Order)
    assert book.pay("nothing", "o", NOW) is PayFault.NO_SUCH


def test_a_closed_order_is_not_paid_not_made_again_and_not_closed_twice(
    book: Book, asked: Callable[..., dict[str, Any]], keys: WeChatKeys
) -> None:
    first = asked()
    ticket = str(book.create(JSAPI, first, NOW))
    assert isinstance(book.close(keys.mchid, first["out_trade_no"]), Order)

    assert book.pay(ticket, first["payer"]["openid"], NOW) is PayFault.CLOSED
    assert book.create(JSAPI, first, NOW) == wechat_book.CLOSED
    assert book.close(keys.mchid, first["out_trade_no"]) == wechat_book.CLOSED
    assert wechat_book.CLOSED[:2] == (400, "ORDER_CLOSED")


def test_a_paid_order_is_not_closed_and_an_unknown_one_is_not_there(
    book: Book, asked: Callable[..., dict[str, Any]], keys: WeChatKeys
) -> None:
    first = asked()
    book.pay(str(book.create(NATIVE, first, NOW)), "o", NOW)

    assert book.close(keys.mchid, first["out_trade_no"]) == wechat_book.PAID
    assert book.orders[first["out_trade_no"]].state is TradeState.SUCCESS
    assert book.close(keys.mchid, "unknown") == wechat_book.UNKNOWN
    assert book.query(keys.mchid, "unknown") == wechat_book.UNKNOWN
    assert book.query("1900000000", first["out_trade_no"]) == wechat_book.NOT_MERCHANT
    assert wechat_book.UNKNOWN[:2] == (404, "ORDER_NOT_EXIST")


def test_a_refund_is_told_and_leaves_nothing_to_pay(book: Book, asked: Callable[..., dict[str, Any]]) -> None:
    first = asked()
    ticket = str(book.create(NATIVE, first, NOW))

    assert not book.refund(first["out_trade_no"])
    book.pay(ticket, "o", NOW)
    assert book.refund(first["out_trade_no"])
    assert not book.refund(first["out_trade_no"])
    assert book.orders[first["out_trade_no"]].transaction()["trade_state"] == "REFUND"
    assert book.pay(ticket, "o", NOW) is PayFault.PAID


def test_a_transaction_is_told_as_the_documentation_has_it(
    book: Book, asked: Callable[..., dict[str, Any]], keys: WeChatKeys
) -> None:
    first = asked(attach="order 7")
    ticket = str(book.create(JSAPI, first, NOW))
    before = book.orders[first["out_trade_no"]].transaction()
    book.pay(ticket, first["payer"]["openid"], NOW)
    after = book.orders[first["out_trade_no"]].transaction()

    assert (before["trade_state"], before["attach"]) == ("NOTPAY", "order 7")
    assert not before.keys() & {"transaction_id", "payer", "success_time", "trade_type"}
    assert "payer_total" not in before["amount"]
    assert after == before | {
        "trade_state": "SUCCESS",
        "trade_state_desc": "支付成功",
        "transaction_id": after["transaction_id"],
        "trade_type": "JSAPI",
        "bank_type": "OTHERS",
        "success_time": "2027-01-15T16:00:00+08:00",
        "payer": {"openid": first["payer"]["openid"]},
        "amount": {"total": 1234, "payer_total": 1234, "currency": "CNY", "payer_currency": "CNY"},
    }
    assert len(after["transaction_id"]) == 28
    assert after["transaction_id"].isdigit()


def test_transaction_ids_are_never_the_same(
    book: Book, asked: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wechat_book.secrets, "randbelow", lambda _: 0)
    paid = [book.pay(str(book.create(NATIVE, asked(), NOW)), "o", NOW) for _ in range(50)]

    assert len({each.transaction_id for each in paid if isinstance(each, Order)}) == 50


def test_the_book_forgets_its_oldest_orders_and_an_orders_oldest_prepay_ids(
    book: Book, asked: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wechat_book, "CASHIER_SESSIONS_MAX", 2)
    first = asked()
    oldest = str(book.create(NATIVE, first, NOW))
    for _ in range(wechat_book._TICKETS_MAX):
        book.create(NATIVE, first, NOW)
    assert book.payable(oldest, NOW) is PayFault.NO_SUCH

    for _ in range(2):
        book.create(NATIVE, asked(), NOW)

    assert first["out_trade_no"] not in book.orders
    assert (len(book.orders), len(book._tickets)) == (2, 2)
