"""The catalog in memory: every process keeps one picture of it and follows changes within a second."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from server.domain.catalog import Directory
from server.domain.errors import ErrorCode, Refusal
from server.limits import DIRECTORY_POLL_S
from server.store import catalog
from server.store.pool import Database
from server.telemetry import alert

_log: Final = structlog.get_logger(__name__)


class DirectoryFollower:
    """Holds the current picture. While Postgres is away the last one stays: gates go on."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._current: Directory | None = None

    @property
    def current(self) -> Directory:
        """The picture. Raises Refusal(POSTGRES_UNAVAILABLE) when there has never been one."""
        if self._current is None:
            raise Refusal(ErrorCode.POSTGRES_UNAVAILABLE)
        return self._current

    @property
    def loaded(self) -> bool:
        """Whether there is a picture at all."""
        return self._current is not None

    async def refresh(self) -> None:
        """Read the catalog again if its version is another. Raises Refusal(POSTGRES_UNAVAILABLE)."""
        async with self._db.connection() as connection:
            version = await catalog.directory_version(connection)
        if self._current is not None and version == self._current.version:
            return
        async with self._db.transaction(read_only=True) as connection:
            self._current = await catalog.read_directory(connection)
        _log.info("directory_read", version=self._current.version)

    async def follow(self) -> None:
        """Refresh for ever, whatever happens: a follower that ends would leave disabled operators in."""
        stale: str | None = None
        while True:
            try:
                await self.refresh()
                stale = None
            except Refusal as refusal:
                if stale != refusal.code.name:  # once per outage, not once per try
                    stale = refusal.code.name
                    _log.warning("directory_stale", code=stale)
            except Exception as fault:
                if stale != type(fault).__name__:
                    stale = type(fault).__name__
                    alert("DIRECTORY_STALE", error=stale)
                    _log.exception("directory_stale")
            await asyncio.sleep(DIRECTORY_POLL_S)
