"""All the keys of the simulated WeChat Pay and of its one merchant: made once, kept as PEM files or only in memory.

The names of the merchant's files are those that WeChat's own certificate tool writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import string
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from server.config.wechat import SIMULATOR

_CERTIFICATE_DAYS: Final = 5 * 365  # as long as WeChat's own live
_MCH_KEY: Final = "apiclient_key.pem"
_MCH_CERT: Final = "apiclient_cert.pem"
_PLATFORM_KEY: Final = "platform_key.pem"
_PLATFORM_CERT: Final = "platform_cert.pem"
_PAY_KEY: Final = "pay_key.pem"
_PUBLIC_KEY: Final = "pub_key.pem"
_ACCOUNT: Final = "account.json"  # written last: a folder without it is half written, and made anew
_API_V3_KEY: Final = "api_v3_key.txt"
_MINIPROGRAM_SECRET: Final = "miniprogram_secret.txt"
_SECRET: Final = "secret.txt"


class _Account(msgspec.Struct, frozen=True, kw_only=True):
    """What is no key: numbers and names, and the secrets that are text."""

    mchid: str
    miniprogram_appid: str
    miniprogram_secret: str
    appid: str
    secret: str
    api_v3_key: str
    public_key_id: str


@dataclass(frozen=True, kw_only=True, repr=False)  # not in a log by accident
class WeChatKeys:
    """One simulated merchant, and the simulated WeChat that they know.

    Gateline needs what `environment` gives. The platform's private keys stay with the simulator.
    """

    mchid: str
    miniprogram_appid: str
    miniprogram_secret: str
    appid: str  # of the official account
    secret: str
    api_v3_key: str  # 32 characters
    public_key_id: str  # PUB_KEY_ID_...
    mch_key: rsa.RSAPrivateKey
    mch_cert: x509.Certificate
    platform_key: rsa.RSAPrivateKey
    platform_cert: x509.Certificate
    pay_key: rsa.RSAPrivateKey  # its public half is the WeChat Pay public key

    @classmethod
    def fresh(cls, *, certified_by: str = SIMULATOR) -> WeChatKeys:
        """New keys, in memory alone. Takes about a second: RSA-2048 is slow to make.

        `certified_by`: by whom a server knows where the keys come from, and on which machine they are good.
        """
        mchid = "19" + _digits(8)
        mch_key, platform_key, pay_key = (_rsa_key() for _ in range(3))
        return cls(
            mchid=mchid,
            miniprogram_appid="wx" + secrets.token_hex(8),
            miniprogram_secret=secrets.token_hex(16),
            appid="wx" + secrets.token_hex(8),
            secret=secrets.token_hex(16),
            api_v3_key="".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(32)),
            public_key_id="PUB_KEY_ID_0" + mchid + _digits(24),
            mch_key=mch_key,
            mch_cert=_certificate(mch_key, mchid, certified_by),
            platform_key=platform_key,
            platform_cert=_certificate(platform_key, "Tenpay.com sign (simulated)", certified_by),
            pay_key=pay_key,
        )

    @classmethod
    def open(cls, folder: Path) -> WeChatKeys:
        """The keys of a folder (0700, files 0600), made when there are none; one half written is made anew.

        Raises OSError when the folder cannot be written or read.
        """
        try:
            return cls._read(folder)
        except (
            FileNotFoundError,
            ValueError,
        ):  # not there yet, or cut short: msgspec's faults are ValueErrors
            keys = cls.fresh()
            keys._write(folder)
            return keys

    @property
    def mch_serial(self) -> str:
        """Serial number of the merchant's certificate, hexadecimal: names it in the Authorization header."""
        return _serial(self.mch_cert)

    @property
    def platform_serial(self) -> str:
        """Serial number of the platform certificate, hexadecimal."""
        return _serial(self.platform_cert)

    @cached_property
    def apps(self) -> dict[str, str]:
        """The merchant's appids -> their secrets."""
        return {self.miniprogram_appid: self.miniprogram_secret, self.appid: self.secret}

    @cached_property
    def salt(self) -> bytes:
        """What the simulated people's openids are derived from: stable for as long as the keys are."""
        return hashlib.sha256(b"people" + self.api_v3_key.encode()).digest()

    def environment(self, url: str) -> dict[str, str]:
        """The settings by which Gateline uses the simulator at `url`, all of them as values."""
        return {
            **self._settings(url),
            "GATELINE_WECHAT_MCH_CERT": self._pem_files()[_MCH_CERT],
            "GATELINE_WECHAT_MCH_KEY": self._pem_files()[_MCH_KEY],
            "GATELINE_WECHAT_API_V3_KEY": self.api_v3_key,
            "GATELINE_WECHAT_PUBLIC_KEY": self._pem_files()[_PUBLIC_KEY],
            "GATELINE_WECHAT_PLATFORM_CERTS": self._pem_files()[_PLATFORM_CERT],
            "GATELINE_WECHAT_MINIPROGRAM_SECRET": self.miniprogram_secret,
            "GATELINE_WECHAT_SECRET": self.secret,
        }

    def environment_files(self, folder: Path, url: str) -> dict[str, str]:
        """The same for a person to copy: keys, certificates and secrets as `file:<path>` of an opened folder."""
        files = {
            "MCH_CERT": _MCH_CERT,
            "MCH_KEY": _MCH_KEY,
            "API_V3_KEY": _API_V3_KEY,
            "PUBLIC_KEY": _PUBLIC_KEY,
            "PLATFORM_CERTS": _PLATFORM_CERT,
            "MINIPROGRAM_SECRET": _MINIPROGRAM_SECRET,
            "SECRET": _SECRET,
        }
        home = folder.resolve()
        return {
            **self._settings(url),
            **{f"GATELINE_WECHAT_{name}": f"file:{home / file}" for name, file in files.items()},
        }

    def _settings(self, url: str) -> dict[str, str]:
        """What is no secret and short enough to read."""
        return {
            "GATELINE_WECHAT_MCHID": self.mchid,
            "GATELINE_WECHAT_PUBLIC_KEY_ID": self.public_key_id,
            "GATELINE_WECHAT_MINIPROGRAM_APPID": self.miniprogram_appid,
            "GATELINE_WECHAT_APPID": self.appid,
            "GATELINE_WECHAT_H5": "1",
            "GATELINE_WECHAT_API_URLS": url,
            "GATELINE_WECHAT_LOGIN_URL": url,
        }

    def _pem_files(self) -> dict[str, str]:
        public = self.pay_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return {
            _MCH_KEY: _pem(self.mch_key),
            _MCH_CERT: self.mch_cert.public_bytes(Encoding.PEM).decode(),
            _PLATFORM_KEY: _pem(self.platform_key),
            _PLATFORM_CERT: self.platform_cert.public_bytes(Encoding.PEM).decode(),
            _PAY_KEY: _pem(self.pay_key),
            _PUBLIC_KEY: public.decode(),
        }

    @classmethod
    def _read(cls, folder: Path) -> WeChatKeys:
        account = msgspec.json.decode((folder / _ACCOUNT).read_bytes(), type=_Account)
        return cls(
            **msgspec.structs.asdict(account),
            mch_key=_private_key((folder / _MCH_KEY).read_bytes()),
            mch_cert=x509.load_pem_x509_certificate((folder / _MCH_CERT).read_bytes()),
            platform_key=_private_key((folder / _PLATFORM_KEY).read_bytes()),
            platform_cert=x509.load_pem_x509_certificate((folder / _PLATFORM_CERT).read_bytes()),
            pay_key=_private_key((folder / _PAY_KEY).read_bytes()),
        )

    def _write(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        with contextlib.suppress(FileNotFoundError):
            (folder / _ACCOUNT).unlink()  # until all is there again, what is there is not whole
        account = _Account(**{name: getattr(self, name) for name in _Account.__struct_fields__})
        texts = {
            **self._pem_files(),
            _API_V3_KEY: self.api_v3_key,
            _MINIPROGRAM_SECRET: self.miniprogram_secret,
            _SECRET: self.secret,
            _ACCOUNT: msgspec.json.encode(account).decode(),
        }
        for name, text in texts.items():
            _write_private(folder / name, text)


def _write_private(path: Path, text: str) -> None:
    """A file that only its owner reads; whole or not there at all."""
    half = path.with_name(path.name + ".half")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    half.replace(path)


def _digits(count: int) -> str:
    return "".join(secrets.choice(string.digits) for _ in range(count))


def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _private_key(pem: bytes) -> rsa.RSAPrivateKey:
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("not an RSA key")
    return key


def _pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _serial(certificate: x509.Certificate) -> str:
    return format(certificate.serial_number, "040X")


def _certificate(key: rsa.RSAPrivateKey, name: str, issuer: str) -> x509.Certificate:
    who = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, issuer),
        ]
    )
    since = datetime.now(UTC) - timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(b"\x5d" + secrets.token_bytes(19)))  # 20 bytes, positive: 40 digits
        .not_valid_before(since)
        .not_valid_after(since + timedelta(days=_CERTIFICATE_DAYS))
        .sign(key, SHA256())
    )
