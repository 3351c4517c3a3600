"""The cryptography of the simulated WeChat Pay: what it checks, signs and encrypts.

Written from the documentation alone and shared with no client, so that one mistake cannot sit on both sides.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from server.dev.wechat_keys import WeChatKeys
from server.limits import WEBHOOK_SKEW_S_MAX

SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
_FIELD: Final = re.compile(r'([a-z_]+)="([^"]*)"')
_FIELDS: Final = frozenset({"mchid", "nonce_str", "timestamp", "serial_no", "signature"})


def unauthorized(
    keys: WeChatKeys, authorization: str, method: str, target: str, body: bytes, now: float
) -> str | None:
    """Why a request is refused with 401 SIGN_ERROR, or None. `target` is the raw path with its query.

    The texts and the order of the checks are those of the real host: age before signature.
    """
    scheme, _, rest = authorization.strip().partition(" ")
    fields = dict(_FIELD.findall(rest))
    if scheme != SCHEME or fields.keys() != _FIELDS:
        return "Http头Authorization值格式错误，请参考《微信支付商户REST API签名规则》"
    if not fields["timestamp"].isascii() or not fields["timestamp"].isdigit():
        return "Http头Authorization中的timestamp不是数字"
    if abs(now - int(fields["timestamp"])) > WEBHOOK_SKEW_S_MAX:
        return "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟"
    if fields["mchid"] != keys.mchid:
        return "商户号不存在"
    if fields["serial_no"].upper() != keys.mch_serial:
        return "商户证书序列号有误。请使用签名私钥匹配的证书序列号"
    text = f"{method}\n{target}\n{fields['timestamp']}\n{fields['nonce_str']}\n".encode() + body + b"\n"
    if not _holds(keys.mch_key.public_key(), fields["signature"], text):
        return "错误的签名，验签失败"
    return None


def launch_holds(keys: WeChatKeys, payload: Mapping[str, object]) -> bool:
    """Whether the merchant signed what the page hands to WeChat (appId, timeStamp, nonceStr, package, paySign)."""
    lines = [payload.get(name) for name in ("appId", "timeStamp", "nonceStr", "package")]
    signature = payload.get("paySign")
    if not all(isinstance(line, str) for line in lines) or not isinstance(signature, str):
        return False
    text = "".join(f"{line}\n" for line in lines).encode()
    return _holds(keys.mch_key.public_key(), signature, text)


def signed(keys: WeChatKeys, serial: str, body: bytes, now: float) -> dict[str, str]:
    """Headers that sign an answer or a notification by the key of this serial number, ours or the public key's."""
    key = keys.pay_key if serial == keys.public_key_id else keys.platform_key
    timestamp, nonce = str(int(now)), secrets.token_hex(16)
    signature = key.sign(f"{timestamp}\n{nonce}\n".encode() + body + b"\n", padding.PKCS1v15(), SHA256())
    return {
        "Wechatpay-Timestamp": timestamp,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Signature": base64.b64encode(signature).decode(),
        "Wechatpay-Serial": serial,
        "Wechatpay-Signature-Type": SCHEME,
    }


def encrypted(key: str, plain: bytes, associated_data: str) -> dict[str, str]:
    """A resource under AEAD_AES_256_GCM: base64 of ciphertext and tag, with its 12-character nonce."""
    nonce = secrets.token_hex(6)
    sealed = AESGCM(key.encode()).encrypt(nonce.encode(), plain, associated_data.encode())
    return {
        "algorithm": "AEAD_AES_256_GCM",
        "ciphertext": base64.b64encode(sealed).decode(),
        "nonce": nonce,
        "associated_data": associated_data,
    }


def _holds(key: rsa.RSAPublicKey, signature: str, text: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), text, padding.PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
