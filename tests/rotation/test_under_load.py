"""All keys rotated over two serving processes while everybody uses them, and not one request is refused."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from typing import Any
from uuid import uuid4

import asyncpg
import jwt
import pytest
from aiohttp import ClientSession, TCPConnector, WSMsgType
from aiohttp.test_utils import unused_port

from server.config import Config
from server.domain.catalog import Role
from tests.conftest import Audit, eventually, key
from tests.outage.test_workers import by_every_worker, followed
from tests.processes import Process, road_to
from tests.road import PATIENCE_S, Road
from tests.rotation.conftest import KeyFiles, Spawn, leaks
from tests.rotation.crowd import BUYERS, GATES, Crowd


class Installation:
    """Two servers on one port and the jobs: separate processes, each of which is told for itself."""

    def __init__(self, processes: list[Process], files: KeyFiles, crowd: Crowd) -> None:
        self.processes, self._files, self._crowd = processes, files, crowd

    async def step(self, *order: int) -> None:
        """Write the rings, and tell one process after the other, with requests in between."""
        self._files.write(*order)
        for process in self.processes:
            before = _reloads(process)
            process.send(signal.SIGHUP)
            await eventually(lambda p=process, n=before: asyncio.sleep(0, _reloads(p) > n))  # type: ignore[misc]
            await self._crowd.for_a_while()


def _reloads(process: Process) -> int:
    return sum(line.get("event") == "keys_reloaded" for line in process.log)


@pytest.mark.timeout(240)
async def test_three_steps_rotate_every_key_and_no_request_is_refused(
    spawn: Spawn,
    key_files: KeyFiles,
    config: Config,
    environment: dict[str, str],
    audit: Audit,
    pg: asyncpg.Connection[Any],
) -> None:
    environment["GATELINE_PORT"] = str(unused_port())
    servers = [await spawn("serve", "--reuse-port", log_level="info") for _ in range(2)]
    jobs = await spawn("work", log_level="info")
    addresses = {(await server.until("serving"))["address"] for server in servers}
    async with road_to(addresses.pop(), config) as road:
        connector = TCPConnector(force_close=True, limit=0)  # each request may reach either of them
        async with ClientSession(base_url=road.url, connector=connector) as session:
            road.session = session
            for name in GATES:
                await road.staff(name, Role.GATE)
            product = await road.product({"bus": 1_000}, sellable=100_000)
            await followed(road, product)
            old, new = (key_files.secrets.setdefault(("GATEWAY_SECRETS", n), key()) for n in (1, 2))
            crowd = Crowd(road, product, base64.b64decode(old))
            installation = Installation([*servers, jobs], key_files, crowd)

            async with crowd.busy():
                await crowd.for_a_while()
                old_bearer, old_qr = crowd.bearers["gate-1"], await _a_qr(road, crowd)
                await installation.step(1, 2)  # everyone can read the new one
                crowd.secret = base64.b64decode(new)  # the gateway goes over when it likes
                await installation.step(2, 1)  # it signs
                idle = await session.ws_connect("/venue/stream", headers={"Authorization": old_bearer})
                await crowd.until_all_logged_in_again()  # the longest life of a token
                assert {_kid(bearer) for bearer in crowd.bearers.values()} == {"k2"}
                await installation.step(2)  # the old one leaves

            assert crowd.refused == []
            assert len(crowd.by_process) == 2 and min(crowd.by_process.values()) > 50
            assert min(crowd.done.values()) >= 10, crowd.done
            end = await idle.receive(PATIENCE_S)
            assert (end.type, end.data, end.extra) == (WSMsgType.CLOSE, 4401, "TOKEN_INVALID")
            await _nothing_old_is_accepted(road, old_bearer, crowd.bearers["gate-1"], old_qr)
            made = await road.call(
                "POST", "/orders",
                headers={"Authorization": crowd.bearers["ann"], "Idempotency-Key": uuid4().hex},
                json={"items": [{"product_id": product, "qty": 1}], "gateway": "hosted"},
            )  # fmt: skip
            assert (
                await road.notify(made.json["order_id"], 1000, secret=base64.b64decode(old))
            ).status == 401
            await _told_to_the_trail(pg)
        await audit(road)
    for process in (*servers, jobs):
        assert await process.stop() == 0
        assert process.errors() == []
        said = json.dumps(process.log)
        assert leaks(said, key_files.secrets) == [] and len(said) > 1_000


async def _told_to_the_trail(pg: asyncpg.Connection[Any]) -> None:
    """That the old keys left, and which ones are there now."""

    async def told() -> bool:
        newest = await pg.fetchrow(
            "SELECT actor, details ->> 'jwt' AS jwt FROM audit_trail WHERE action = 'KEYS_CHANGED'"
            " ORDER BY id DESC LIMIT 1"
        )
        keys = json.loads(newest["jwt"]) if newest else {"new": []}
        return [key.partition(" ")[0] for key in keys["new"]] == ["k2"] and newest["actor"].startswith(
            "gateline serve"
        )

    await eventually(told)


async def _a_qr(road: Road, crowd: Crowd) -> str:
    owned = await road.call("GET", "/my/tickets", headers={"Authorization": crowd.bearers[BUYERS[0]]})
    code = owned.json["tickets"][0]["ticket_code"]
    shown = await road.call(
        "POST", f"/qr/{code}?image=none", headers={"Authorization": crowd.bearers[BUYERS[0]]}
    )
    token: str = shown.json["qr_token"]
    return token


async def _nothing_old_is_accepted(road: Road, old_bearer: str, new_bearer: str, old_qr: str) -> None:
    """By neither of them: what the old keys had signed, sealed or sent."""
    told = await by_every_worker(road, method="GET", path="/venue", headers={"Authorization": old_bearer})
    assert {(each.status, each.json["code"]) for each in told.values()} == {(401, "TOKEN_INVALID")}
    read = await by_every_worker(
        road,
        method="POST",
        path="/qr/decrypt",
        headers={"Authorization": new_bearer},
        json={"qr_token": old_qr},
    )
    assert {each.json["code"] for each in read.values()} == {"QR_UNKNOWN_KEY"}


def _kid(bearer: str) -> str:
    kid: str = jwt.get_unverified_header(bearer.removeprefix("Bearer "))["kid"]
    return kid
