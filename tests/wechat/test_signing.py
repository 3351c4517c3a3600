"""Signatures of API v3: an independent client makes and checks the same ones, and nothing else is believed."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from wechatpayv3 import utils
from wechatpayv3.utils import rsa_verify

from server.wechat.signing import Signer, Verified, Verifier
from tests.wechat.merchant import (
    APPID,
    CERTIFICATE_SERIAL,
    MCHID,
    MERCHANT_SERIAL,
    NOW_S,
    PUBLIC_KEY_ID,
    key,
    signed,
    signer,
    verifier,
)

NONCE = "593BEC0C930BF1AFEB40B4A08C8FB242"
RAW = '{"prepay_id":"wx26112221580621e9b071c00d9e093b0000","名":"票"}'.encode()


def fields(authorization: str) -> dict[str, str]:
    """The scheme and the quoted fields of an Authorization header."""
    scheme, _, rest = authorization.partition(" ")
    found = re.findall(r'([a-z_]+)="([^"]*)"(,|$)', rest)
    assert ",".join(f'{name}="{value}"' for name, value, _ in found) == rest
    return {"scheme": scheme, **{name: value for name, value, _ in found}}


# --- What we sign -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v3/pay/transactions/jsapi", '{"description":"渡轮票","amount":{"total":1}}'),
        ("GET", "/v3/pay/transactions/out-trade-no/ABC%7C1?mchid=1900000109", ""),
    ],
)
def test_the_independent_client_sends_the_very_authorization_that_we_send(
    method: str, path: str, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utils.time, "time", lambda: NOW_S + 0.9)
    theirs = utils.build_authorization(
        path, method, MCHID, MERCHANT_SERIAL, key("merchant"), data=body, nonce_str=NONCE
    )

    ours = signer().authorization(method, path, body.encode(), now_s=NOW_S, nonce=NONCE)

    assert fields(ours) == fields(theirs)
    assert fields(ours)["scheme"] == "WECHATPAY2-SHA256-RSA2048"
    assert len(fields(ours)) == 6


@pytest.mark.parametrize("body", ["", '{"a":1}', ' {"b":"渡"}\n'])
def test_an_authorization_signs_every_line_of_the_request(body: str) -> None:
    public = key("merchant").public_key()
    signature = fields(signer().authorization("POST", "/v3/x", body.encode(), now_s=7, nonce="n"))[
        "signature"
    ]

    assert rsa_verify("POST\n/v3/x\n7", "n", body, signature, public)
    for other in (
        ("GET\n/v3/x\n7", "n"),
        ("POST\n/v3/y\n7", "n"),
        ("POST\n/v3/x\n8", "n"),
        ("POST\n/v3/x\n7", "m"),
    ):
        assert not rsa_verify(*other, body, signature, public)
    assert not rsa_verify("POST\n/v3/x\n7", "n", body + " ", signature, public)


def test_the_launch_is_what_the_phone_takes_and_verifies_independently() -> None:
    package = "prepay_id=wx201410272009395522657a690389285100"

    launch = signer().launch(APPID, package, now_s=NOW_S, nonce=NONCE)

    assert {name: value for name, value in launch.items() if name != "paySign"} == {
        "appId": APPID,
        "timeStamp": str(NOW_S),
        "nonceStr": NONCE,
        "package": package,
        "signType": "RSA",
    }
    assert rsa_verify(f"{APPID}\n{NOW_S}", NONCE, package, launch["paySign"], key("merchant").public_key())
    assert not rsa_verify(
        f"{APPID}\n{NOW_S}", NONCE, package, launch["paySign"], key("stranger").public_key()
    )


def test_a_signer_that_is_printed_shows_nothing_of_its_key() -> None:
    assert MERCHANT_SERIAL not in repr(Signer(MCHID, MERCHANT_SERIAL, key("merchant")))


# --- What we believe ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("serial", "whose"),
    [
        (PUBLIC_KEY_ID, "wechat"),
        (CERTIFICATE_SERIAL, "certificate"),
        (CERTIFICATE_SERIAL.lower(), "certificate"),
        (CERTIFICATE_SERIAL.lstrip("0"), "certificate"),
        ("000" + CERTIFICATE_SERIAL, "certificate"),
    ],
)
@pytest.mark.parametrize("raw", [RAW, b""])
def test_what_the_independent_client_signs_holds_in_both_modes(serial: str, whose: str, raw: bytes) -> None:
    assert verifier().verify(signed(raw, serial=serial, whose=whose), raw, NOW_S) is Verified.HOLDS


@pytest.mark.parametrize(
    ("serial", "whose", "verdict"),
    [
        (PUBLIC_KEY_ID, "certificate", Verified.WRONG),
        (CERTIFICATE_SERIAL, "wechat", Verified.WRONG),
        (PUBLIC_KEY_ID, "stranger", Verified.WRONG),
        (PUBLIC_KEY_ID.lower(), "wechat", Verified.UNKNOWN_SERIAL),
        (PUBLIC_KEY_ID + "0", "wechat", Verified.UNKNOWN_SERIAL),
        (CERTIFICATE_SERIAL + "0", "certificate", Verified.UNKNOWN_SERIAL),
        (MERCHANT_SERIAL, "merchant", Verified.UNKNOWN_SERIAL),
    ],
)
def test_a_key_speaks_only_under_its_own_serial(serial: str, whose: str, verdict: Verified) -> None:
    assert verifier().verify(signed(RAW, serial=serial, whose=whose), RAW, NOW_S) is verdict


@settings(deadline=None)
@given(place=st.integers(0, len(RAW) - 1), bit=st.integers(0, 7))
def test_a_body_changed_by_one_bit_is_wrong(place: int, bit: int) -> None:
    changed = bytearray(RAW)
    changed[place] ^= 1 << bit

    assert verifier().verify(signed(RAW), bytes(changed), NOW_S) is Verified.WRONG


@pytest.mark.parametrize("raw", [RAW + b"\n", b"\n" + RAW, RAW + b" ", RAW[:-1], b""])
def test_the_body_is_verified_to_its_last_byte(raw: bytes) -> None:
    assert verifier().verify(signed(RAW), raw, NOW_S) is Verified.WRONG


@pytest.mark.parametrize("name", ["Timestamp", "Nonce"])
def test_time_and_nonce_are_signed_too(name: str) -> None:
    headers = signed(RAW)
    headers[f"Wechatpay-{name}"] = headers[f"Wechatpay-{name}"][:-1] + "9"

    assert verifier().verify(headers, RAW, NOW_S) is Verified.WRONG


@pytest.mark.parametrize(
    ("away_s", "verdict"),
    [(-300, Verified.STALE), (-299, Verified.HOLDS), (299, Verified.HOLDS), (300, Verified.STALE)],
)
def test_a_signature_holds_for_less_than_five_minutes_either_way(away_s: int, verdict: Verified) -> None:
    assert verifier().verify(signed(RAW, now_s=NOW_S + away_s), RAW, NOW_S) is verdict


@pytest.mark.parametrize("name", ["Timestamp", "Nonce", "Signature", "Serial"])
def test_each_header_is_needed_once_whatever_its_case(name: str) -> None:
    header = f"Wechatpay-{name}"
    headers = CIMultiDict(signed(RAW))
    assert verifier().verify(headers, RAW, NOW_S) is Verified.HOLDS
    assert (
        verifier().verify({each.upper(): value for each, value in headers.items()}, RAW, NOW_S)
        is Verified.HOLDS
    )

    twice = CIMultiDict(headers)
    twice.add(header.lower(), headers[header])
    assert verifier().verify(twice, RAW, NOW_S) is Verified.MISSING
    for value in ("", " ", "\n", headers[header] + "\n", "é", "x" * 5000):
        headers[header] = value
        assert verifier().verify(headers, RAW, NOW_S) is Verified.MISSING, value
    del headers[header]
    assert verifier().verify(headers, RAW, NOW_S) is Verified.MISSING


@pytest.mark.parametrize("timestamp", ["-1", "+1764000000", "1764000000.0", "1e9", "٣", "1" * 13, "1_764"])
def test_a_timestamp_is_plain_digits(timestamp: str) -> None:
    headers = signed(RAW) | {"Wechatpay-Timestamp": timestamp}

    assert verifier().verify(headers, RAW, NOW_S) is Verified.MISSING


@pytest.mark.parametrize("signature", ["#", "AAA", "====", "AAAA", "A" * 344, "A" * 684])
def test_a_signature_that_is_none_crashes_nothing(signature: str) -> None:
    verdict = verifier().verify(signed(RAW) | {"Wechatpay-Signature": signature}, RAW, NOW_S)

    assert verdict in (Verified.MISSING, Verified.WRONG)


@pytest.mark.parametrize("serial", [PUBLIC_KEY_ID, "5157F09EFDC096DE15EBE81A47057A7232F1B8E1"])
def test_a_probe_is_known_as_one_and_does_not_hold(serial: str) -> None:
    probe = "WECHATPAY/SIGNTEST/" + "x" * 300
    headers = signed(RAW, serial=serial) | {"Wechatpay-Signature": probe}

    assert verifier().verify(headers, RAW, NOW_S) is Verified.PROBE


def test_two_spellings_of_one_serial_are_a_mistake() -> None:
    public = key("wechat").public_key()
    with pytest.raises(ValueError, match="same serial"):
        Verifier({"0abc": public, "ABC": public})


def test_the_type_of_the_signature_is_not_what_decides() -> None:
    headers = signed(RAW) | {"Wechatpay-Signature-Type": "WECHATPAY2-SM2-WITH-SM3"}

    assert verifier().verify(headers, RAW, NOW_S) is Verified.HOLDS
    assert verifier().verify(headers, json.dumps({}).encode(), NOW_S) is Verified.WRONG
