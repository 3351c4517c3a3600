"""CPU time by process, from /proc: what each scan costs, and whom."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far; 0.0 when it is gone."""
    return sum(_times(pid)[:2])


def family_cpu_seconds(pid: int) -> float:
    """The same of a process, its living children, and those that it has waited for."""
    return sum(_times(pid)) + sum(sum(_times(child)[:2]) for child in children(pid))


def memory_mib(pid: int) -> float:
    """Resident memory of a process; 0.0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def children(pid: int) -> list[int]:
    """The living children of a process; none when it is gone."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [
            int(child) for task in tasks for child in (task / "children").read_text(encoding="ascii").split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Used(NamedTuple):
    """CPU seconds by name, those that anyone used by core, and the seconds that passed."""

    seconds: dict[str, float]
    busy: dict[int, float]
    took: float


class CpuMeter:
    """CPU seconds that named processes used, between two looks. A name may stand for several processes."""

    def __init__(self, groups: Mapping[str, Sequence[int]], cores: Iterable[int]) -> None:
        self._groups = groups
        self._cores = frozenset(cores)
        self._before = self._look()
        self._busy = _busy_seconds(self._cores)
        self._began = perf_counter()

    def used(self) -> Used:
        """What was used since the meter was made."""
        now = self._look()
        seconds = {name: now[name] - self._before[name] for name in now}
        busy = {core: spent - self._busy[core] for core, spent in _busy_seconds(self._cores).items()}
        return Used(seconds, busy, perf_counter() - self._began)

    def _look(self) -> dict[str, float]:
        return {name: sum(map(_used_by, pids)) for name, pids in self._groups.items()}


def _used_by(pid: int) -> float:
    """A process with its children: workers, backends. Our own children are the others, and count for themselves."""
    return cpu_seconds(pid) if pid == os.getpid() else family_cpu_seconds(pid)


def _busy_seconds(cores: frozenset[int]) -> dict[int, float]:
    """CPU seconds that anyone used so far on each of these cores: all but idle and waiting (proc(5): /proc/stat)."""
    busy = {}
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *figures = line.split()
        core = name.removeprefix("cpu")
        if name != core and core.isdigit() and int(core) in cores:
            user, nice, system, _idle, _waiting, *others = map(int, figures[:8])
            busy[int(core)] = (user + nice + system + sum(others)) / _TICKS
    return busy


def _times(pid: int) -> tuple[float, float, float, float]:
    """User, system, and both of the children that were waited for (proc(5): fields 14 to 17)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0, 0.0, 0.0
    user, system, children_user, children_system = stat.rpartition(")")[2].split()[11:15]
    return (
        int(user) / _TICKS,
        int(system) / _TICKS,
        int(children_user) / _TICKS,
        int(children_system) / _TICKS,
    )
