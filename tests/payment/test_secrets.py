"""No secret, key, openid or signature in any log, error or metric of a day on which everything failed that can."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from tests.payment.market_day import Day
from tests.payment.needles import found

pytestmark = pytest.mark.timeout(300)


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
