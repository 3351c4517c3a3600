"""Which databases a command works on: those of the environment, those that another process has embedded, or our own."""

from __future__ import annotations

import json
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
        yield _named(config, *joined)
        return
    with embedded(
        config.data_dir,
        need_valkey=config.redis_url is None,
        need_postgres=config.database_url is None,
        appendfsync="everysec" if config.ack is Ack.MEMORY else "always",
    ) as servers:
        file = config.data_dir / _FILE
        _write(
            file, {"redis_url": servers.redis_url, "database_url": servers.database_url, "pid": os.getpid()}
        )
        try:
            yield _named(config, servers.redis_url, servers.database_url)
        finally:
            file.unlink(missing_ok=True)


def _named(config: Config, redis_url: str | None, database_url: str | None) -> Config:
    return msgspec.structs.replace(
        config,
        redis_url=config.redis_url or redis_url,
        database_url=config.database_url or database_url,
    )


def _write(file: Path, addresses: dict[str, object]) -> None:
    """The addresses hold passwords: for this user's eyes only, from the first byte on."""
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(addresses, stream)


def _running(data_dir: Path) -> tuple[str | None, str | None] | None:
    """The addresses that another process has left, if the servers behind them answer."""
    try:
        addresses = json.loads((data_dir / _FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    redis_url, database_url = addresses.get("redis_url"), addresses.get("database_url")
    if all(_answers(url) for url in (redis_url, database_url) if url):
        return redis_url, database_url
    return None


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_PROBE_S_MAX).close()
    except OSError:
        return False
    return True
