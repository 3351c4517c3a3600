"""What the two embedded servers share: one owner, a loopback port, and a start and stop that are bounded."""

import contextlib
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from server.dev.owner_lock import OwnerLock
from server.dev.process import POLL_S, EmbeddedServerError, end, kill, rotate, tail

HOST = "127.0.0.1"  # nothing embedded is ever reachable from another machine
# Below the ports that systems hand to outgoing connections (32768 and up on Linux, 49152 elsewhere): so a
# stopped server finds its port free again, and a client that retries meanwhile cannot connect to itself.
PORT_FIRST, PORT_COUNT = 20_000, 12_000
PORT_TRIES = 50  # random picks; even with nine ports of ten taken, all fail once in two hundred starts
# Starts that may fail for a passing reason: a port taken between our look and the server's bind, or a dead
# server's last child that still ends. Five seconds in all.
LAUNCH_TRIES = 50
RELAUNCH_PAUSE_S = 0.1
START_TIMEOUT_S = 60.0  # an unclean stop is repaired first: log replay, minutes of writes in seconds


class EmbeddedServer(ABC):
    """A server of ours in a child process, its data under a folder that survives restarts.

    Not safe for use from two threads at once; any one thread may start it.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    stop_timeout_s: ClassVar[float]

    def __init__(self, data_dir: Path, port: int) -> None:
        self._data_dir = data_dir.resolve()
        self._port_asked = port
        self._port = port
        self._title = f"the embedded {self.name} in {self._data_dir}"
        self._lock = OwnerLock(self._data_dir / f"{self.name}.lock", self._title)
        self._process: subprocess.Popen[bytes] | None = None
        self._launches_left = 0
        self.log = self._data_dir / "log" / f"{self.name}.log"

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; 0 before the first start, then kept unless another process takes it."""
        return self._port

    @property
    def running(self) -> bool:
        """Whether the process lives (it may still be starting)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The server's process id. Raises EmbeddedServerError when it was not started."""
        if self._process is None:
            raise EmbeddedServerError(f"{self._title} is not started")
        return self._process.pid

    def start(self) -> None:
        """Starts the server and returns when it serves, with the data of its last stop.

        Raises EmbeddedServerError when another process uses the folder, or the server does not serve within
        START_TIMEOUT_S; the message then holds the end of its log.
        """
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """The first half of `start`: returns once the process exists, so that two servers start at once."""
        if self.running:
            raise EmbeddedServerError(f"{self._title} is already started, as process {self.pid}")
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            rotate(self.log)
            self._prepare()
            self._launches_left = LAUNCH_TRIES
            self._spawn()
        except OSError as error:
            self.stop()
            raise EmbeddedServerError(f"{self._title} cannot start: {error}") from error
        except BaseException:
            self.stop()
            raise

    def wait_until_ready(self) -> None:
        """The second half of `start`."""
        deadline = time.monotonic() + START_TIMEOUT_S
        try:
            while not self._is_ready():
                if not self.running and not self._relaunch():
                    raise EmbeddedServerError(
                        f"{self._title} ended as it started; its log:\n{tail(self.log)}"
                    )
                if time.monotonic() > deadline:
                    waited = f"did not serve within {START_TIMEOUT_S:.0f} s"
                    raise EmbeddedServerError(f"{self._title} {waited}; its log:\n{tail(self.log)}")
                time.sleep(POLL_S)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops the server in order, within `stop_timeout_s`, and lets the folder go; may be repeated."""
        try:
            if self._process is not None:
                end(self._process, self.stop_signal, self.stop_timeout_s)
        finally:
            self._process = None
            self._let_go()

    def kill(self) -> None:
        """Kills the server with SIGKILL, as a failing machine would; the folder stays ours until `stop`."""
        if self._process is not None:
            kill(self._process)
            self._process = None

    def erase(self) -> None:
        """Stops the server and deletes its data. Raises EmbeddedServerError when another process uses it."""
        self.stop()
        if not self._data_dir.exists():
            return
        self._lock.acquire()
        try:
            self._delete_data()
        finally:
            self._let_go()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    @abstractmethod
    def url(self) -> str:
        """Where to connect, with the password. Raises EmbeddedServerError before the first start."""

    @abstractmethod
    def _prepare(self) -> None:
        """Makes the folder ready, and ends a server that outlived its owner; the folder is locked."""

    @abstractmethod
    def _delete_data(self) -> None:
        """Deletes what `_prepare` made; called with the folder locked, and no server of ours running."""

    @abstractmethod
    def _run(self) -> subprocess.Popen[bytes]:
        """Starts the process on `port`."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Says whether our process serves."""

    def _is_transient(self) -> bool:
        """Says whether the process, which ended as it started, may be started again."""
        return False

    def _let_go(self) -> None:
        self._lock.release()

    def _spawn(self) -> None:
        self._launches_left -= 1
        if not (self._port and port_is_free(self._port)):
            if self._port_asked:
                raise EmbeddedServerError(f"{self._title} cannot start: port {self._port} is in use")
            self._port = free_port()
        self._process = self._run()

    def _relaunch(self) -> bool:
        """Tries again when the reason may go: a port just taken, or the last child of a dead server."""
        lost_port = not self._port_asked and not port_is_free(self._port)
        if self._launches_left <= 0 or not (lost_port or self._is_transient()):
            return False
        time.sleep(RELAUNCH_PAUSE_S)
        self._spawn()
        return True


def port_is_free(port: int) -> bool:
    """Says whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an earlier run that are still closing do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return True
    return False


def free_port() -> int:
    """Returns a port of 127.0.0.1 that no one listens on. Raises EmbeddedServerError after PORT_TRIES."""
    for _ in range(PORT_TRIES):
        port = PORT_FIRST + secrets.randbelow(PORT_COUNT)
        if port_is_free(port):
            return port
    raise EmbeddedServerError(f"no free port found from {PORT_FIRST} to {PORT_FIRST + PORT_COUNT - 1}")
