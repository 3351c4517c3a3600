"""Valkey and PostgreSQL without installing anything: they stand in when REDIS_URL or DATABASE_URL is unset.

Start here. `process` starts and ends children, `embedded_server` is what both servers share,
`embedded_valkey` and `embedded_postgres` are the two, and `postgres_home` says where PostgreSQL's data is and
as whom it runs.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from server.dev.embedded_postgres import EmbeddedPostgres
from server.dev.embedded_valkey import AppendFsync, EmbeddedValkey
from server.dev.process import EmbeddedServerError

__all__ = ["EmbeddedPostgres", "EmbeddedServerError", "EmbeddedServers", "EmbeddedValkey", "embedded"]


@dataclass(frozen=True)
class EmbeddedServers:
    """The servers that were asked for, running; None for one that was not."""

    valkey: EmbeddedValkey | None
    postgres: EmbeddedPostgres | None

    @property
    def redis_url(self) -> str | None:
        """What REDIS_URL would say."""
        return self.valkey.url if self.valkey else None

    @property
    def database_url(self) -> str | None:
        """What DATABASE_URL would say."""
        return self.postgres.url if self.postgres else None

    @property
    def owner_database_url(self) -> str | None:
        """What GATELINE_OWNER_DATABASE_URL would say."""
        return self.postgres.owner_url if self.postgres else None


@contextmanager
def embedded(
    data_dir: Path,
    *,
    need_valkey: bool,
    need_postgres: bool,
    appendfsync: AppendFsync = "always",
    postgres_settings: Mapping[str, str] | None = None,
    erase: bool = False,
) -> Iterator[EmbeddedServers]:
    """Runs the servers that are needed, both starting at once, and stops them at the end.

    `data_dir` (a folder, made when missing) survives a restart and may be deleted while nothing runs on it.
    To be entered before the event loop starts, as starting blocks: about a second the first time, a tenth of
    that later.

    `erase` deletes the databases at the end: for tests, since what root keeps may lie outside of a temporary
    `data_dir` and then outlives it by a day.

    Raises EmbeddedServerError when another process uses the folder, or a server does not start.
    """
    valkey = EmbeddedValkey(data_dir, appendfsync=appendfsync) if need_valkey else None
    postgres = EmbeddedPostgres(data_dir, settings=postgres_settings) if need_postgres else None
    servers = [server for server in (valkey, postgres) if server]
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.erase if erase else server.stop)
            server.launch()
        for server in servers:
            server.wait_until_ready()
        yield EmbeddedServers(valkey, postgres)
