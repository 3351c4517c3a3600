"""Which databases a command works on: those of the environment, those that another process has embedded, or our own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from server.config import Ack, Config
from server.dev.embedded import embedded

_FILE: Final = "addresses.json"  # where the owner of the embedded servers says how to reach them
_PROBE_S_MAX: Final = 1.0


@contextmanager
def databases(config: Config) -> Iterator[Config]:
    """The configuration with both databases named, embedded ones running for as long as the context.

    A second process on the same data folder joins the embedded servers of the first. To be entered before the event
    loop starts. Raises EmbeddedServerError when they cannot be started.
    """
    if config.redis_url and config.database_url:
        yield config
        return
    joined = _running(config.data_dir)
    if joined is not None:
        yield _named(config, joined)
        return
    with embedded(
        config.data_dir,
        need_valkey=config.redis_url is None,
        need_postgres=config.database_url is None,
        appendfsync="everysec" if config.ack is Ack.MEMORY else "always",
    ) as servers:
        addresses = Addresses(servers.redis_url, servers.database_url, servers.owner_database_url)
        file = config.data_dir / _FILE
        _write(file, addresses)
        try:
            yield _named(config, addresses)
        finally:
            file.unlink(missing_ok=True)


class Addresses(msgspec.Struct, frozen=True):
    """How the embedded servers of a data folder are reached; None for one that is not needed there."""

    redis_url: str | None = None
    database_url: str | None = None
    owner_database_url: str | None = None


def _named(config: Config, addresses: Addresses) -> Config:
    if config.database_url is None:
        config = msgspec.structs.replace(
            config, database_url=addresses.database_url, owner_database_url=addresses.owner_database_url
        )
    return msgspec.structs.replace(config, redis_url=config.redis_url or addresses.redis_url)


def _write(file: Path, addresses: Addresses) -> None:
    """The addresses hold passwords: for this user's eyes only, from the first byte on."""
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(msgspec.json.encode(addresses))


def _running(data_dir: Path) -> Addresses | None:
    """The addresses that another process has left, if the servers behind them answer."""
    try:
        addresses = msgspec.json.decode((data_dir / _FILE).read_bytes(), type=Addresses)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    if all(_answers(url) for url in (addresses.redis_url, addresses.database_url) if url):
        return addresses
    return None


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_PROBE_S_MAX).close()
    except OSError:
        return False
    return True
