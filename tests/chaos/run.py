"""A storm from beginning to end: the installation, the crowd, the blows, the audit, and what is told of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.processes import output
from tests.chaos import view
from tests.chaos.audit.auditor import audit, count, quiet
from tests.chaos.audit.findings import Finding
from tests.chaos.audit.watch import Watch
from tests.chaos.client import Tally
from tests.chaos.clock import library
from tests.chaos.crowd import FINISH_S_MAX, gather
from tests.chaos.installation import Installation, install
from tests.chaos.storm import Storm, schedule

FINDINGS_TOLD = 20
STORM_OVER_S_MAX = 120.0  # for the last blows' starts; at a load of 12 a process takes 15 s to come up
HEAL_S_MAX = 60.0
JUDGE_S_MAX = 150.0  # a minute until all is quiet, two audits, and the server's own check
# Alerts that the gateway's own mishaps must raise.
EXPECTED_ALERTS = frozenset({"REFUND_REQUIRED", "PAYMENT_AMOUNT_MISMATCH"})


class Phases:
    """How long each part of a run took, and the most that it may take: a run that hangs says where."""

    def __init__(self, began: float, notes: list[str]) -> None:
        self._since = began
        self._notes = notes

    @asynccontextmanager
    async def __call__(self, name: str, seconds_max: float) -> AsyncIterator[None]:
        """One part. Raises TimeoutError, with its name, when it takes longer."""
        self._since = time.monotonic()
        try:
            async with asyncio.timeout(seconds_max):
                yield
        except TimeoutError as fault:
            raise TimeoutError(f"{name}: not over within {seconds_max:.0f} s") from fault
        self.over(name)

    def over(self, name: str) -> None:
        """Note how long it took."""
        took = f"{name}: {time.monotonic() - self._since:.1f} s"
        self._notes.append(took)
        view.say(took)


@dataclass
class Outcome:
    """What became of a run."""

    seed: int
    seconds: float
    ack: str
    tally: Tally
    kills: int = 0
    done: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    check: list[str] = field(default_factory=list)  # what `gateline check` found
    notes: list[str] = field(default_factory=list)
    complaints: Counter[str] = field(default_factory=Counter)  # errors in the logs, by what they say
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Nothing lost, doubled or breached."""
        return not self.findings and not self.check

    def line(self) -> str:
        """The last line: one JSON object."""
        counted = count(self.findings)
        counted["breaches"] += len(self.check)
        return json.dumps(
            {
                "kills": self.kills,
                "sent": self.tally.sent,
                "commands": self.tally.commands,
                "acknowledged": self.tally.acknowledged,
                "unknown": self.tally.unknown,
                **counted,
                "seed": self.seed,
                "seconds": round(self.seconds, 1),
                "ack": self.ack,
                **self.more,
            }
        )


async def storm(
    folder: Path, *, seconds: float, seed: int, ack: str = "fsync", workers: int = 1, shards: int = 1
) -> Outcome:
    """One storm. The outcome says all; nothing is raised for what the server did."""
    began = time.monotonic()
    async with (
        install(folder, ack=ack, workers=workers, shards=shards) as installed,
        gather(installed, seed) as crowd,
    ):
        outcome = Outcome(seed, seconds, ack, crowd.day.tally)
        outcome.notes.append(f"{workers} workers a server, {shards} shards")
        phase = Phases(began, outcome.notes)
        phase.over("set up")
        clocks = library() is not None
        if not clocks:
            outcome.notes.append("clocks were not moved: libfaketime is not installed")
        blowing = Storm(installed, view.say)
        watch = Watch(lambda: installed.redis_url)
        beside = [
            asyncio.create_task(watch.look_for_ever()),
            asyncio.create_task(view.follow(crowd.day.tally, lambda: blowing.kills, lambda: watch.lag_s)),
        ]
        crowd.begin()
        blows = schedule(seed, seconds, sorted(installed.links), clocks=clocks, crowded=installed.crowded)
        async with phase("storm", seconds + STORM_OVER_S_MAX):
            await blowing.blow(blows)
        crowd.check()
        view.say("all is healed; clients finish what they have begun")
        async with phase("heal", HEAL_S_MAX):
            await installed.heal()
        async with phase("finish", FINISH_S_MAX + STORM_OVER_S_MAX):
            await crowd.finish()
        outcome.kills, outcome.done = blowing.kills, blowing.done
        outcome.notes += [f"{name} ended by itself {n} times" for name, n in blowing.ended_by_itself.items()]
        outcome.notes += blowing.failed
        async with phase("audit", JUDGE_S_MAX):
            await judge(installed, outcome, watch)
        for task in beside:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    return outcome


async def judge(installed: Installation, outcome: Outcome, watch: Watch | None = None) -> None:
    """Wait until all is quiet, audit, and let `gateline check` say the same of itself."""
    waited = await quiet(installed.record_url, installed.redis_url)
    began = time.monotonic()
    outcome.findings += await audit(installed.record_url, installed.redis_url, installed.folder / "diaries")
    outcome.notes.append(f"quiet after {waited:.1f} s, audited in {time.monotonic() - began:.1f} s")
    if watch is not None:
        outcome.findings += watch.findings.values()
    status, printed, complained = await output(("check", "--json"), installed.direct)
    if status != 0:
        found = json.loads(printed)["findings"] if printed.strip() else [{"invariant": complained}]
        outcome.check = [
            str(each)
            for each in found
            if each.get("breaches") or each.get("undecided") or not printed.strip()
        ] or [f"status {status}"]
    for part in installed.gatelines.values():
        for line in part.lines():
            if line.get("level") in ("error", "critical") and line.get("alert") not in EXPECTED_ALERTS:
                raised = line.get("exception") or [{}]
                what = f"{raised[0].get('exc_type', line.get('error', ''))} {raised[0].get('exc_value', '')}"
                outcome.complaints[
                    f"{line['event']} {line.get('alert', line.get('job', ''))} {what}".strip()
                ] += 1
        outcome.complaints.update(part.noise)


def tell(outcome: Outcome) -> None:
    """The table on standard output; its last line is the JSON object."""
    view.tell(view.table(("what", "times", "to whom"), view.by_kind(outcome.done)))
    view.tell("")
    tally, counted = outcome.tally, count(outcome.findings)
    rows = [
        ("commands", tally.commands),
        ("sent (with repetitions)", tally.sent),
        ("acknowledged", tally.acknowledged),
        ("unknown", tally.unknown),
        ("lost", counted["lost"]),
        ("doubled", counted["doubled"]),
        ("breaches", counted["breaches"]),
        ("gateline check", "clean" if not outcome.check else f"{len(outcome.check)} findings"),
    ]
    view.tell(view.table(("clients", f"seed {outcome.seed}, {outcome.ack}"), rows))
    view.tell("")
    view.tell(view.table(("told", "times"), [(what, n) for what, n in tally.told.most_common()]))
    for finding in outcome.findings[:FINDINGS_TOLD]:
        view.tell(f"{finding.kind.name} · {finding.rule} · {finding.what}"[:1000])
    for each in outcome.check:
        view.tell(f"gateline check: {each}")
    for what, times in outcome.complaints.most_common(10):
        view.tell(f"log: {times} × {what}"[:400])
    for note in outcome.notes:
        view.tell(f"note: {note}")
    view.tell(outcome.line())
