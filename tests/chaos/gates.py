"""Gates: they scan by HTTP, over sockets and by upload, ask again until there is a verdict, show a QR at two gates."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from tests.chaos.buyers import Ticket
from tests.chaos.client import PAUSE_S, UNDECIDED, Client, Day, Told
from tests.chaos.scene import OWNER, Scene

WAYS = {"http": 40, "socket": 20, "upload": 10, "twins": 12, "again": 8, "wrong": 10}
KEPT = 400  # QRs and scans that are remembered, to be shown again


class Wallets:
    """The tickets that may be shown: passes for ever, and what is bought until it is used up."""

    def __init__(self, scene: Scene) -> None:
        self._passes = [Ticket(code, scene.buyers[OWNER], ("bus", "ferry")) for code in scene.passes]
        self._bought: list[Ticket] = []

    def put(self, ticket: Ticket) -> None:
        """A ticket that was just bought."""
        self._bought.append(ticket)
        if len(self._bought) > KEPT:
            self._bought.pop(0)

    def draw(self, gate: Client) -> Ticket:
        """Any of them."""
        return gate.dice.choice([*self._passes, *self._bought])


class Gate(Client):
    """One gate, with its operator's token."""

    def __init__(
        self, day: Day, name: str, headers: dict[str, str], wallets: Wallets, ways: dict[str, int] = WAYS
    ) -> None:
        super().__init__(day, name)
        self._headers = headers
        self._wallets = wallets
        self._ways = ways
        self._told: list[dict[str, Any]] = []  # scans with their verdicts, to be asked for again

    async def work(self) -> None:
        """Until the day closes."""
        while not self.day.closing.is_set():
            way = self.dice.choices(list(self._ways), list(self._ways.values()))[0]
            if way == "again":
                await self._again()
            else:
                await self.present(way)
            await self.pause(0.02, 0.15)

    async def present(self, way: str) -> None:
        """Show some ticket, and scan it in this way."""
        ticket = self._wallets.draw(self)
        scan = await self._shown(ticket)
        if scan is None:
            return
        if way == "twins":
            await self._twins(scan)
        elif way == "socket":
            await self._by_socket([scan, *[s for s in [await self._shown(ticket) for _ in range(3)] if s]])
        elif way == "upload":
            more = [await self._shown(self._wallets.draw(self)) for _ in range(self.dice.randint(1, 6))]
            await self._upload([scan, *[each for each in more if each]])
        elif way == "wrong":
            await self._scan(self._spoilt(scan))
        else:
            await self._scan(scan)

    async def _shown(self, ticket: Ticket) -> dict[str, Any] | None:
        """A fresh QR of the ticket, as a scan that is about to be made."""
        # No command: showing a QR changes nothing. It is asked for until it comes, or the day closes.
        while not self.day.closing.is_set():
            shown = await self.send(
                "show", ticket.code, "POST", self.other_door(), f"/qr/{ticket.code}?image=none",
                headers=ticket.headers, what={},
            )  # fmt: skip
            if shown is not None and shown.status == 200:
                return {
                    "scan_id": self.next_id("scan"),
                    "qr_token": shown.body["qr_token"],
                    "function_code": self.dice.choice(ticket.functions),
                    "meant": {
                        "ticket": ticket.code,
                        "jti": shown.body["jti"],
                        "as": "pass",
                        "shown_at": time.time(),
                    },
                }
            if shown is not None and shown.status not in UNDECIDED:
                return None
            await self.pause(*PAUSE_S)
        return None

    def _spoilt(self, scan: dict[str, Any]) -> dict[str, Any]:
        """The same with something wrong about it: it must never pass."""
        how = self.dice.choice(("forged", "venue", "function", "nowhere"))
        spoilt = {**scan, "meant": {**scan["meant"], "as": how}}
        if how == "forged":
            token = scan["qr_token"]
            at = self.dice.randrange(10, 80)
            spoilt["qr_token"] = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        elif how == "venue":
            spoilt |= {"venue_code": "hall", "function_code": "bus"}
        elif how == "nowhere":
            spoilt["venue_code"] = "nowhere"
        else:
            spoilt["function_code"] = "sauna"
        return spoilt

    async def _twins(self, scan: dict[str, Any]) -> None:
        """The same QR at two gates at one moment, at both servers: one of them passes at most."""
        twin = {**scan, "scan_id": self.next_id("scan")}
        doors = self.day.doors
        await asyncio.gather(self._scan(scan, doors[0]), self._scan(twin, doors[-1]))

    async def _again(self) -> None:
        """A scan that was told something: it must be told the same."""
        if self._told:
            await self._scan(self.dice.choice(self._told))

    async def _scan(self, scan: dict[str, Any], door: str = "") -> None:
        told = await self.insist(
            "scan", scan["scan_id"], "POST", "/venue/scan", door=door, what=_what(scan, "http"),
            headers=self._headers, json=_sent(scan),
        )  # fmt: skip
        self._remember(scan, told)

    def _remember(self, scan: dict[str, Any], told: Told | None) -> None:
        if told is not None and told.status == 200:
            self._told.append(scan)
            if len(self._told) > KEPT:
                self._told.pop(0)

    # --- over a socket ---------------------------------------------------------------------------------------------

    async def _by_socket(self, scans: list[dict[str, Any]]) -> None:
        """All at once over one socket; what gets no verdict there is asked for by HTTP, with the same ids."""
        undecided = {scan["scan_id"]: scan for scan in scans}
        unanswered = set(undecided)
        began = time.perf_counter()
        door = self.other_door()
        try:
            async with (
                asyncio.timeout(self.day.patience_s),
                self.day.session.ws_connect(f"{door}/venue/stream", headers=self._headers) as socket,
            ):
                for scan in scans:
                    self.diary.intend(
                        "scan", scan["scan_id"], door=door.rpartition(":")[2], **_what(scan, "socket")
                    )
                    self.day.tally.sent += 1
                    await socket.send_json(_sent(scan))
                while unanswered:
                    body = await socket.receive_json()
                    unanswered.remove(body["scan_id"])
                    # An error comes without a status: it is asked for by HTTP, where it has one.
                    told = Told(200 if "result" in body else 503, body)
                    self.answered("scan", body["scan_id"], told, began)
                    if told.status == 200:
                        self._remember(undecided.pop(body["scan_id"]), told)
                        self.day.tally.commands += 1
                        self.day.tally.acknowledged += 1
        except (aiohttp.ClientError, TimeoutError, OSError, TypeError, KeyError, ValueError) as fault:
            for scan_id in unanswered:
                self.silent("scan", scan_id, fault, began)
        for scan in undecided.values():
            await self._scan(scan)

    # --- by upload -------------------------------------------------------------------------------------------------

    async def _upload(self, scans: list[dict[str, Any]]) -> None:
        """As a gate that was offline for some seconds: until each scan has its own answer."""
        made = datetime.now(UTC) - timedelta(seconds=self.dice.uniform(0.0, 2.0))
        waiting = {scan["scan_id"]: {**scan, "scanned_at": made.isoformat()} for scan in scans}
        self.day.tally.commands += len(waiting)
        while waiting:
            await self._upload_once(waiting)
            if waiting and self.day.over.is_set():
                self.day.tally.unknown += len(waiting)
                return
            if waiting:
                await self.pause(*PAUSE_S)

    async def _upload_once(self, waiting: dict[str, dict[str, Any]]) -> None:
        for scan in waiting.values():
            self.diary.intend("scan", scan["scan_id"], **_what(scan, "upload"))
        self.day.tally.sent += 1
        began = time.perf_counter()
        door = self.other_door()
        sent = [_sent(scan) for scan in waiting.values()]
        try:
            async with asyncio.timeout(self.day.patience_s + 10):  # an upload may wait 10 s for its place
                async with self.day.session.post(
                    f"{door}/venue/scans", headers=self._headers, json={"scans": sent}
                ) as answer:
                    body = json.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as fault:
            for scan_id in waiting:
                self.silent("scan", scan_id, fault, began)
            return
        if answer.status != 200:
            for scan_id in waiting:
                self.answered("scan", scan_id, Told(answer.status, body), began)
            return
        for scan, each in zip(list(waiting.values()), body["answers"], strict=True):
            told = Told(200 if "result" in each else _status(each), each)
            self.answered("scan", scan["scan_id"], told, began)
            if told.status not in UNDECIDED:
                del waiting[scan["scan_id"]]
                self.day.tally.acknowledged += 1
                self._remember({k: v for k, v in scan.items() if k != "scanned_at"}, None)


def _status(error: dict[str, Any]) -> int:
    """What an error inside of an upload would be by HTTP: transient, or final."""
    final = ("SCAN_TOO_OLD", "SCAN_IN_FUTURE", "SCAN_ID_CONFLICT", "INVALID_JSON", "VALIDATION_FAILED")
    return 422 if error.get("code") in final else 503


def _sent(scan: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scan.items() if name != "meant"}


def _what(scan: dict[str, Any], way: str) -> dict[str, Any]:
    return {"by": way, "function": scan["function_code"], **scan["meant"]}
