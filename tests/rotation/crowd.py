"""Everyone who uses keys, all the time: gates by HTTP and by socket, buyers, their gateway, and logins."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from aiohttp import ClientSession, ClientWebSocketResponse
from multidict import CIMultiDict

from tests.road import PASSWORD, PATIENCE_S, Answer, Road

PROCESS_CHARS = 20  # of a request id: one process's own
GATES = ("gate-1", "gate-2", "gate-3")
BUYERS = ("ann", "bob")
SOCKET_SCANS = 3  # then the gate opens another one


class Crowd:
    """Asks without ever asking twice: whatever is refused, or not answered, is noted."""

    def __init__(self, road: Road, product: int, secret: bytes) -> None:
        self._road = road
        self._product = product
        self.secret = secret  # by which the gateway signs
        self.done: Counter[str] = Counter()
        self.by_process: Counter[str] = Counter()
        self.refused: list[str] = []
        self.bearers: dict[str, str] = {}
        self.logins: Counter[str] = Counter()
        self._tickets: list[tuple[str, str]] = []  # buyer, code
        self._turns = itertools.count()
        self._over = asyncio.Event()

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Everybody at work, from the first login on."""
        for who in (*GATES, *BUYERS):
            await self._log_in(who)
        for buyer in BUYERS:
            for _ in range(4):
                await self._buy(buyer)
        ways = (self._logins, self._gate_by_http, self._gate_by_http, self._gate_by_socket, self._payer)
        tasks = [asyncio.create_task(self._again_and_again(way)) for way in ways]
        try:
            yield
        finally:
            self._over.set()
            await asyncio.gather(*tasks)

    async def for_a_while(self, rounds: int = 2) -> None:
        """Until each kind of request was made so often again."""
        before = self.done.copy()
        async with asyncio.timeout(PATIENCE_S):
            while any(self.done[kind] < before[kind] + rounds for kind in before if kind != "sockets"):
                await asyncio.sleep(0.02)

    async def until_all_logged_in_again(self) -> None:
        """Until no token and no socket is left of those that there are now: as long as the longest token's life."""
        before, sockets = self.logins.copy(), self.done["sockets"]
        async with asyncio.timeout(PATIENCE_S):
            while any(self.logins[who] < before[who] + 2 for who in before):
                await asyncio.sleep(0.02)
            while self.done["sockets"] < sockets + 2:
                await asyncio.sleep(0.02)

    # --- each kind of request ----------------------------------------------------------------------------------

    async def _again_and_again(self, way: Callable[[], Awaitable[None]]) -> None:
        while not self._over.is_set():
            try:
                await way()
            except Exception as fault:  # no answer is as bad as a refusal
                self.refused.append(repr(fault))
                await asyncio.sleep(0.1)

    async def _ask(self, kind: str, method: str, path: str, who: str = "", **options: Any) -> Answer:
        headers = options.pop("headers", {}) | ({"Authorization": self.bearers[who]} if who else {})
        answer = await self._road.call(method, path, headers=headers, **options)
        self._note(kind, answer.status < 300, f"{answer.status} {answer.raw[:200]!r}")
        self.by_process[CIMultiDict(answer.headers)["X-Request-Id"][:PROCESS_CHARS]] += 1
        return answer

    def _note(self, kind: str, good: bool, said: str) -> None:
        self.done[kind] += 1
        if not good:
            self.refused.append(f"{kind}: {said}")

    async def _logins(self) -> None:
        who = (*GATES, *BUYERS)[next(self._turns) % 5]
        await self._log_in(who)
        await asyncio.sleep(0.02)

    async def _log_in(self, who: str) -> None:
        if who in GATES:
            path, body = "/operators/login", {"username": who, "password": PASSWORD}
        else:
            path, body = "/auth/demo/login", {"buyer": who}
        told = (await self._ask("logins", "POST", path, json=body)).json
        self.bearers[who] = f"Bearer {told['operator_token' if who in GATES else 'token']}"
        self.logins[who] += 1

    async def _shown(self) -> str:
        """A fresh QR of some ticket."""
        buyer, code = self._tickets[next(self._turns) % len(self._tickets)]
        token: str = (await self._ask("renewals", "POST", f"/qr/{code}?image=none", buyer)).json["qr_token"]
        return token

    async def _gate_by_http(self) -> None:
        scan = {"qr_token": await self._shown(), "function_code": "bus", "scan_id": uuid4().hex}
        told = await self._ask("scans", "POST", "/venue/scan", GATES[next(self._turns) % 3], json=scan)
        self._note("verdicts", told.json["result"] == "success", str(told.json))

    async def _gate_by_socket(self) -> None:
        headers = {"Authorization": self.bearers[GATES[next(self._turns) % 3]]}
        async with (
            ClientSession(self._road.url) as session,
            session.ws_connect("/venue/stream", headers=headers) as socket,
        ):
            for _ in range(SOCKET_SCANS):
                await self._scan_by(socket)
        self.done["sockets"] += 1

    async def _scan_by(self, socket: ClientWebSocketResponse) -> None:
        scan = {"qr_token": await self._shown(), "function_code": "bus", "scan_id": uuid4().hex}
        await socket.send_str(json.dumps(scan))
        told = json.loads((await socket.receive(PATIENCE_S)).data)
        self._note("scans by socket", told.get("result") == "success", str(told))

    async def _payer(self) -> None:
        await self._buy(BUYERS[next(self._turns) % 2])

    async def _buy(self, buyer: str) -> None:
        items = {"items": [{"product_id": self._product, "qty": 20}], "gateway": "hosted"}
        headers = {"Idempotency-Key": uuid4().hex}
        made = await self._ask("orders", "POST", "/orders", buyer, headers=headers, json=items)
        paid = await self._road.notify(made.json["order_id"], made.json["total_fen"], secret=self.secret)
        self._note("webhooks", paid.status == 200, f"{paid.status} {paid.raw!r}")
        owned = await self._ask("looks", "GET", "/my/tickets", buyer)
        self._tickets = [each for each in self._tickets if each[0] != buyer]
        self._tickets += [(buyer, each["ticket_code"]) for each in owned.json["tickets"]]
