"""Notifications: what WeChat sealed is opened and read, and nothing that was changed or is another thing."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wechatpayv3.utils import aes_decrypt

from server.wechat import sealed
from server.wechat.sealed import (
    Amount,
    Envelope,
    Resource,
    TradeState,
    Transaction,
    TransactionPayer,
    Unreadable,
    read_transaction,
    unseal,
)
from tests.wechat.merchant import (
    API_V3_KEY,
    APPID,
    MCHID,
    NUMBER,
    OPENID,
    PAID_AT,
    notification,
    seal,
    transaction,
)

PLAIN = json.dumps(transaction()).encode()


def resource(**changes: Any) -> Resource:
    return Resource(**(seal(PLAIN) | changes))


# --- Opening ------------------------------------------------------------------------------------------------


def opened(raw: bytes) -> Transaction | None:
    """What a notification tells of, from its bytes."""
    return sealed.open_notification(msgspec.json.decode(raw, type=Envelope), API_V3_KEY)


def test_a_notification_is_opened_to_what_it_says() -> None:
    assert opened(notification()) == Transaction(
        appid=APPID,
        mchid=MCHID,
        out_trade_no=NUMBER,
        transaction_id="1217752501201407033233368018",
        trade_type="JSAPI",
        trade_state=TradeState.SUCCESS,
        success_time=PAID_AT,
        payer=TransactionPayer(openid=OPENID),
        amount=Amount(total=2900, currency="CNY"),
    )


@pytest.mark.parametrize("aad", ["transaction", "", "票"])
def test_the_independent_client_opens_the_same(aad: str) -> None:
    sealed = seal(PLAIN, aad=aad)

    theirs = aes_decrypt(sealed["nonce"], sealed["ciphertext"], aad, API_V3_KEY.decode())

    assert unseal(API_V3_KEY, Resource(**sealed)) == theirs.encode() == PLAIN


def test_associated_data_may_be_absent() -> None:
    sealed = seal(PLAIN, aad="")
    del sealed["associated_data"]

    assert unseal(API_V3_KEY, Resource(**sealed)) == PLAIN


@given(place=st.integers(0, len(PLAIN) + 15), bit=st.integers(0, 7))
def test_a_ciphertext_changed_by_one_bit_does_not_open(place: int, bit: int) -> None:
    changed = bytearray(base64.b64decode(seal(PLAIN)["ciphertext"]))
    changed[place] ^= 1 << bit

    with pytest.raises(Unreadable):
        unseal(API_V3_KEY, resource(ciphertext=base64.b64encode(changed).decode()))


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "AEAD_SM4_GCM"},
        {"algorithm": "aead_aes_256_gcm"},
        {"nonce": "fdasfjihihi"},
        {"nonce": "fdasfjihihihi"},
        {"nonce": "fdasfjihihiI"},
        {"nonce": ""},
        pytest.param(seal(PLAIN, nonce="fdasfjihihi"), id="sealed with 11 bytes"),
        pytest.param(seal(PLAIN, nonce="fdasfjihihihi"), id="sealed with 13 bytes"),
        {"nonce": "fdasfjihihi票"},
        {"associated_data": "Transaction"},
        {"associated_data": ""},
        {"associated_data": None},
        {"ciphertext": ""},
        {"ciphertext": "AAAA"},
        {"ciphertext": "not base64"},
        {"ciphertext": seal(PLAIN)["ciphertext"] + "\n"},
        {"ciphertext": "票"},
    ],
    ids=str,
)
def test_what_does_not_fit_is_unreadable(change: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        unseal(API_V3_KEY, resource(**change))


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(Unreadable):
        unseal(API_V3_KEY[::-1], resource())


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_a_key_of_another_length_is_our_own_mistake_and_not_the_notifications(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        unseal(b"k" * length, resource())


# --- Events -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["REFUND.SUCCESS", "TRANSACTION.PAYSCORE", ""])
def test_an_event_of_another_kind_is_not_ours_to_settle(event: str) -> None:
    sealed = seal(b"something else") | {"original_type": "refund"}
    assert opened(notification(event_type=event, resource=sealed)) is None


@pytest.mark.parametrize(
    "raw",
    [
        b'{"event_type":"TRANSACTION.SUCCESS"}',
        b'{"event_type":"TRANSACTION.SUCCESS","id":"x","resource":null}',
        notification(event_type=7),
        notification(event_type="x" * 65),
        notification(id=7),
        notification(resource=seal(PLAIN) | {"nonce": 7}),
        notification(resource=seal(PLAIN) | {"ciphertext": None}),
    ],
)
def test_an_envelope_has_what_opening_it_takes(raw: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        opened(raw)


@pytest.mark.parametrize(
    "raw",
    [
        notification(resource=seal(PLAIN) | {"original_type": "refund"}),
        notification(resource=seal(b"")),
        notification(resource=seal(b"\xff")),
        notification(resource=seal(b'{"a":' + b"[" * 10_000)),
    ],
    ids=range(4),
)
def test_what_cannot_be_read_is_said_so_without_a_word_of_it(raw: bytes) -> None:
    with pytest.raises(Unreadable) as fault:
        opened(raw)

    assert len(str(fault.value)) < 60
    assert fault.value.__suppress_context__ or fault.value.__context__ is None


def test_a_probe_of_an_unknown_shape_tells_nothing_of_what_was_inside() -> None:
    secret = transaction(trade_state="oUpF8uMuAJO_secret")
    with pytest.raises(Unreadable) as fault:
        opened(notification(told=secret))

    assert "oUpF8" not in str(fault.value)


# --- Transactions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"appid": None},
        {"mchid": None},
        {"out_trade_no": None},
        {"transaction_id": None},
        {"transaction_id": ""},
        {"trade_state": None},
        {"success_time": None},
        {"amount": None},
        {"amount": {}},
        {"amount": {"currency": "CNY"}},
        {"amount": {"total": "2900"}},
        {"amount": {"total": 2900.5}},
        {"amount": {"total": 2900.0}},
        {"amount": {"total": True}},
        {"amount": {"total": -1}},
        {"amount": {"total": 10**12}},
        {"amount": {"total": 2900, "currency": "cny"}},
        {"amount": {"total": 2900, "currency": ""}},
        {"amount": {"total": 2900, "currency": 7}},
        {"trade_state": "PAID"},
        {"trade_state": "success"},
        {"success_time": "2026-12-01T10:34:56"},
        {"success_time": "1764556496"},
        {"success_time": 1764556496},
        {"success_time": "0001-01-01T00:00:00+08:00"},
        {"success_time": "9999-12-31T23:59:59-08:00"},
        {"out_trade_no": "x" * 33},
        {"out_trade_no": "a\n"},
        {"out_trade_no": "票"},
        {"transaction_id": "x" * 33},
        {"transaction_id": 1217752501201407033},
        {"mchid": "1" * 33},
        {"mchid": ""},
        {"appid": ""},
        {"appid": "x" * 33},
        {"payer": {"openid": "o" * 129}},
        {"payer": "somebody"},
    ],
    ids=str,
)
@pytest.mark.parametrize("state", ["SUCCESS", "REFUND"])
def test_a_paid_transaction_must_say_all_that_settlement_looks_at(change: dict[str, Any], state: str) -> None:
    read_transaction(json.dumps(transaction(trade_state=state)).encode())

    with pytest.raises(Unreadable):
        read_transaction(json.dumps(transaction(**{"trade_state": state, **change})).encode())


@pytest.mark.parametrize("state", ["NOTPAY", "CLOSED", "REVOKED", "USERPAYING", "PAYERROR"])
@pytest.mark.parametrize("payer", [None, {}, {"openid": OPENID}])
@pytest.mark.parametrize("amount", [None, {"total": 2900, "payer_currency": "CNY"}])
def test_an_unpaid_transaction_says_little(state: str, payer: Any, amount: Any) -> None:
    said = {"mchid": MCHID, "out_trade_no": NUMBER, "trade_state": state, "promotion_detail": []}
    said |= {name: value for name, value in (("payer", payer), ("amount", amount)) if value is not None}

    read = read_transaction(json.dumps(said).encode())

    assert read.trade_state == state
    assert (read.transaction_id, read.success_time) == ("", None)


def test_a_currency_that_is_not_named_is_the_yuan() -> None:
    read = read_transaction(json.dumps(transaction(amount={"total": 1})).encode())

    assert read.amount == Amount(total=1, currency="CNY")


@pytest.mark.parametrize("currency", ["USD", "HKD"])
def test_another_currency_is_read_for_settlement_to_refuse(currency: str) -> None:
    read = read_transaction(json.dumps(transaction(amount={"total": 1, "currency": currency})).encode())

    assert read.amount == Amount(total=1, currency=currency)


@given(st.binary(max_size=300))
def test_no_bytes_at_all_raise_anything_else(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        read_transaction(raw)


def test_a_transaction_that_is_printed_shows_no_openid() -> None:
    read = read_transaction(PLAIN)

    assert read.payer is not None and read.payer.openid == OPENID
    assert OPENID not in f"{read} {read!r} {read.payer}"
    assert msgspec.json.decode(msgspec.json.encode(read))["payer"] == {"openid": OPENID}
