"""The configuration: one frozen struct, read from the environment once, at start, and validated as a whole.

This is the only package that reads the environment. Every setting is one line of `SETTINGS`: its name, its default, how
it is read and its legal range; the README's table is made from the same lines.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from server.config.reading import DEMO_MARK, Setting
from server.config.settings import SERVER_SETTINGS, SHARDS_MAX, Ack
from server.config.wechat import WECHAT_HOLD_S_MIN, WECHAT_SETTINGS, WeChatAccount, account

__all__ = [
    "FILE",
    "SETTINGS",
    "SHARDS_MAX",
    "Ack",
    "Config",
    "ConfigError",
    "Setting",
    "WeChatAccount",
    "load",
]

SETTINGS: Final = (*SERVER_SETTINGS, *WECHAT_SETTINGS)
FILE: Final = "file:"  # a value that stands in a file, as secrets are handed over by most platforms


class ConfigError(Exception):
    """The environment is not a legal configuration; the message has one line per fault, with the legal range."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that may differ between two installations. Durations in the unit that ends the name."""

    redis_url: str | None
    database_url: str | None
    owner_database_url: str | None
    host: str
    port: int
    public_url: str
    client_ip_header: str
    data_dir: Path
    shards: int
    ack: Ack
    hold_s: int
    buyer_orders_max: int
    qr_ttl_s: int
    offline_window_s: int
    buyer_token_s: int
    operator_token_s: int
    qr_keys: tuple[tuple[int, bytes], ...]
    jwt_keys: tuple[tuple[str, bytes], ...]
    gateway_secrets: tuple[bytes, ...]
    gateway_url: str
    demo_login: bool
    guest_login: bool
    guests_a_minute_max: int
    stream_entries_max: int
    redis_memory_mb_max: int
    postgres_pool: int
    log_level: str
    wechat: WeChatAccount | None = None

    def __repr__(self) -> str:
        """Without any value: a configuration that is printed by mistake must not bring a secret into a log."""
        return "Config(...)"


def load(environment: Mapping[str, str], *, serving: bool = True, demo: bool = False) -> Config:
    """Read and validate the whole environment. A value `file:PATH` is what stands in that file.

    `serving` False: for a command that neither issues nor verifies anything, so that secrets may be missing (they are
    then empty). `demo`: the demo itself, whose keys are refused everywhere else.

    Raises ConfigError naming every faulty or missing setting, with its legal range; never with its value, which may be
    a secret. A name that begins with GATELINE_ and is not known is a fault: it is most likely misspelt.
    """
    server, faults = _read(SERVER_SETTINGS, environment, serving=serving)
    wechat, wechat_faults = _read(WECHAT_SETTINGS, environment, serving=serving)
    known = {setting.env for setting in SETTINGS}
    faults += wechat_faults
    faults += [
        f"{name} is not a setting of Gateline; see the table in README."
        for name in sorted(environment)
        if name.startswith("GATELINE_") and name not in known
    ]
    if not demo:
        faults += [
            f"{env} holds a key of the demo, which is for `gateline demo` alone; `gateline keys` makes others."
            for env, keys in _secrets(server)
            if any(key.startswith(DEMO_MARK) for key in keys)
        ]
    if server.get("owner_database_url") and not server.get("database_url", True):
        faults.append("GATELINE_OWNER_DATABASE_URL needs DATABASE_URL beside it: as whom the server works.")
    if faults:
        raise ConfigError("\n".join(faults))
    if not server["public_url"]:
        host = f"[{server['host']}]" if ":" in server["host"] else server["host"]
        server["public_url"] = f"http://{host}:{server['port']}"
    merchant, faults = account(wechat, server["public_url"])
    if merchant and server["hold_s"] < WECHAT_HOLD_S_MIN:
        faults.append(
            f"GATELINE_HOLD_S must be {WECHAT_HOLD_S_MIN} or more with WeChat Pay: a buyer has to launch it."
        )
    if bool(server["gateway_url"]) != bool(server["gateway_secrets"]):
        faults.append("GATELINE_GATEWAY_URL and GATELINE_GATEWAY_SECRETS belong together.")
    elif not faults and not (server["gateway_url"] or merchant):
        faults.append(
            "There is no way to be paid: GATELINE_GATEWAY_URL and GATELINE_GATEWAY_SECRETS, or GATELINE_WECHAT_MCHID."
        )
    if faults and serving:
        raise ConfigError("\n".join(faults))
    return Config(**server, wechat=merchant)


def _secrets(server: Mapping[str, Any]) -> list[tuple[str, list[bytes]]]:
    """The keys of the settings that could be read."""
    return [
        ("GATELINE_QR_KEYS", [key for _, key in server.get("qr_keys", ())]),
        ("GATELINE_JWT_KEYS", [key for _, key in server.get("jwt_keys", ())]),
        ("GATELINE_GATEWAY_SECRETS", list(server.get("gateway_secrets", ()))),
    ]


def _read(
    settings: Iterable[Setting], environment: Mapping[str, str], *, serving: bool
) -> tuple[dict[str, Any], list[str]]:
    """Values by field, and what is wrong with them."""
    values: dict[str, Any] = {}
    faults = []
    for setting in settings:
        text = environment.get(setting.env, setting.default)
        if text is None and not serving:
            values[setting.field] = setting.absent
            continue
        if text is None:
            faults.append(f"{setting.env} is missing: {setting.meaning}. Legal: {setting.legal}.")
            continue
        try:
            values[setting.field] = setting.read(content(text))
        except OSError as fault:
            faults.append(f"{setting.env} names a file that cannot be read: {fault.strerror}.")
        except (ValueError, KeyError, binascii.Error):
            faults.append(f"{setting.env} is not legal. Legal: {setting.legal}.")
    return values, faults


def content(text: str) -> str:
    """What a setting says, in its own text or in the file that it names. Raises OSError, UnicodeDecodeError."""
    if not text.startswith(FILE):
        return text
    return Path(text.removeprefix(FILE)).read_text(encoding="utf-8").strip()
