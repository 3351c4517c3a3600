"""The merchant's settings: what belongs together, what is refused, and that keys stay out of what is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from server.config import Config, load
from server.config.wechat import WECHAT_SETTINGS
from server.dev.wechat_keys import WeChatKeys
from tests.test_config import KEYS, REQUIRED, faults

PRE = "GATELINE_WECHAT_"
BY_NAME = {setting.env: setting for setting in WECHAT_SETTINGS}
PUBLIC = {"GATELINE_PUBLIC_URL": "https://tickets.example"}


@pytest.fixture(scope="module")
def keys() -> WeChatKeys:
    return WeChatKeys.fresh()


@pytest.fixture(scope="module")
def merchant(keys: WeChatKeys) -> dict[str, str]:
    """Everything that a merchant's server needs; no other gateway."""
    return {**KEYS, **PUBLIC, **keys.environment("https://wechat.example")}


def test_a_merchant_is_read_whole(keys: WeChatKeys, merchant: dict[str, str]) -> None:
    account = load(merchant).wechat

    assert account is not None
    assert (account.mchid, account.appid, account.miniprogram_appid) == (
        keys.mchid,
        keys.appid,
        keys.miniprogram_appid,
    )
    assert (account.secret, account.miniprogram_secret) == (keys.secret, keys.miniprogram_secret)
    assert account.api_v3_keys == (keys.api_v3_key.encode(),)
    assert account.mch_key.private_numbers() == keys.mch_key.private_numbers()
    assert account.mch_certificate == keys.mch_cert
    assert account.notify_url == "https://tickets.example/payments/wechat/notify"
    assert (account.api_urls, account.login_url) == (("https://wechat.example",), "https://wechat.example")
    assert (account.h5, account.bridge_version_min) == (True, "1.2.0")
    assert account.verifying_keys() == {
        keys.public_key_id: keys.pay_key.public_key(),
        keys.platform_serial: keys.platform_key.public_key(),
    }
    assert account.certificates_end() == {
        "merchant": keys.mch_cert.not_valid_after_utc,
        "platform": keys.platform_cert.not_valid_after_utc,
    }


def test_without_a_merchant_number_there_is_no_merchant_and_no_setting_of_one() -> None:
    assert load(REQUIRED).wechat is None
    assert faults({**REQUIRED, PRE + "APPID": "wx1", PRE + "H5": "0"}) == [f"{PRE}APPID needs {PRE}MCHID."]


def test_real_addresses_of_wechat_are_the_default(merchant: dict[str, str]) -> None:
    account = load(
        {k: v for k, v in merchant.items() if k not in (PRE + "API_URLS", PRE + "LOGIN_URL")}
    ).wechat

    assert account is not None
    assert account.api_urls == ("https://api.mch.weixin.qq.com", "https://api2.mch.weixin.qq.com")
    assert account.login_url == "https://api.weixin.qq.com"


@pytest.mark.parametrize("mode", ["public key", "certificates"])
def test_either_mode_of_verification_is_enough(mode: str, merchant: dict[str, str]) -> None:
    left_out = {"public key": ["PLATFORM_CERTS"], "certificates": ["PUBLIC_KEY", "PUBLIC_KEY_ID"]}[mode]
    account = load({k: v for k, v in merchant.items() if k.removeprefix(PRE) not in left_out}).wechat

    assert account is not None
    assert len(account.verifying_keys()) == 1


@pytest.mark.parametrize("app", ["mini program", "official account"])
def test_one_app_is_enough(app: str, merchant: dict[str, str]) -> None:
    left_out = {"official account": "MINIPROGRAM_", "mini program": ""}[app]
    dropped = (f"{PRE}{left_out}APPID", f"{PRE}{left_out}SECRET")
    assert load({k: v for k, v in merchant.items() if k not in dropped}).wechat is not None


MISSING = {
    "MCH_CERT": f"{PRE}MCH_CERT is missing",
    "MCH_KEY": f"{PRE}MCH_KEY is missing",
    "API_V3_KEY": f"{PRE}API_V3_KEY is missing",
    "PUBLIC_KEY": f"{PRE}PUBLIC_KEY_ID and {PRE}PUBLIC_KEY belong together.",
    "PUBLIC_KEY_ID": f"{PRE}PUBLIC_KEY_ID and {PRE}PUBLIC_KEY belong together.",
    "APPID": f"{PRE}APPID and {PRE}SECRET belong together.",
    "SECRET": f"{PRE}APPID and {PRE}SECRET belong together.",
    "MINIPROGRAM_APPID": f"{PRE}MINIPROGRAM_APPID and {PRE}MINIPROGRAM_SECRET belong together.",
    "MINIPROGRAM_SECRET": f"{PRE}MINIPROGRAM_APPID and {PRE}MINIPROGRAM_SECRET belong together.",
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_is_named(name: str, merchant: dict[str, str]) -> None:
    (told,) = faults({k: v for k, v in merchant.items() if k != PRE + name})
    assert told.startswith(MISSING[name])


def test_a_merchant_without_apps_or_without_a_way_to_verify_is_told_so(merchant: dict[str, str]) -> None:
    apps = [f"{PRE}{app}{part}" for app in ("", "MINIPROGRAM_") for part in ("APPID", "SECRET")]
    (told,) = faults({k: v for k, v in merchant.items() if k not in apps})
    assert told == f"{PRE}MINIPROGRAM_APPID or {PRE}APPID is missing."
    verifying = [PRE + each for each in ("PUBLIC_KEY", "PUBLIC_KEY_ID", "PLATFORM_CERTS")]
    (told,) = faults({k: v for k, v in merchant.items() if k not in verifying})
    assert told == f"{PRE}PUBLIC_KEY or {PRE}PLATFORM_CERTS is missing: one verifies."


def test_a_key_that_is_not_the_certificates_is_refused(merchant: dict[str, str]) -> None:
    other = WeChatKeys.fresh().environment("https://wechat.example")[PRE + "MCH_KEY"]
    assert faults({**merchant, PRE + "MCH_KEY": other}) == [f"{PRE}MCH_KEY is not the key of {PRE}MCH_CERT."]


def test_the_merchants_own_key_is_not_taken_for_wechats(keys: WeChatKeys, merchant: dict[str, str]) -> None:
    """Nothing that WeChat signs would be believed: every payment would fail, and only then."""
    ours = merchant[PRE + "MCH_CERT"]
    expected = [f"{PRE}PUBLIC_KEY and _PLATFORM_CERTS are WeChat's keys, not the merchant's own."]

    assert faults({**merchant, PRE + "PUBLIC_KEY": _public_pem(keys.mch_key)}) == expected
    assert faults({**merchant, PRE + "PLATFORM_CERTS": ours}) == expected
    assert faults({**merchant, PRE + "PLATFORM_CERTS": merchant[PRE + "PLATFORM_CERTS"] + ours}) == expected


def test_an_address_of_wechat_is_a_host_with_no_path_behind_it(merchant: dict[str, str]) -> None:
    """Its path would be sent and not signed: every call would be refused, and only then."""
    hosts = "https://a.example/,https://b.example:8443"
    account = load({**merchant, PRE + "API_URLS": hosts, PRE + "LOGIN_URL": "https://c.example/"}).wechat
    assert account is not None
    assert (account.api_urls, account.login_url) == (
        ("https://a.example", "https://b.example:8443"),
        "https://c.example",
    )
    for name in ("API_URLS", "LOGIN_URL"):
        for path in ("/v3", "/v3/", "/v3/pay/transactions"):
            (told,) = faults({**merchant, PRE + name: "https://a.example" + path})
            assert told.startswith(f"{PRE}{name} is not legal."), path


def test_real_wechat_notifies_https_only(merchant: dict[str, str]) -> None:
    assert faults({**merchant, "GATELINE_PUBLIC_URL": "http://tickets.example"}) == [
        "GATELINE_PUBLIC_URL must be https://: WeChat notifies no other address."
    ]
    local = {PRE + "API_URLS": "http://127.0.0.1:9", "GATELINE_PUBLIC_URL": "http://127.0.0.1:8080"}
    account = load({**merchant, **local}).wechat
    assert account is not None and account.notify_url.startswith("http://127.0.0.1:8080/")
    (told,) = faults({**merchant, "GATELINE_PUBLIC_URL": f"https://{'x' * 240}.example"})
    assert "at most 255" in told


def test_a_buyer_has_time_to_launch_a_payment(merchant: dict[str, str]) -> None:
    (told,) = faults({**merchant, "GATELINE_HOLD_S": "9"})
    assert told.startswith("GATELINE_HOLD_S must be 10 or more")
    assert load({**merchant, "GATELINE_HOLD_S": "10"}).hold_s == 10
    assert load({**REQUIRED, "GATELINE_HOLD_S": "9"}).hold_s == 9, "elsewhere no one has to launch it"


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> str:
    sealed = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed).decode()


def _public_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _curve_certificate(key: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


NOT_PEM = ("x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "中")
ILLEGAL: dict[str, tuple[str, ...]] = {
    "MCHID": ("1" * 33, "a b", "é", "19\n"),
    "MCH_CERT": NOT_PEM,
    "MCH_KEY": NOT_PEM,
    "API_V3_KEY": (
        "k" * 65,
        "k" * 32 + "," + "k" * 32,
        "k" * 32 + ",",
        "k" * 32 + " " + "l" * 32,
        "short",
        "k" * 31,
        "k" * 33,
        "é" * 16,
        "é" * 32,
        "k" * 31 + "\n",
    ),
    "PUBLIC_KEY_ID": ("3A", "PUB_KEY_ID_", "pub_key_id_1", "PUB_KEY_ID_1\n", "PUB_KEY_ID_" + "1" * 65),
    "PUBLIC_KEY": NOT_PEM,
    "PLATFORM_CERTS": NOT_PEM,
    "MINIPROGRAM_APPID": ("wx 1", "w" * 33, "wx\n"),
    "MINIPROGRAM_SECRET": ("a b", "s" * 129, "s\n", "é"),
    "APPID": ("wx 1", "w" * 33),
    "SECRET": ("a b", "s" * 129),
    "H5": ("", "yes", "2"),
    "BRIDGE_VERSION_MIN": ("", "v1", "1.", ".1", "1.2.3.4.5", "1234567890", "1.2\n"),
    "API_URLS": (
        "",
        "x",
        "http://wechat.example",
        "https://a.example,",
        "https://a.example?x=1",
        "http://127.0.0.1.example",
        "http://u@evil.example",
    ),
    "LOGIN_URL": ("", "http://wechat.example", "ftp://a.example"),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_what_is_illegal_is_refused_with_its_name_and_never_with_its_value(
    name: str, merchant: dict[str, str]
) -> None:
    for text in ILLEGAL[name]:
        setting = BY_NAME[PRE + name]
        assert faults({**merchant, setting.env: text}) == [
            f"{setting.env} is not legal. Legal: {setting.legal}."
        ], text


def test_every_setting_is_tried_here() -> None:
    assert {PRE + name for name in ILLEGAL} == set(BY_NAME)


def test_keys_of_other_kinds_and_keys_behind_a_password_are_refused(
    keys: WeChatKeys, merchant: dict[str, str]
) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    given = {
        "MCH_KEY": (_pem(curve), _pem(keys.mch_key, b"password")),
        "PUBLIC_KEY": (_public_pem(curve), _pem(keys.mch_key)),
        "MCH_CERT": (_curve_certificate(curve), merchant[PRE + "PLATFORM_CERTS"] * 2),
        "PLATFORM_CERTS": (merchant[PRE + "PLATFORM_CERTS"] + _curve_certificate(curve),),
    }
    for name, texts in given.items():
        for text in texts:
            (told,) = faults({**merchant, PRE + name: text})
            assert told == f"{PRE}{name} is not legal. Legal: {BY_NAME[PRE + name].legal}."


def test_several_platform_certificates_verify_side_by_side(merchant: dict[str, str]) -> None:
    other = WeChatKeys.fresh()
    both = merchant[PRE + "PLATFORM_CERTS"] + other.environment("https://w.example")[PRE + "PLATFORM_CERTS"]
    account = load({**merchant, PRE + "PLATFORM_CERTS": both}).wechat

    assert account is not None
    assert len(account.verifying_keys()) == 3
    assert set(account.certificates_end()) == {"merchant", "platform"}


def test_keys_come_from_files_too(tmp_path: Path, merchant: dict[str, str]) -> None:
    in_files = dict(merchant)
    for name in ("MCH_CERT", "MCH_KEY", "API_V3_KEY", "PUBLIC_KEY", "PLATFORM_CERTS", "SECRET"):
        file = tmp_path / name
        file.write_text(merchant[PRE + name])
        in_files[PRE + name] = f"file:{file}"
    account, expected = load(in_files).wechat, load(merchant).wechat

    assert account is not None and expected is not None
    assert account.verifying_keys() == expected.verifying_keys()
    assert (account.api_v3_keys, account.secret) == (expected.api_v3_keys, expected.secret)


def test_a_command_that_serves_no_one_needs_no_whole_merchant(merchant: dict[str, str]) -> None:
    assert load({PRE + "MCHID": merchant[PRE + "MCHID"]}, serving=False).wechat is None
    assert load(merchant, serving=False).wechat is not None


def test_the_configuration_can_be_printed_without_the_merchants_keys(
    keys: WeChatKeys, merchant: dict[str, str]
) -> None:
    config: Config = load(merchant)
    for printed in (repr(config), str(config), repr(config.wechat)):
        for secret in (keys.api_v3_key, keys.secret, keys.miniprogram_secret, str(config.jwt_keys[0][1])):
            assert secret not in printed
