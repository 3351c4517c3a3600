"""What every client does: write down the intent, send, write down the answer, and send again until it is definite."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from tests.chaos.diary import Diary

PATIENCE_S = 4.0  # for one answer, in a storm: longer than any bound of a healthy server
PAUSE_S = (0.05, 0.3)  # before the same command is sent again
# What says nothing about the command: it is sent again, with the same id.
UNDECIDED = frozenset({408, 429, 500, 502, 503, 504})


class Heard(NamedTuple):
    """One answer to one sending, or its absence. `at`: monotonic seconds. A definite one is not asked for again."""

    at: float
    kind: str
    what: str
    ms: float
    definite: bool


@dataclass
class Tally:
    """What all clients together were told, for the view and for the table at the end."""

    sent: int = 0
    commands: int = 0
    acknowledged: int = 0
    unknown: int = 0
    told: Counter[str] = field(default_factory=Counter)  # "503 GATE_CLOSED", "silence cut" -> how often
    heard: list[Heard] = field(default_factory=list)

    def note(self, kind: str, what: str, ms: float, *, definite: bool) -> None:
        """One answer, or its absence."""
        self.told[what] += 1
        self.heard.append(Heard(time.monotonic(), kind, what, ms, definite))


@dataclass
class Day:
    """What all clients share: where the servers are, when to stop beginning, when to give up."""

    doors: list[str]
    folder: Path
    seed: int
    session: aiohttp.ClientSession
    patience_s: float = PATIENCE_S
    tally: Tally = field(default_factory=Tally)
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # no new command
    over: asyncio.Event = field(default_factory=asyncio.Event)  # no further try either


class Told:
    """A definite answer."""

    def __init__(self, status: int, body: Any) -> None:
        self.status = status
        self.body = body

    @property
    def code(self) -> str:
        """Of an error; empty otherwise."""
        return str(self.body.get("code", "")) if isinstance(self.body, dict) and self.status >= 400 else ""


class Client:
    """One client with a diary, and dice of its own: what it chooses depends on the seed and on what it is told."""

    def __init__(self, day: Day, name: str) -> None:
        self.day = day
        self.name = name
        self.dice = random.Random(f"{day.seed} {name}")  # noqa: S311
        self.diary = Diary(day.folder, name)
        self._door = self.dice.randrange(len(day.doors))
        self._number = 0

    def next_id(self, what: str) -> str:
        """An id of a command that nobody else makes, the same in every run of the seed."""
        self._number += 1
        return f"{self.day.seed}-{self.name}-{what}{self._number}"

    def other_door(self) -> str:
        """The next server in turn: a retry goes to another one, as behind a load balancer."""
        self._door += 1
        return self.day.doors[self._door % len(self.day.doors)]

    async def pause(self, low: float, high: float) -> None:
        """A moment."""
        await asyncio.sleep(self.dice.uniform(low, high))

    async def linger(self, low: float, high: float) -> None:
        """Some seconds, at most until the day closes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.dice.uniform(low, high)):
                await self.day.closing.wait()

    async def insist(
        self, kind: str, command_id: str, method: str, path: str, *, door: str = "", **request: Any
    ) -> Told | None:
        """Send until the answer is definite; None when the day ended before: the outcome is unknown.

        `what` in the request: what the diary keeps of the intent. `door`: the first server to ask.
        """
        what = request.pop("what", {})
        self.day.tally.commands += 1
        while True:
            told = await self.send(
                kind, command_id, method, door or self.other_door(), path, what=what, **request
            )
            door = ""
            if told is not None and told.status not in UNDECIDED:
                self.day.tally.acknowledged += 1
                return told
            if self.day.over.is_set():
                self.day.tally.unknown += 1
                return None
            await self.pause(*PAUSE_S)

    async def send(
        self,
        kind: str,
        command_id: str,
        method: str,
        door: str,
        path: str,
        *,
        what: dict[str, Any],
        **request: Any,
    ) -> Told | None:
        """Once. None: silence."""
        self.diary.intend(kind, command_id, door=door.rpartition(":")[2], **what)
        self.day.tally.sent += 1
        began = time.perf_counter()
        try:
            async with (
                asyncio.timeout(self.day.patience_s),
                self.day.session.request(method, door + path, **request) as answer,
            ):
                told = Told(answer.status, _parsed(await answer.read()))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as fault:
            self.silent(kind, command_id, fault, began)
            return None
        self.answered(kind, command_id, told, began)
        return told

    def answered(self, kind: str, command_id: str, told: Told, began: float) -> None:
        """Write an answer down."""
        ms = (time.perf_counter() - began) * 1000
        self.diary.told(kind, command_id, told.status, told.body, ms)
        what = f"{told.status} {told.code}".strip()
        self.day.tally.note(kind, what, ms, definite=told.status not in UNDECIDED)

    def silent(self, kind: str, command_id: str, fault: BaseException, began: float) -> None:
        """Write down that there was none."""
        ms = (time.perf_counter() - began) * 1000
        self.diary.silence(kind, command_id, type(fault).__name__, ms)
        what = "silence: too late" if isinstance(fault, TimeoutError) else "silence: cut off"
        self.day.tally.note(kind, what, ms, definite=False)


def _parsed(raw: bytes) -> Any:
    return json.loads(raw) if raw else None
