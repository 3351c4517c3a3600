"""A merchant and a WeChat Pay of the tests' own: keys, signed answers, sealed notifications."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from wechatpayv3.utils import rsa_sign

from server.wechat.signing import Signer, Verifier

MCHID = "1900000109"
APPID = "wxd678efh567hg6787"
MERCHANT_SERIAL = "1DDE55AD98ED71D6EDD4A4A16996DE7B47773A8C"
PUBLIC_KEY_ID = "PUB_KEY_ID_0114232134912410000000000000"
CERTIFICATE_SERIAL = "0A1B2C3D4E5F60718293A4B5C6D7E8F901234567"
API_V3_KEY = b"0123456789abcdefABCDEF0123456789"
OPENID = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
NUMBER = "01JDZ3M5Q8R7T2V4W6X8Y0ABCD-7K2MQ"
NOW_S = 1_764_000_000


@cache
def key(whose: str) -> rsa.RSAPrivateKey:
    """The private key of somebody, made at first use: 'merchant', 'wechat', 'certificate', 'stranger'."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def signer() -> Signer:
    return Signer(MCHID, MERCHANT_SERIAL, key("merchant"))


def verifier(asked_for: str = "") -> Verifier:
    """Both kinds of keys at once, as while a merchant migrates."""
    return Verifier(
        {
            PUBLIC_KEY_ID: key("wechat").public_key(),
            CERTIFICATE_SERIAL: key("certificate").public_key(),
        },
        asked_for,
    )


def signed(
    raw: bytes, *, serial: str = PUBLIC_KEY_ID, whose: str = "wechat", now_s: int = NOW_S
) -> dict[str, str]:
    """The headers by which WeChat signs these bytes; the signature is made by the independent client."""
    nonce = "fdasflkja484w"
    return {
        "Wechatpay-Timestamp": str(now_s),
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Signature": rsa_sign(key(whose), f"{now_s}\n{nonce}\n{raw.decode()}\n"),
        "Wechatpay-Serial": serial,
    }


def transaction(**changes: Any) -> dict[str, Any]:
    """A paid transaction with everything that WeChat says of one; a change to None takes the field away."""
    told = {
        "appid": APPID,
        "mchid": MCHID,
        "out_trade_no": NUMBER,
        "transaction_id": "1217752501201407033233368018",
        "trade_type": "JSAPI",
        "trade_state": "SUCCESS",
        "trade_state_desc": "支付成功",
        "bank_type": "CMC",
        "attach": "",
        "success_time": "2026-12-01T10:34:56+08:00",
        "payer": {"openid": OPENID},
        "amount": {"total": 2900, "payer_total": 2700, "currency": "CNY", "payer_currency": "CNY"},
        "promotion_detail": [{"coupon_id": "109519", "amount": 200}],
        **changes,
    }
    return {name: value for name, value in told.items() if value is not None}


PAID_AT = datetime(2026, 12, 1, 2, 34, 56, tzinfo=UTC)


def seal(plain: bytes, *, nonce: str = "fdasfjihihih", aad: str = "transaction") -> dict[str, str]:
    """The resource of a notification."""
    sealed = AESGCM(API_V3_KEY).encrypt(nonce.encode(), plain, aad.encode())
    return {
        "original_type": "transaction",
        "algorithm": "AEAD_AES_256_GCM",
        "ciphertext": base64.b64encode(sealed).decode(),
        "nonce": nonce,
        "associated_data": aad,
    }


def notification(
    *, told: dict[str, Any] | None = None, resource: dict[str, Any] | None = None, **changes: Any
) -> bytes:
    """A notification's raw body."""
    body = {
        "id": "EV-2018022511223320873",
        "create_time": "2026-12-01T10:34:57+08:00",
        "event_type": "TRANSACTION.SUCCESS",
        "resource_type": "encrypt-resource",
        "summary": "支付成功",
        "resource": resource or seal(json.dumps(transaction() if told is None else told).encode()),
        **changes,
    }
    return json.dumps(body, ensure_ascii=False).encode()
