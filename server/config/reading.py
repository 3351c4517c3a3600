"""Reading one setting: from its text to its value, or ValueError (KeyError, binascii.Error) for what is not legal."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qs, urlsplit

SECRET_BYTES_MIN = 32  # 256 bits: as strong as HMAC-SHA256 and AES-256 themselves


class Setting(NamedTuple):
    """One environment variable: `read` turns its text into the value or raises ValueError."""

    env: str
    field: str
    default: str | None  # None: must be given
    read: Callable[[str], Any]
    legal: str
    meaning: str
    absent: Any = ()  # stands in for what must be given, where it is not needed
    rotates: bool = False  # a running process takes another value when it reads its keys again (SIGHUP)


def integer(low: int, high: int) -> Callable[[str], int]:
    """A whole number within a range."""

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


def one_of(*allowed: str) -> Callable[[str], str]:
    """One of these words."""

    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError
        return text

    return read


def web_address(text: str) -> str:
    """Something that a path can be put behind."""
    parts = url_parts(text, "http", "https")
    if not parts.hostname or "?" in text or "#" in text:
        raise ValueError
    return text.rstrip("/")


def optional_web_address(text: str) -> str:
    """The same, or empty."""
    return web_address(text) if text else ""


def redis_url(text: str) -> str | None:
    """An address that redis-py takes; empty: None."""
    if not text:
        return None
    parts = url_parts(text, "redis", "rediss", "unix")
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise ValueError
    return text


def postgres_url(text: str) -> str | None:
    """An address that asyncpg takes; empty: None."""
    if not text:
        return None
    parts = url_parts(text, "postgresql", "postgres")
    if not parts.hostname and "host" not in parse_qs(parts.query):  # the folder of a socket
        raise ValueError
    return text


def url_parts(text: str, *schemes: str) -> SplitResult:
    """An address of one of these schemes, in its parts."""
    if not text.isprintable() or " " in text:  # urlsplit() would leave line ends out
        raise ValueError
    parts = urlsplit(text)
    if parts.scheme not in schemes or parts.port == 0:  # .port raises ValueError for what is none
        raise ValueError
    return parts


def folder(text: str) -> Path:
    """A place in the file system."""
    if not text or "\0" in text:
        raise ValueError
    return Path(text)


def host(text: str) -> str:
    """A host name or an address."""
    if not re.fullmatch(r"[0-9A-Za-z.:_-]{1,253}", text):
        raise ValueError
    return text


def flag(text: str) -> bool:
    """0 or 1."""
    return {"1": True, "0": False}[text]


def secret(text: str) -> bytes:
    """Base64 of 32 bytes or more."""
    value = base64.b64decode(text, validate=True)
    if len(value) < SECRET_BYTES_MIN:
        raise ValueError
    return value


def secrets(text: str) -> tuple[bytes, ...]:
    """Several of them, by commas; empty: none."""
    return tuple(secret(part) for part in text.split(",")) if text else ()


def jwt_keys(text: str) -> tuple[tuple[str, bytes], ...]:
    """`id:key,…`, each id and each key once."""
    keys = []
    for part in text.split(","):
        kid, _, key = part.partition(":")
        if not re.fullmatch(r"[0-9A-Za-z_-]{1,32}", kid):
            raise ValueError
        keys.append((kid, secret(key)))
    if not len(keys) == len({kid for kid, _ in keys}) == len({key for _, key in keys}):
        raise ValueError
    return tuple(keys)


def qr_keys(text: str) -> tuple[tuple[int, bytes], ...]:
    """`id:key,…` with ids of one byte and keys of exactly 32 bytes, each once."""
    read_id = integer(0, 255)
    keys = tuple((read_id(kid), key) for kid, key in jwt_keys(text))
    if any(len(key) != SECRET_BYTES_MIN for _, key in keys):
        raise ValueError
    if len({kid for kid, _ in keys}) != len(keys):  # two spellings of one
        raise ValueError
    return keys


def header(text: str) -> str:
    """The name of an HTTP header, or empty."""
    if not re.fullmatch(r"[A-Za-z0-9-]{0,64}", text):
        raise ValueError
    return text
