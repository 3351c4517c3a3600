"""The configuration: one frozen struct, read from the environment once, at start, and validated as a whole.

This is the only module that reads the environment. Every setting is one line of `SETTINGS`: its name, its default, how
it is read and its legal range; the README's table is made from the same lines.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qs, urlsplit

import msgspec

SECRET_BYTES_MIN = 32  # 256 bits: as strong as HMAC-SHA256 and AES-256 themselves


class Ack(enum.Enum):
    """When a decision may be told to the client. What each level can lose is stated in README."""

    MEMORY = "memory"
    FSYNC = "fsync"
    REPLICA = "replica"


class ConfigError(Exception):
    """The environment is not a legal configuration; the message has one line per fault, with the legal range."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that may differ between two installations. Durations in the unit that ends the name."""

    redis_url: str | None
    database_url: str | None
    host: str
    port: int
    public_url: str
    data_dir: Path
    shards: int
    ack: Ack
    hold_s: int
    qr_ttl_s: int
    buyer_token_s: int
    operator_token_s: int
    qr_keys: tuple[tuple[int, bytes], ...]
    jwt_keys: tuple[tuple[str, bytes], ...]
    gateway_secrets: tuple[bytes, ...]
    gateway_url: str
    demo_login: bool
    stream_entries_max: int
    redis_memory_mb_max: int
    postgres_pool: int
    log_level: str


class Setting(NamedTuple):
    """One environment variable: `read` turns its text into the value or raises ValueError."""

    env: str
    field: str
    default: str | None  # None: must be given
    read: Callable[[str], Any]
    legal: str
    meaning: str
    absent: Any = ()  # stands in for what must be given, where it is not needed


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(
            r"[0-9]{1,9}", text
        ):  # int() would take "1_000", " 1" and digits of other scripts
            raise ValueError
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return read


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError
        return text

    return read


def _web_address(text: str) -> str:
    """Something that a path can be put behind."""
    parts = _url_parts(text, "http", "https")
    if not parts.hostname or "?" in text or "#" in text:
        raise ValueError
    return text.rstrip("/")


def _optional_web_address(text: str) -> str:
    return _web_address(text) if text else ""


def _redis_url(text: str) -> str | None:
    if not text:
        return None
    parts = _url_parts(text, "redis", "rediss", "unix")
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise ValueError
    return text


def _postgres_url(text: str) -> str | None:
    if not text:
        return None
    parts = _url_parts(text, "postgresql", "postgres")
    if not parts.hostname and "host" not in parse_qs(parts.query):  # the folder of a socket
        raise ValueError
    return text


def _url_parts(text: str, *schemes: str) -> SplitResult:
    if not text.isprintable() or " " in text:  # urlsplit() would leave line ends out
        raise ValueError
    parts = urlsplit(text)
    if parts.scheme not in schemes or parts.port == 0:  # .port raises ValueError for what is none
        raise ValueError
    return parts


def _folder(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError
    return Path(text)


def _host(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z.:_-]{1,253}", text):
        raise ValueError
    return text


def _flag(text: str) -> bool:
    return {"1": True, "0": False}[text]


def _secret(text: str) -> bytes:
    value = base64.b64decode(text, validate=True)
    if len(value) < SECRET_BYTES_MIN:
        raise ValueError
    return value


def _secrets(text: str) -> tuple[bytes, ...]:
    return tuple(_secret(part) for part in text.split(","))


def _jwt_keys(text: str) -> tuple[tuple[str, bytes], ...]:
    keys = []
    for part in text.split(","):
        kid, _, secret = part.partition(":")
        if not re.fullmatch(r"[0-9A-Za-z_-]{1,32}", kid):
            raise ValueError
        keys.append((kid, _secret(secret)))
    if len({kid for kid, _ in keys}) != len(keys):
        raise ValueError
    return tuple(keys)


def _qr_keys(text: str) -> tuple[tuple[int, bytes], ...]:
    read_id = _integer(0, 255)
    keys = tuple((read_id(kid), secret) for kid, secret in _jwt_keys(text))
    if any(len(secret) != SECRET_BYTES_MIN for _, secret in keys):
        raise ValueError
    if not len(keys) == len({kid for kid, _ in keys}) == len({secret for _, secret in keys}):
        raise ValueError
    return keys


_STRONG = "base64 of 32 bytes or more (`gateline keys` makes all of them)"

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "REDIS_URL",
        "redis_url",
        "",
        _redis_url,
        "redis://, rediss:// or unix:// address, or empty",
        "Redis >= 7 or Valkey >= 7.2; empty: the embedded Valkey",
    ),
    Setting(
        "DATABASE_URL",
        "database_url",
        "",
        _postgres_url,
        "postgresql:// address, or empty",
        "PostgreSQL >= 15; empty: the embedded one",
    ),
    Setting("GATELINE_HOST", "host", "127.0.0.1", _host, "a host name or address", "where to listen"),
    Setting(
        "GATELINE_PORT", "port", "8080", _integer(0, 65535), "0 to 65535; 0: any free one", "where to listen"
    ),
    Setting(
        "GATELINE_PUBLIC_URL",
        "public_url",
        "",
        _optional_web_address,
        "http:// or https:// address, or empty",
        "how clients and gateways reach us; empty: http://host:port",
    ),
    Setting(
        "GATELINE_DATA_DIR",
        "data_dir",
        ".gateline",
        _folder,
        "a folder",
        "home of the embedded servers and of run files",
    ),
    Setting(
        "GATELINE_SHARDS",
        "shards",
        "1",
        _integer(1, 16),
        "1 to 16",
        "shards of the tickets in Redis; the same in every process",
    ),
    Setting(
        "GATELINE_ACK",
        "ack",
        "fsync",
        Ack,
        "memory, fsync or replica",
        "when a decision is told to the client (see Acknowledgement)",
    ),
    Setting(
        "GATELINE_HOLD_S",
        "hold_s",
        "900",
        _integer(1, 86_400),
        "1 to 86400 seconds",
        "how long an unpaid order holds its units",
    ),
    Setting(
        "GATELINE_QR_TTL_S",
        "qr_ttl_s",
        "60",
        _integer(1, 60),
        "1 to 60 seconds",
        "how long a QR token may be scanned",
    ),
    Setting(
        "GATELINE_BUYER_TOKEN_S",
        "buyer_token_s",
        "7200",
        _integer(60, 604_800),
        "60 to 604800 seconds",
        "life of a buyer's token",
    ),
    Setting(
        "GATELINE_OPERATOR_TOKEN_S",
        "operator_token_s",
        "43200",
        _integer(60, 86_400),
        "60 to 86400 seconds",
        "life of an operator's token: a shift",
    ),
    Setting(
        "GATELINE_QR_KEYS",
        "qr_keys",
        None,
        _qr_keys,
        "id:key,… with ids 0 to 255, keys base64 of exactly 32 bytes",
        "keys of QR tokens; the first issues, all are accepted",
    ),
    Setting(
        "GATELINE_JWT_KEYS",
        "jwt_keys",
        None,
        _jwt_keys,
        f"id:key,… with ids of A-Z a-z 0-9 _ -, keys {_STRONG}",
        "keys of the bearer tokens; the first signs, all are accepted",
    ),
    Setting(
        "GATELINE_GATEWAY_SECRETS",
        "gateway_secrets",
        None,
        _secrets,
        f"secret,… each {_STRONG}",
        "HMAC secrets shared with the payment gateway; the first signs, all are accepted",
    ),
    Setting(
        "GATELINE_GATEWAY_URL",
        "gateway_url",
        None,
        _web_address,
        "http:// or https:// address",
        "the hosted cashier of the payment gateway",
        absent="",
    ),
    Setting(
        "GATELINE_DEMO_LOGIN",
        "demo_login",
        "0",
        _flag,
        "0 or 1",
        "1: POST /auth/demo/login hands a buyer's token to anyone; never in production",
    ),
    Setting(
        "GATELINE_STREAM_ENTRIES_MAX",
        "stream_entries_max",
        "5000000",
        _integer(1_000, 100_000_000),
        "1000 to 100000000 entries",
        "unflushed entries of a stream past which scans and orders get 503",
    ),
    Setting(
        "GATELINE_REDIS_MEMORY_MB_MAX",
        "redis_memory_mb_max",
        "0",
        _integer(0, 1_000_000),
        "0 to 1000000 MiB; 0: no bound of ours",
        "memory of Redis past which scans and orders get 503",
    ),
    Setting(
        "GATELINE_POSTGRES_POOL",
        "postgres_pool",
        "10",
        _integer(2, 100),
        "2 to 100",
        "Postgres connections of one process",
    ),
    Setting(
        "GATELINE_LOG_LEVEL",
        "log_level",
        "info",
        _one_of("debug", "info", "warning", "error"),
        "debug, info, warning or error",
        "least level of the JSON log on standard error",
    ),
)


def load(environment: Mapping[str, str], *, serving: bool = True) -> Config:
    """Read and validate the whole environment.

    `serving` False: for a command that neither issues nor verifies anything, so that secrets may be missing (they are
    then empty).

    Raises ConfigError naming every faulty or missing setting, with its legal range; never with its value, which may be
    a secret. A name that begins with GATELINE_ and is not known is a fault: it is most likely misspelt.
    """
    values: dict[str, Any] = {}
    faults = []
    for setting in SETTINGS:
        text = environment.get(setting.env, setting.default)
        if text is None and not serving:
            values[setting.field] = setting.absent
            continue
        if text is None:
            faults.append(f"{setting.env} is missing: {setting.meaning}. Legal: {setting.legal}.")
            continue
        try:
            values[setting.field] = setting.read(text)
        except (ValueError, KeyError, binascii.Error):
            faults.append(f"{setting.env} is not legal. Legal: {setting.legal}.")
    known = {setting.env for setting in SETTINGS}
    faults += [
        f"{name} is not a setting of Gateline; see the table in README."
        for name in sorted(environment)
        if name.startswith("GATELINE_") and name not in known
    ]
    if faults:
        raise ConfigError("\n".join(faults))
    config = Config(**values)
    if not config.public_url:
        host = f"[{config.host}]" if ":" in config.host else config.host
        config = msgspec.structs.replace(config, public_url=f"http://{host}:{config.port}")
    return config
