"""Every answer that is no success belongs to one of three kinds, whichever way its code is spelt."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.wechat.faults import (
    CODES,
    Rejected,
    Retryable,
    Unknown,
    WeChatError,
    fault_of,
    may_be_sent_again,
    outcome_of,
)

LABELS = CODES | {"OTHER", "UNVERIFIED", "NETWORK", "TIMEOUT"}
TABLE = [
    (400, "PARAM_ERROR", Rejected),
    (400, "INVALID_REQUEST", Rejected),
    (400, "APPID_MCHID_NOT_MATCH", Rejected),
    (400, "MCH_NOT_EXISTS", Rejected),
    (400, "ORDER_CLOSED", Rejected),
    (401, "SIGN_ERROR", Rejected),
    (403, "NO_AUTH", Rejected),
    (403, "OUT_TRADE_NO_USED", Rejected),
    (403, "RULE_LIMIT", Rejected),
    (403, "TRADE_ERROR", Rejected),
    (403, "ACCOUNT_ERROR", Rejected),
    (403, "NOT_ENOUGH", Rejected),
    (404, "ORDER_NOT_EXIST", Rejected),
    (429, "FREQUENCY_LIMITED", Retryable),
    (500, "SYSTEM_ERROR", Retryable),
    (500, "BANK_ERROR", Retryable),
    (500, "OPENID_MISMATCH", Rejected),
    (500, "INVALID_TRANSACTIONID", Rejected),
]


def body(code: object) -> bytes:
    return json.dumps({"code": code, "message": "为什么", "detail": {"field": "/amount"}}).encode()


@pytest.mark.parametrize(("status", "code", "kind"), TABLE)
@pytest.mark.parametrize("bare", [False, True])
def test_every_code_of_the_api_has_its_kind_in_either_spelling(
    status: int, code: str, kind: type[WeChatError], bare: bool
) -> None:
    spelt = code.replace("_", "") if bare else code

    fault = fault_of(status, body(spelt), verified=True)

    assert type(fault) is kind
    assert (fault.code, fault.status, outcome_of(fault)) == (code, status, code)
    assert may_be_sent_again(fault) is (kind is Retryable)


def test_the_table_has_every_code() -> None:
    assert {code for _, code, _ in TABLE} == CODES


@pytest.mark.parametrize(("status", "code", "kind"), TABLE)
def test_without_a_signature_only_the_edge_is_believed(
    status: int, code: str, kind: type[WeChatError]
) -> None:
    fault = fault_of(status, body(code), verified=False)

    if status in (401, 429, 500):
        assert type(fault) is kind
    else:
        assert (type(fault), fault.code) == (Unknown, "UNVERIFIED")


@pytest.mark.parametrize("status", [400, 403, 429])
@pytest.mark.parametrize("code", ["SYSTEM_ERROR", "BANK_ERROR", "FREQUENCY_LIMITED"])
def test_what_may_be_repeated_may_be_so_under_any_status(status: int, code: str) -> None:
    assert type(fault_of(status, body(code), verified=True)) is Retryable


@pytest.mark.parametrize(
    "raw", [None, b"", b"<html>", b"\xff", b"{}", b"[]", body(7), body(None), body("X" * 65)]
)
@pytest.mark.parametrize("verified", [True, False])
def test_an_answer_without_a_code_is_judged_by_its_status(raw: bytes | None, verified: bool) -> None:
    for status in (429, 500, 502, 503, 504):
        fault = fault_of(status, raw, verified=verified)
        assert (type(fault), fault.code) == (Retryable, "OTHER")
    for status in (400, 401, 403, 404, 302):
        assert type(fault_of(status, raw, verified=verified)) is Unknown


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize("code", ["ORDER_NOT_EXIST", "ORDER_CLOSED", "PARAM_ERROR", "NEW_CODE"])
def test_a_server_that_fails_says_no_final_no(status: int, code: str) -> None:
    assert type(fault_of(status, body(code), verified=False)) is Retryable


@given(
    status=st.integers(300, 599),
    raw=st.one_of(st.none(), st.binary(max_size=50), st.text(max_size=80).map(body)),
    verified=st.booleans(),
)
def test_whatever_comes_its_label_is_one_of_a_few_and_it_says_nothing_of_the_body(
    status: int, raw: bytes | None, verified: bool
) -> None:
    fault = fault_of(status, raw, verified=verified)

    assert outcome_of(fault) in LABELS
    assert str(fault) == f"{fault.code} ({status})"
    assert len(fault.code) <= 64 and fault.code.isascii() and fault.code.upper() == fault.code


@pytest.mark.parametrize("code", ["BRAND_NEW", "X", "NETWORK", "TIMEOUT", "UNVERIFIED", "OTHER"])
def test_a_code_that_is_not_known_yet_is_a_no_that_can_be_read_whatever_it_is_called(code: str) -> None:
    fault = fault_of(400, body(code), verified=True)

    assert (type(fault), fault.code, outcome_of(fault)) == (Rejected, code, "OTHER")
    assert not may_be_sent_again(fault)


@pytest.mark.parametrize("code", ["NETWORK", "TIMEOUT"])
def test_what_was_not_answered_may_be_sent_again(code: str) -> None:
    assert may_be_sent_again(Unknown(code, 0))
    assert outcome_of(Unknown(code, 0)) == code


@pytest.mark.parametrize("code", ["UNVERIFIED", "UNREADABLE"])
def test_what_was_answered_and_is_not_believed_is_not_sent_again(code: str) -> None:
    assert not may_be_sent_again(Unknown(code, 200))
