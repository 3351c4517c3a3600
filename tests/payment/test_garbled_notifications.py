"""Notifications of both gateways, garbled: nothing holds that was not signed, and nothing makes a reader fail.

That one changed bit of a body or of a ciphertext is seen is tested in `tests/wechat`; here it is the headers, and what
was truly signed and sealed but says anything at all.
"""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.errors import ErrorCode, Refusal
from server.hosted import signing
from server.hosted.gateway import Notification
from server.limits import WEBHOOK_SKEW_S_MAX
from server.web.body import decode
from server.wechat.sealed import Envelope, Transaction, Unreadable, open_notification
from server.wechat.signing import Verified
from tests.wechat.merchant import (
    API_V3_KEY,
    NOW_S,
    PUBLIC_KEY_ID,
    notification,
    seal,
    signed,
    transaction,
    verifier,
)

QUICK = settings(deadline=None, database=None, max_examples=300)
SECRETS = (b"n" * 32, b"o" * 32)
RAW = b'{"order_id":"1"}'
TEXT = st.text(st.characters(), max_size=20) | st.sampled_from(
    [
        "",
        "v1=",
        "v1=" + "0" * 64,
        "٣",
        "-1",
        "1e9",
        "9" * 12,
        "9" * 400,
        "\ud800",
        "\x00",
        "A" * 344,
        "=" * 344,
    ]
)


# --- The generic gateway -------------------------------------------------------------------------------------


@QUICK
@given(
    at_s=st.integers(NOW_S - 400, NOW_S + 400),
    secret=st.sampled_from([*SECRETS, b"x" * 32]),
    sent=st.binary(max_size=40) | st.just(RAW),
)
def test_a_notification_holds_when_one_of_our_secrets_signed_these_bytes_lately(
    at_s: int, secret: bytes, sent: bytes
) -> None:
    headers = signing.headers([secret], RAW, at_s)
    lately = abs(at_s - NOW_S) <= WEBHOOK_SKEW_S_MAX
    assert signing.holds(SECRETS, headers, sent, NOW_S) is (secret in SECRETS and lately and sent == RAW)


@QUICK
@given(timestamp=st.none() | TEXT, signature=st.none() | TEXT)
def test_no_text_at_all_is_a_signature(timestamp: str | None, signature: str | None) -> None:
    headers = signing.headers(SECRETS, RAW, NOW_S)
    for name, text in ((signing.TIMESTAMP_HEADER, timestamp), (signing.SIGNATURE_HEADER, signature)):
        if text is not None:
            headers[name] = text
    changed = timestamp is not None or signature is not None
    assert signing.holds(SECRETS, headers, RAW, NOW_S) is not changed


# --- WeChat --------------------------------------------------------------------------------------------------

HEADERS = ("Wechatpay-Timestamp", "Wechatpay-Nonce", "Wechatpay-Signature", "Wechatpay-Serial")


@QUICK
@given(name=st.sampled_from(HEADERS), text=TEXT, place=st.integers(0, 400), whole=st.booleans())
def test_a_header_of_wechats_that_was_changed_holds_no_more(
    name: str, text: str, place: int, whole: bool
) -> None:
    headers = signed(RAW)
    honest = headers[name]
    headers[name] = (
        text if whole else honest[: place % len(honest)] + text + honest[place % len(honest) + 1 :]
    )
    verdict = verifier().verify(headers, RAW, NOW_S)
    assert isinstance(verdict, Verified)
    assert verdict is not Verified.HOLDS or headers[name] == honest


VALUE = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=40), st.lists(st.just(1)),
    st.sampled_from(["SUCCESS", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+14:00", "AAAA", "é", {"total": -1}]),
    st.just({}), st.floats(allow_nan=False, allow_infinity=False),
)  # fmt: skip
CHANGES = st.dictionaries(st.sampled_from([*transaction(), "of_tomorrow"]), VALUE, max_size=3)
SEALED_CHANGES = st.dictionaries(
    st.sampled_from(["algorithm", "ciphertext", "nonce", "associated_data", "original_type"]),
    VALUE,
    max_size=2,
)


@QUICK
@given(inside=CHANGES, outside=SEALED_CHANGES, raw=st.none() | st.binary(max_size=60))
def test_what_wechat_truly_sealed_is_a_transaction_or_unreadable_whatever_it_says(
    inside: dict[str, Any], outside: dict[str, Any], raw: bytes | None
) -> None:
    plain = msgspec.json.encode(transaction() | inside) if raw is None else raw
    told = msgspec.json.decode(notification()) | {"resource": seal(plain) | outside}
    try:
        opened = open_notification(decode(msgspec.json.encode(told), Envelope), API_V3_KEY)
    except Unreadable:
        return
    except Refusal as refusal:
        assert refusal.code is ErrorCode.VALIDATION_FAILED and outside
        return
    assert isinstance(opened, Transaction) and raw is None


def test_what_nobody_changed_holds_and_is_read() -> None:
    assert verifier().verify(signed(RAW), RAW, NOW_S) is Verified.HOLDS
    assert signed(RAW)["Wechatpay-Serial"] == PUBLIC_KEY_ID
    assert isinstance(open_notification(decode(notification(), Envelope), API_V3_KEY), Transaction)


NOTIFICATION = {
    "gateway": "hosted", "gateway_txn_id": "t-1", "order_id": "1", "status": "SUCCESS", "amount_fen": 1,
    "currency": "CNY", "paid_at": "2026-11-22T16:00:00+08:00",
}  # fmt: skip


@QUICK
@given(st.dictionaries(st.sampled_from([*NOTIFICATION, "of_tomorrow"]), VALUE, max_size=3))
def test_what_the_generic_gateway_signed_is_news_or_refused(changes: dict[str, Any]) -> None:
    try:
        news = decode(msgspec.json.encode(NOTIFICATION | changes), Notification).news()
    except Refusal as refusal:
        assert refusal.code is ErrorCode.VALIDATION_FAILED and changes
        return
    assert news.amount_fen >= 0 and news.paid_at.utcoffset() is not None
