"""The clock that a process sees, moved while it runs: libfaketime by LD_PRELOAD, with only the realtime clock faked.

The library comes from the system (Debian, Ubuntu: `apt-get install libfaketime`). Without it the clocks stand as they
are, and a run says so; on a build server it must be there.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

LOOKS_S = 1  # whole seconds after which a process looks again whether its clock was moved
SEEN_S_MAX = 2 * LOOKS_S + 0.5


def library() -> Path | None:
    """Where libfaketime is; None when it is not installed. Raises RuntimeError when a build server lacks it."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")) or sorted(
        Path("/usr/lib").glob("faketime/libfaketimeMT.so.1")
    )
    if not found and os.environ.get("CI"):
        raise RuntimeError("a build server needs libfaketime: apt-get install libfaketime")
    return found[0] if found else None


class Clock:
    """The clock of one process, and of what it starts."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"clock-{name}"
        self._library = library()
        self.moved_s = 0
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """What the process has to be started with; empty when clocks cannot be moved here."""
        if self._library is None:
            return {}
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": str(LOOKS_S),
            # Timeouts and event loops count by the monotonic clock, which no one sets.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, seconds: int) -> None:
        """So many seconds ahead of the truth (behind it below zero), seen within `SEEN_S_MAX`."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.chmod(0o644)  # the account that a database runs as reads it too
        fresh.replace(self._file)
        self.moved_s = seconds


def forget(pid: int) -> None:
    """Remove what the library leaves of a killed process: a named semaphore and a page of shared memory."""
    for left in (f"sem.faketime_sem_{pid}", f"faketime_shm_{pid}"):
        with suppress(OSError):
            (Path("/dev/shm") / left).unlink()  # noqa: S108
