"""The settings of a merchant at WeChat Pay, and the account that they make together.

Which key is which, and where a merchant finds it: README, "WeChat Pay, step by step".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from server.config.reading import Setting, flag, web_address

NOTIFY_PATH: Final = "/payments/wechat/notify"
WECHAT_HOLD_S_MIN: Final = 10  # no one launches a payment faster
_NOTIFY_URL_CHARS_MAX: Final = 255  # WeChat's own bound
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})


class WeChatAccount(msgspec.Struct, frozen=True, kw_only=True):
    """A merchant and their apps. An app that is not there has an empty appid."""

    mchid: str
    mch_certificate: x509.Certificate  # its serial number signs with us; its end is watched
    mch_key: rsa.RSAPrivateKey
    api_v3_keys: tuple[bytes, ...]  # of 32 bytes: open notifications; two while one takes over
    public_key_id: str  # PUB_KEY_ID_…, empty: the certificate mode alone
    public_key: rsa.RSAPublicKey | None
    platform_certificates: tuple[x509.Certificate, ...]
    miniprogram_appid: str
    miniprogram_secret: str
    appid: str  # of the official account: JSAPI, and Native and H5
    secret: str
    h5: bool
    bridge_version_min: str
    api_urls: tuple[str, ...]
    login_url: str
    notify_url: str

    def __repr__(self) -> str:
        """As of `Config`: without any value."""
        return "WeChatAccount(...)"

    def verifying_keys(self) -> dict[str, rsa.RSAPublicKey]:
        """WeChat Pay's public keys by serial, of both modes: they may be mixed while a merchant migrates."""
        keys: dict[str, rsa.RSAPublicKey] = {}
        for certificate in self.platform_certificates:
            key = certificate.public_key()
            if isinstance(key, rsa.RSAPublicKey):
                keys[f"{certificate.serial_number:X}"] = key
        if self.public_key is not None:
            keys[self.public_key_id] = self.public_key
        return keys

    def certificates_end(self) -> dict[str, datetime]:
        """When what is certified ends: the merchant's key, and WeChat's in certificate mode."""
        ends = {"merchant": self.mch_certificate.not_valid_after_utc}
        if self.platform_certificates:  # the newest: older ones stay in the list while it takes over
            ends["platform"] = max(each.not_valid_after_utc for each in self.platform_certificates)
        return ends


def _match(pattern: str) -> Any:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return read


def _certificates(text: str) -> tuple[x509.Certificate, ...]:
    certificates = tuple(x509.load_pem_x509_certificates(text.encode())) if text else ()
    if not all(isinstance(each.public_key(), rsa.RSAPublicKey) for each in certificates):
        raise ValueError
    return certificates


def _certificate(text: str) -> x509.Certificate | None:
    if not text:
        return None
    (certificate,) = _certificates(text)
    return certificate


def _private_key(text: str) -> rsa.RSAPrivateKey | None:
    if not text:
        return None
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except (TypeError, UnsupportedAlgorithm) as fault:  # behind a password, or of another kind
        raise ValueError from fault
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError
    return key


def _public_key(text: str) -> rsa.RSAPublicKey | None:
    if not text:
        return None
    try:
        key = load_pem_public_key(text.encode())
    except UnsupportedAlgorithm as fault:
        raise ValueError from fault
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError
    return key


def _api_v3_keys(text: str) -> tuple[bytes, ...]:
    """By their length, since a key may hold a comma."""
    if not text:
        return ()
    found = re.fullmatch(r"([!-~]{32})(?:,([!-~]{32}))?", text)
    if found is None or found[1] == found[2]:
        raise ValueError
    return tuple(key.encode() for key in found.groups() if key is not None)


def _api_address(text: str) -> str:
    address = web_address(text)
    scheme, _, rest = address.partition("://")
    if "/" in rest or "@" in rest:  # a path would not be signed
        raise ValueError
    if scheme != "https" and re.split(r":\d+$", rest)[0] not in _LOOPBACK:
        raise ValueError
    return address


def _api_addresses(text: str) -> tuple[str, ...]:
    return tuple(_api_address(each) for each in text.split(","))


_PEM: Final = "PEM, or empty"
_APPID: Final = r"([0-9A-Za-z]{1,32})?"
_APP_SECRET: Final = r"[!-~]{0,128}"  # noqa: S105 - what one may look like
_HTTPS: Final = "https:// address (http:// only to this machine)"

WECHAT_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "GATELINE_WECHAT_MCHID",
        "mchid",
        "",
        _match(r"[0-9A-Za-z]{0,32}"),
        "up to 32 letters and digits, or empty",
        "merchant number at WeChat Pay; empty: WeChat Pay is not offered, and none of the following is needed",
    ),
    Setting(
        "GATELINE_WECHAT_MCH_CERT",
        "mch_certificate",
        "",
        _certificate,
        "one certificate in PEM, or empty",
        "the merchant's API certificate (`apiclient_cert.pem`)",
        rotates=True,
    ),
    Setting(
        "GATELINE_WECHAT_MCH_KEY",
        "mch_key",
        "",
        _private_key,
        "an RSA key in PEM without a password, or empty",
        "its private key (`apiclient_key.pem`)",
        rotates=True,
    ),
    Setting(
        "GATELINE_WECHAT_API_V3_KEY",
        "api_v3_keys",
        "",
        _api_v3_keys,
        "32 characters, or twice that with a comma between, or empty",
        "the APIv3 key: opens notifications; two while one takes over",
        rotates=True,
    ),
    Setting(
        "GATELINE_WECHAT_PUBLIC_KEY_ID",
        "public_key_id",
        "",
        _match(r"(PUB_KEY_ID_[0-9A-Za-z]{1,64})?"),
        "PUB_KEY_ID_…, or empty",
        "id of the WeChat Pay public key (public-key mode)",
        rotates=True,
    ),
    Setting(
        "GATELINE_WECHAT_PUBLIC_KEY",
        "public_key",
        "",
        _public_key,
        _PEM,
        "the WeChat Pay public key (`pub_key.pem`)",
        rotates=True,
    ),
    Setting(
        "GATELINE_WECHAT_PLATFORM_CERTS",
        "platform_certificates",
        "",
        _certificates,
        "PEM, one or several, or empty",
        "platform certificates (certificate mode, or while migrating from it)",
        rotates=True,
    ),
    Setting(
        "GATELINE_WECHAT_MINIPROGRAM_APPID",
        "miniprogram_appid",
        "",
        _match(_APPID),
        "an appid, or empty",
        "the Mini Program: pays over the bridge",
    ),
    Setting(
        "GATELINE_WECHAT_MINIPROGRAM_SECRET",
        "miniprogram_secret",
        "",
        _match(_APP_SECRET),
        "its AppSecret, or empty",
        "for logging in from the Mini Program",
    ),
    Setting(
        "GATELINE_WECHAT_APPID",
        "appid",
        "",
        _match(_APPID),
        "an appid, or empty",
        "the official account: JSAPI in the WeChat browser; also names Native and H5 payments",
    ),
    Setting(
        "GATELINE_WECHAT_SECRET",
        "secret",
        "",
        _match(_APP_SECRET),
        "its AppSecret, or empty",
        "for logging in from the WeChat browser",
    ),
    Setting(
        "GATELINE_WECHAT_H5",
        "h5",
        "0",
        flag,
        "0 or 1",
        "1: the merchant has H5 payment; else phones outside WeChat get the Native code",
    ),
    Setting(
        "GATELINE_WECHAT_BRIDGE_VERSION_MIN",
        "bridge_version_min",
        "1.2.0",
        _match(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}"),
        "a dotted version",
        "the oldest Mini Program shell whose pay page is good",
    ),
    Setting(
        "GATELINE_WECHAT_API_URLS",
        "api_urls",
        "https://api.mch.weixin.qq.com,https://api2.mch.weixin.qq.com",
        _api_addresses,
        f"{_HTTPS},…",
        "WeChat Pay's host, and its backup",
    ),
    Setting(
        "GATELINE_WECHAT_LOGIN_URL",
        "login_url",
        "https://api.weixin.qq.com",
        _api_address,
        _HTTPS,
        "where codes of logins are exchanged",
    ),
)


def account(values: Mapping[str, Any], public_url: str) -> tuple[WeChatAccount | None, list[str]]:
    """The merchant of these values (by field), or None without a merchant number; and what is wrong between them."""
    if not values["mchid"]:
        given = [each.env for each in WECHAT_SETTINGS if values[each.field] and each.default == ""]
        return None, [f"{env} needs GATELINE_WECHAT_MCHID." for env in given]
    needed = ("mch_certificate", "mch_key", "api_v3_keys")
    faults = [
        f"{each.env} is missing: {each.meaning}. Legal: {each.legal}."
        for each in WECHAT_SETTINGS
        if each.field in needed and not values[each.field]
    ]
    if bool(values["public_key_id"]) != bool(values["public_key"]):
        faults.append("GATELINE_WECHAT_PUBLIC_KEY_ID and GATELINE_WECHAT_PUBLIC_KEY belong together.")
    if not (values["public_key"] or values["platform_certificates"]):
        faults.append(
            "GATELINE_WECHAT_PUBLIC_KEY or GATELINE_WECHAT_PLATFORM_CERTS is missing: one verifies."
        )
    if not (values["miniprogram_appid"] or values["appid"]):
        faults.append("GATELINE_WECHAT_MINIPROGRAM_APPID or GATELINE_WECHAT_APPID is missing.")
    for app, secret in (("MINIPROGRAM_APPID", "MINIPROGRAM_SECRET"), ("APPID", "SECRET")):
        if bool(values[app.lower()]) != bool(values[secret.lower()]):
            faults.append(f"GATELINE_WECHAT_{app} and GATELINE_WECHAT_{secret} belong together.")
    certificate, key = values["mch_certificate"], values["mch_key"]
    if certificate and key and certificate.public_key() != key.public_key():
        faults.append("GATELINE_WECHAT_MCH_KEY is not the key of GATELINE_WECHAT_MCH_CERT.")
    ours = None if certificate is None else certificate.public_key()
    if ours is not None and ours in (
        values["public_key"],
        *(c.public_key() for c in values["platform_certificates"]),
    ):
        faults.append(
            "GATELINE_WECHAT_PUBLIC_KEY and _PLATFORM_CERTS are WeChat's keys, not the merchant's own."
        )
    notify_url = public_url + NOTIFY_PATH
    if any(url.startswith("https:") for url in values["api_urls"]) and not public_url.startswith("https:"):
        faults.append("GATELINE_PUBLIC_URL must be https://: WeChat notifies no other address.")
    if len(notify_url) > _NOTIFY_URL_CHARS_MAX:
        faults.append(f"GATELINE_PUBLIC_URL is too long: with {NOTIFY_PATH} at most 255 characters.")
    return None if faults else WeChatAccount(**values, notify_url=notify_url), faults
