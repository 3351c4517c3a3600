"""Faults one by one, each on an installation of its own under load, and the table of what came of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.chaos import view
from tests.chaos.audit.findings import Finding, Kind
from tests.chaos.client import Heard
from tests.chaos.clock import library
from tests.chaos.crowd import gather
from tests.chaos.disk import SmallDisk
from tests.chaos.faults import of_postgres, of_processes, of_valkey  # noqa: F401 - they enter themselves
from tests.chaos.faults.fault import FAULTS, Fault, Scene
from tests.chaos.installation import Installation, install
from tests.chaos.run import Outcome, judge

WARM_S = 3.0
PATIENCE_S = 20.0  # longer than any bound of the server: an answer that takes so long is a hang
HANG_MS = 12_000.0  # an upload may wait 10 s for its place; nothing may take longer
CALM_S = 3.0  # so long without a bad answer, and it works again
BACK_S_MAX = 60.0
POSTGRES_DISK_MIB = 600
LOOK_S = 0.1
SLOWEST_TOLD = 6
# What follows from a loss that a fault is known to have: what was lost is decided anew when it is asked for again.
CONSEQUENCES = frozenset({"5 one scan_id, one verdict", "5 one QR passes once", "2 settled once", "orders"})
HEAD = ("fault", "clients saw", "slowest", "/readyz said", "works again", "lost", "doubled", "breaches")


@dataclass
class Course:
    """One fault from beginning to end."""

    fault: Fault
    skipped: str = ""
    began: float = 0.0  # monotonic, as all of these
    repaired: float = 0.0
    calm: bool = False
    readiness: Counter[str] = field(default_factory=Counter)
    outcome: Outcome | None = None
    notes: list[str] = field(default_factory=list)

    def bad(self) -> list[Heard]:
        """Answers, since it began, that have to be asked for again."""
        assert self.outcome is not None
        return [each for each in self.outcome.tally.heard if each.at >= self.began and not each.definite]

    @property
    def back_s(self) -> float:
        """From the moment when the world outside had done its part until the last answer that was none."""
        return max([0.0, *(each.at - self.repaired for each in self.bad())])

    @property
    def slowest_ms(self) -> float:
        """Of all answers since it began, and of those that did not come."""
        assert self.outcome is not None
        return max((each.ms for each in self.outcome.tally.heard if each.at >= self.began), default=0.0)

    @property
    def hung(self) -> bool:
        """Whether a client waited for longer than any bound."""
        return self.slowest_ms > HANG_MS

    @property
    def counted(self) -> dict[str, int]:
        """Lost, doubled, breaches."""
        assert self.outcome is not None
        counted = Counter(finding.kind for finding in self.outcome.findings)
        return {kind.value: counted[kind] for kind in Kind} | {"check": len(self.outcome.check)}

    @property
    def clean(self) -> bool:
        """It works again by itself, nobody hung, and nothing is lost but what this fault is known to cost."""
        if self.skipped:
            return True
        assert self.outcome is not None
        return self.calm and not self.hung and not self.outcome.check and not self.unexplained()

    def unexplained(self) -> list[Finding]:
        """What the audit found and what this fault is not known to cost."""
        assert self.outcome is not None
        explained = CONSEQUENCES if self.fault.loses else frozenset[str]()
        return [
            finding
            for finding in self.outcome.findings
            if finding.rule not in explained and not (explained and finding.kind is Kind.LOST)
        ]

    def slowest(self) -> str:
        """Which answers were the slowest ones: of each kind of command, the worst of each answer."""
        assert self.outcome is not None
        worst: dict[tuple[str, str], float] = {}
        for each in self.outcome.tally.heard:
            if each.at >= self.began:
                worst[each.kind, each.what] = max(worst.get((each.kind, each.what), 0.0), each.ms)
        told = sorted(worst.items(), key=lambda one: -one[1])[:SLOWEST_TOLD]
        return "slowest: " + ", ".join(f"{kind} {what} {ms:,.0f} ms" for (kind, what), ms in told)

    def row(self) -> tuple[str, ...]:
        """For the table."""
        if self.skipped:
            return (self.fault.name, f"not run: {self.skipped}", "", "", "", "", "", "")
        seen = Counter(each.what for each in self.bad())
        counted = self.counted
        return (
            f"{self.fault.name} ({self.fault.what})",
            ", ".join(f"{what} × {n}" for what, n in seen.most_common(4)) or "nothing but answers",
            f"{self.slowest_ms:,.0f} ms",
            "; ".join(self.readiness) or "ready",
            f"after {self.back_s:.1f} s" if self.calm else "NOT WITHIN A MINUTE",
            str(counted["lost"]),
            str(counted["doubled"]),
            f"{counted['breaches'] + counted['check']}",
        )


async def suffer(fault: Fault, folder: Path, seed: int) -> Course:
    """One fault under load, until all works again; then the audit."""
    course = Course(fault)
    if fault.clocks and library() is None:
        course.skipped = "libfaketime is not installed"
        return course
    disk = None
    if fault.small_disk:
        try:
            disk = await asyncio.to_thread(SmallDisk, folder / "disk", POSTGRES_DISK_MIB)
        except OSError as reason:
            course.skipped = str(reason)
            return course
    try:
        place = None if disk is None else disk.folder / "postgres"
        more = {"standby": fault.standby, "workers": fault.workers, "shards": fault.shards}
        async with install(folder, ack=fault.ack, postgres_folder=place, **more) as installed:
            installed.small_disk = disk
            await _suffer(course, installed, seed)
    finally:
        if disk is not None:
            await asyncio.to_thread(disk.unmount)
    return course


async def _suffer(course: Course, installed: Installation, seed: int) -> None:
    async with gather(installed, seed, patience_s=PATIENCE_S) as crowd:
        course.outcome = Outcome(seed, 0.0, course.fault.ack, crowd.day.tally)

        def repaired() -> None:
            course.repaired = time.monotonic()

        crowd.begin()
        await asyncio.sleep(WARM_S)
        asking = asyncio.create_task(_ask_readiness(installed, course.readiness))
        course.began = course.repaired = time.monotonic()
        scene = Scene(installed, crowd, repaired)
        try:
            await course.fault.act(scene)
            course.calm = await _calm(course)
        finally:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
        crowd.check()
        await crowd.finish()
        course.notes = scene.notes
        await judge(installed, course.outcome)


async def _calm(course: Course) -> bool:
    """Wait until no answer has been bad for a while. False: not within a minute."""
    while True:
        now = time.monotonic()
        bad = course.bad()
        last = max(bad[-1].at if bad else course.repaired, course.repaired)
        if now - last > CALM_S:
            return True
        if now - course.repaired > BACK_S_MAX:
            return False
        await asyncio.sleep(0.2)


async def _ask_readiness(installed: Installation, said: Counter[str]) -> None:
    """What /readyz says of both servers, other than ready, until cancelled."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as session:
        while True:
            for door in installed.doors:
                with suppress(aiohttp.ClientError, TimeoutError, OSError):
                    async with session.get(f"{door}/readyz") as answer:
                        ready = await answer.json()
                        if ready["reasons"]:
                            said[f"{answer.status} {' '.join(ready['reasons'])}"] += 1
            await asyncio.sleep(LOOK_S)


async def run(names: list[str], folder: Path, seed: int, markdown: Path | None) -> int:
    """These faults, or all of them; the exit status."""
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        view.say(f"no such fault: {unknown}; there are:\n  " + "\n  ".join(FAULTS))
        return 2
    courses = []
    for number, name in enumerate(names or FAULTS):
        view.say(f"-- {name}: {FAULTS[name].what}")
        course = await suffer(FAULTS[name], folder / f"fault-{number}", seed)
        courses.append(course)
        _tell_course(course)
    rows = [course.row() for course in courses]
    view.tell(view.table(HEAD, rows))
    if markdown is not None:
        markdown.write_text(view.markdown(HEAD, rows) + "\n", encoding="utf-8")  # noqa: ASYNC240 - the end
    view.tell(_line(courses, seed))
    return 0 if all(course.clean for course in courses) else 1


def _tell_course(course: Course) -> None:
    if course.outcome is None:
        view.say(f"   not run: {course.skipped}")
        return
    view.say("   " + " · ".join(course.row()[1:]))
    for finding in course.outcome.findings[:6]:
        view.say(f"   {finding.kind.name} · {finding.rule} · {finding.what}"[:500])
    view.say(f"   {course.slowest()}")
    for each in [*course.outcome.check, *course.notes, *course.outcome.notes, *course.outcome.complaints]:
        view.say(f"   {each}"[:400])


def _line(courses: list[Course], seed: int) -> str:
    run_ones = [course for course in courses if course.outcome is not None]
    total: Counter[str] = Counter()
    for course in run_ones:
        assert course.outcome is not None
        total.update(
            {"acknowledged": course.outcome.tally.acknowledged, "unknown": course.outcome.tally.unknown}
        )
        if not course.fault.loses:
            total.update(course.counted)
    return json.dumps(
        {
            "faults": len(run_ones),
            "kills": sum(
                "SIGKILL" in course.fault.what or "killed" in course.fault.name for course in run_ones
            ),
            **{name: total[name] for name in ("acknowledged", "unknown", "lost", "doubled")},
            "breaches": total["breaches"] + total["check"],
            "seed": seed,
            "hung": [course.fault.name for course in run_ones if course.hung],
            "not_back": [course.fault.name for course in run_ones if not course.calm],
            "known_losses": {course.fault.name: course.counted for course in run_ones if course.fault.loses},
            "not_run": [course.fault.name for course in courses if course.skipped],
        }
    )
