"""Child processes of the embedded servers: start them tied to this process, watch them, and end them by pid.

Nothing here looks for a process by name: what is ended is either our own child, or a pid from a file of ours
whose command line still names our data.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO

POLL_S = 0.01  # between two looks at a process: well below what a person notices, no load worth naming
KILL_WAIT_S = 10.0  # SIGKILL cannot be refused; longer than this means the disk below it hangs
LEFTOVER_WAIT_S = 10.0  # a server whose owner died has been told to end already; then it is killed
LOG_TAIL_BYTES = 4_000  # of a server's log, shown when it does not start: the reason is in the last lines
PS_TIMEOUT_S = 5.0  # `ps`, asked only where there is no /proc

HAS_PROC = Path("/proc/self/stat").exists()  # Linux; elsewhere `ps` is asked
TETHER = Path(__file__).with_name("tether.py")


class EmbeddedServerError(RuntimeError):
    """An embedded server cannot be started, reached or used; the message says why and what to do."""


@dataclass(frozen=True)
class Account:
    """The unprivileged user that a server runs as, when this process is root."""

    uid: int
    gid: int


_Child = subprocess.Popen[bytes]
_Calls = queue.SimpleQueue[tuple[Future[_Child], Callable[[], _Child]]]


class _Forker:
    """Forks every child from one thread that lives as long as this process.

    The tie to the parent (PR_SET_PDEATHSIG) holds to the THREAD that forked: a server started from a worker
    thread would die with it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._calls: _Calls

    def call(self, fork: Callable[[], _Child]) -> _Child:
        """Runs `fork` in the thread and returns what it made, or raises what it raised."""
        with self._lock:
            if self._pid != os.getpid():  # first use, or a forked copy of us, which has no such thread
                self._pid = os.getpid()
                self._calls = queue.SimpleQueue()
                threading.Thread(target=_serve, args=(self._calls,), name="forker", daemon=True).start()
        made: Future[_Child] = Future()
        self._calls.put((made, fork))
        return made.result()


def _serve(calls: _Calls) -> None:
    while True:
        made, fork = calls.get()
        try:
            made.set_result(fork())
        except BaseException as error:  # it belongs to the caller, whatever it is
            made.set_exception(error)


_forker = _Forker()


def spawn(
    command: Sequence[str],
    *,
    folder: Path,
    log: Path,
    account: Account | None,
    death_signal: signal.Signals,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Starts `command` in `folder` as `account`, its output appended to `log`.

    It has a session of its own, so that the terminal's Ctrl-C reaches only us, an environment of its own, so
    that no secret of ours is in it, and on Linux gets `death_signal` when this process ends in any way.

    Raises EmbeddedServerError when nothing can be executed here.
    """
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    tie = [sys.executable, "-I", "-S", str(TETHER)]
    tie += [str(number) for number in (os.getpid(), int(death_signal), uid, gid)]
    environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": str(folder)}
    with open_log(log) as output:
        try:
            return _forker.call(
                lambda: subprocess.Popen(
                    [*tie, *command],
                    cwd=folder,
                    env=environment,
                    stdin=stdin,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )
        except OSError as error:
            raise EmbeddedServerError(f"cannot start {command[0]}: {error}") from error


def open_log(log: Path) -> IO[bytes]:
    """Opens a log to append to, readable by its owner only."""
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def rotate(log: Path) -> None:
    """Makes room for the log of a new start; of the starts before, only the last one's is kept."""
    with contextlib.suppress(FileNotFoundError):
        log.replace(log.with_name(log.name + ".previous"))


def tail(log: Path) -> str:
    """Returns the end of a log, at most LOG_TAIL_BYTES of it."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return "(no log)"


def end(process: subprocess.Popen[bytes], polite: signal.Signals, timeout_s: float) -> None:
    """Asks our child to end, waits at most `timeout_s` seconds, then kills it and whatever it started."""
    if process.poll() is not None:
        return
    process.send_signal(polite)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills our child and its children at one moment, as a failing machine would."""
    if process.poll() is not None:
        return
    # While it is stopped it neither makes children nor reaps them, so that no pid below can be another's.
    process.send_signal(signal.SIGSTOP)
    for child in children(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    process.kill()
    process.wait(KILL_WAIT_S)


def end_leftover(pid: int, marker: Path, polite: signal.Signals) -> None:
    """Ends the server `pid` that outlived its owner, if it still is one: its command line names `marker`.

    Raises EmbeddedServerError when it is not ours to end, or does not end.
    """
    try:
        for sent in (polite, signal.SIGKILL):
            if not names(pid, marker):
                return
            os.kill(pid, sent)
            deadline = time.monotonic() + LEFTOVER_WAIT_S
            while names(pid, marker) and time.monotonic() < deadline:
                time.sleep(POLL_S)
    except ProcessLookupError:
        return
    except PermissionError:
        raise EmbeddedServerError(
            f"process {pid}, which belongs to another user, still uses {marker}: end it"
        ) from None
    if names(pid, marker):
        raise EmbeddedServerError(f"process {pid} still uses {marker} and does not end")


def names(pid: int, marker: Path) -> bool:
    """Says whether `pid` runs and has the path `marker` in its command line."""
    if HAS_PROC:
        try:
            return os.fsencode(marker) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return False
    return str(marker) in _ps("-ww", "-p", str(pid), "-o", "command=")


def children(pid: int) -> list[int]:
    """Returns the pids whose parent is `pid`."""
    if not HAS_PROC:
        pairs = (line.split() for line in _ps("-A", "-o", "pid=,ppid=").splitlines())
        return [int(child) for child, parent in pairs if int(parent) == pid]
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # proc(5): "pid (name) state ppid ..."; the name may hold anything, brackets too
                words = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(words[1]) == pid:
                    found.append(int(entry.name))
    return found


def _ps(*arguments: str) -> str:
    return subprocess.run(
        ["/bin/ps", *arguments], capture_output=True, text=True, check=False, timeout=PS_TIMEOUT_S
    ).stdout
