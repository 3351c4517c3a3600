"""Signatures of API v3, in both directions: what we send is signed with the merchant's key, and what comes is verified.

Both are RSA PKCS#1 v1.5 with SHA-256 over lines that each end in a newline. Source: WeChat Pay API v3, "signature
generation" and "signature verification".
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from server.limits import WEBHOOK_SKEW_S_MAX

SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
TIMESTAMP_HEADER: Final = "Wechatpay-Timestamp"
NONCE_HEADER: Final = "Wechatpay-Nonce"
SIGNATURE_HEADER: Final = "Wechatpay-Signature"
SERIAL_HEADER: Final = "Wechatpay-Serial"
PROBE_PREFIX: Final = "WECHATPAY/SIGNTEST/"  # a forgery of WeChat's own, to see that we look

_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
_PRINTABLE: Final = re.compile(r"[!-~]{1,1024}")  # an RSA-4096 signature is 684 characters
_HEX: Final = re.compile(r"[0-9A-Fa-f]+")


class Signer:
    """A merchant's private key, and the serial number of the certificate that it belongs to."""

    def __init__(self, mchid: str, serial: str, key: rsa.RSAPrivateKey) -> None:
        self._mchid = mchid
        self._serial = serial
        self._key = key

    def replace(self, other: Signer) -> None:
        """Sign as the other does from now on, for everyone who holds this object."""
        self._mchid, self._serial, self._key = other._mchid, other._serial, other._key

    def authorization(self, method: str, path: str, body: bytes, *, now_s: int, nonce: str) -> str:
        """The Authorization header of a request; `path` with its `?query`, `body` the very bytes that are sent."""
        signature = self._sign(_lines(method.encode(), path.encode(), b"%d" % now_s, nonce.encode(), body))
        return (
            f'{SCHEME} mchid="{self._mchid}",nonce_str="{nonce}",timestamp="{now_s}",'
            f'serial_no="{self._serial}",signature="{signature}"'
        )

    def launch(self, appid: str, package: str, *, now_s: int, nonce: str) -> dict[str, str]:
        """What launches a payment in a Mini Program or the WeChat browser; `package` is `prepay_id=...`.

        The type of the signature is passed along and not signed.
        """
        signed = _lines(appid.encode(), b"%d" % now_s, nonce.encode(), package.encode())
        return {
            "appId": appid,
            "timeStamp": str(now_s),
            "nonceStr": nonce,
            "package": package,
            "signType": "RSA",
            "paySign": self._sign(signed),
        }

    def _sign(self, message: bytes) -> str:
        return base64.b64encode(self._key.sign(message, PKCS1v15(), SHA256())).decode()


class Verified(enum.Enum):
    """What became of a signature of WeChat Pay; every value but HOLDS means: believe nothing of it."""

    HOLDS = "HOLDS"
    MISSING = "MISSING"  # a header is absent, given twice or not of its form
    STALE = "STALE"  # 300 s or more from now: an old message played again, or a clock that is off
    UNKNOWN_SERIAL = "UNKNOWN_SERIAL"  # made with a key that is not configured here
    PROBE = "PROBE"  # a deliberate forgery, by which WeChat sees whether we verify
    WRONG = "WRONG"


class Verifier:
    """The public keys of WeChat Pay by serial: `PUB_KEY_ID_...`, or the hex serial of a platform certificate.

    Both kinds may be there at once, as they are while a merchant migrates. Hex is compared without regard to case and
    leading zeros. `asked_for` is the serial that WeChat is asked to sign its answers with; empty: it chooses. Raises
    ValueError for two spellings of one serial.
    """

    def __init__(self, keys: Mapping[str, rsa.RSAPublicKey], asked_for: str = "") -> None:
        self._keys = {_plain(serial): key for serial, key in keys.items()}
        self.asked_for = asked_for
        if len(self._keys) != len(keys):
            raise ValueError("two keys have the same serial")

    def replace(self, other: Verifier) -> None:
        """Verify as the other does from now on, for everyone who holds this object."""
        self._keys, self.asked_for = other._keys, other.asked_for

    def verify(self, headers: Mapping[str, str], raw: bytes, now_s: int) -> Verified:
        """Whether these headers sign the raw body. `Wechatpay-Signature-Type` is not read: our keys decide it."""
        timestamp, nonce = _only(headers, TIMESTAMP_HEADER), _only(headers, NONCE_HEADER)
        serial, signature = _only(headers, SERIAL_HEADER), _only(headers, SIGNATURE_HEADER)
        if not (timestamp and nonce and serial and signature and _TIMESTAMP.fullmatch(timestamp)):
            return Verified.MISSING
        if signature.startswith(PROBE_PREFIX):
            return Verified.PROBE
        try:
            signed = base64.b64decode(signature, validate=True)
        except binascii.Error:
            return Verified.MISSING
        if abs(now_s - int(timestamp)) >= WEBHOOK_SKEW_S_MAX:
            return Verified.STALE
        key = self._keys.get(_plain(serial))
        if key is None:
            return Verified.UNKNOWN_SERIAL
        try:
            key.verify(signed, _lines(timestamp.encode(), nonce.encode(), raw), PKCS1v15(), SHA256())
        except InvalidSignature:
            return Verified.WRONG
        return Verified.HOLDS


def _lines(*parts: bytes) -> bytes:
    return b"".join(part + b"\n" for part in parts)


def _only(headers: Mapping[str, str], name: str) -> str | None:
    """The one printable value of a header, in whatever case it is spelt; None when there is none or several."""
    values = [value for given, value in headers.items() if given.lower() == name.lower()]
    return values[0] if len(values) == 1 and _PRINTABLE.fullmatch(values[0]) else None


def _plain(serial: str) -> str:
    """One spelling for each serial."""
    return serial.lower().lstrip("0") if _HEX.fullmatch(serial) else serial
