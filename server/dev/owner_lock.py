"""One owner per data folder: a lock that ends with its process, and says whose it is."""

import contextlib
import fcntl
import os
import sys
from pathlib import Path

from server.dev.process import EmbeddedServerError

_held: set[int] = set()


def _let_go_in_child() -> None:
    """A forked copy of us must not hold the lock for its dead parent; closing a copy releases nothing."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


class OwnerLock:
    """A lock file (flock) that holds its owner's pid and command, for the message to whoever comes second."""

    def __init__(self, path: Path, what: str) -> None:
        """`what` names the thing that is locked, for the message."""
        self._path = path
        self._what = what
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock; does nothing when this object holds it, and its file was not deleted.

        Raises EmbeddedServerError when another process, or another object in this one, holds it.
        """
        if self._descriptor in _held:
            if self._is_at_path(self._descriptor):
                return
            self.release()
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.read(descriptor, 1000).decode("utf-8", "replace").strip() or "(unknown)"
                os.close(descriptor)
                raise EmbeddedServerError(f"{self._what} is already used by process {owner}") from None
            if self._is_at_path(descriptor):
                break
            os.close(descriptor)  # the file was removed by its owner between open and lock
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} ({' '.join(sys.argv)[:200]})\n".encode("utf-8", "replace"))
        self._descriptor = descriptor
        _held.add(descriptor)

    def release(self) -> None:
        """Gives the lock back and removes its file; does nothing when it is not held."""
        if self._descriptor is None or self._descriptor not in _held:
            return
        if self._is_at_path(self._descriptor):
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        os.close(self._descriptor)
        _held.discard(self._descriptor)
        self._descriptor = None

    def _is_at_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False
