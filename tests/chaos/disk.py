"""A disk that is full (a quota on one process, or ballast on a small file system), and one that loses its power."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

_CACHESTAT = 451  # cachestat(2), the same number on all architectures


def limit_growth(pid: int, folder: Path, room_bytes: int) -> None:
    """Let no file that the process writes get longer than the longest one of `folder` is now, and so many bytes more.

    A write past it fails with EFBIG: Python ignores SIGXFSZ, and what it starts inherits that.
    """
    longest = max((file.stat().st_size for file in folder.rglob("*") if file.is_file()), default=0)
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (longest + room_bytes, hard))


def lift(pid: int) -> None:
    """No quota any more; nothing to lift when the process has ended."""
    with suppress(ProcessLookupError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _CacheStat(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted")
    )


def lose_unwritten(file: Path) -> int:
    """Cut off what of a file is only in the kernel's memory, as a loss of power would; how many bytes.

    Counted in pages: of the first page that is not on disk, all is lost. Raises OSError where the kernel does not tell
    (cachestat(2): Linux 6.5).
    """
    kernel = ctypes.CDLL(None, use_errno=True)
    size = file.stat().st_size
    with file.open("r+b") as opened:
        for offset in range(0, size, mmap.PAGESIZE):
            asked, told = _Range(offset, mmap.PAGESIZE), _CacheStat()
            if kernel.syscall(_CACHESTAT, opened.fileno(), ctypes.byref(asked), ctypes.byref(told), 0):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            if told.dirty or told.writeback:
                opened.truncate(offset)
                return size - offset
    return 0


class SmallDisk:
    """A file system of its own in memory. Raises OSError where this process may not mount one."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=0755", "gateline-chaos", str(folder)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False, timeout=10)
        if done.returncode:
            raise OSError(f"cannot mount a small disk: {done.stderr.strip()}")
        self._ballast = folder / "ballast"

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take all room that is left, but for so many bytes."""
        chunk = b"\0" * 65536
        with suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while (free := shutil.disk_usage(self.folder).free - leave_bytes) > 0:
                file.write(chunk[: min(free, len(chunk))])

    def free(self) -> None:
        """Room again."""
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Gone, with everything on it."""
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False, timeout=10)
