"""SIGHUP to real processes: what it does, what it does not, and that it never ends one."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from typing import Any

import jwt
import pytest
from aiohttp import ClientSession

from server.config import Config
from tests.conftest import eventually
from tests.outage.test_workers import by_every_worker, serving_children, two_workers
from tests.processes import ROOT, Process
from tests.road import PATIENCE_S, Road
from tests.rotation.conftest import KeyFiles, Spawn, leaks

PROCESSES = 3  # two workers and the jobs


def events(process: Process, name: str) -> list[dict[str, Any]]:
    """The lines of this event so far."""
    return [line for line in process.log if name in (line.get("event"), line.get("alert"))]


async def hung_up(process: Process, event: str, number: int) -> list[dict[str, Any]]:
    """SIGHUP, and what the processes say, once so many have said this."""
    before = len(events(process, event))
    process.send(signal.SIGHUP)
    await eventually(lambda: asyncio.sleep(0, len(events(process, event)) >= before + number))
    return events(process, event)[before:]


async def counted(road: Road, sample: str) -> float:
    """The sum of the samples of /metrics that begin so."""
    text = (await road.call("GET", "/metrics")).raw.decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample))


@pytest.mark.timeout(180)
async def test_the_parent_hands_it_on_to_workers_and_jobs_and_all_of_them_take_the_new_keys(
    spawn: Spawn, key_files: KeyFiles, config: Config, environment: dict[str, str]
) -> None:
    async with two_workers(spawn, config, log_level="debug") as (parent, road):
        key_files.write(1, 2)
        told = await hung_up(parent, "keys_reloaded", PROCESSES)
        accepted = await counted(road, 'gateline_keys{key="k2 (')
        key_files.write(2, 1)
        os.kill(_a_worker(parent), signal.SIGKILL)  # one that dies meanwhile comes back with them
        await hung_up(parent, "keys_reloaded", PROCESSES - 1)
        await parent.until("worker_started_again")
        pids = {*serving_children(parent)}
        signing = await counted(
            road, f'gateline_keys{{key="{_label(told, "jwt", 1)}",purpose="jwt",use="signs"'
        )
        logins = await by_every_worker(road, method="POST", path="/auth/demo/login", json={"buyer": "ann"})

        assert {json.dumps(each["rotated"]) for each in told} == {
            '["GATELINE_QR_KEYS", "GATELINE_JWT_KEYS", "GATELINE_GATEWAY_SECRETS"]'
        }
        assert [key.partition(" ")[0] for key in told[0]["keys"]["jwt"]] == ["k1", "k2"]
        assert (accepted, signing) == (PROCESSES, PROCESSES)
        for answer in logins.values():
            assert _kid(answer.json["token"]) == "k2"

        before = {name: (key_files.folder / name).read_text() for name in ("QR_KEYS", "JWT_KEYS")}
        key_files.write(3)  # all at once, and one of them is not legal
        key_files.put(
            "QR_KEYS", f"3:{key_files.secret('QR_KEYS', 3)},4:{key_files.secret('QR_KEYS', 1)[:-5]}"
        )
        alerts = await hung_up(parent, "KEYS_RELOAD_FAILED", PROCESSES)
        still = await by_every_worker(road, method="POST", path="/auth/demo/login", json={"buyer": "ann"})

        assert {len(each["faults"]) for each in alerts} == {1}
        assert all(each["faults"][0].startswith("GATELINE_QR_KEYS is not legal") for each in alerts)
        assert {each["level"] for each in alerts} == {"error"}
        assert await road.alerts("KEYS_RELOAD_FAILED") == PROCESSES
        assert await counted(road, 'gateline_key_reloads_total{outcome="refused"}') == PROCESSES
        assert all(_kid(answer.json["token"]) == "k2" for answer in still.values())

        for name, text in before.items():
            key_files.put(name, text.strip())
        key_files.put("GATEWAY_SECRETS", key_files.secret("GATEWAY_SECRETS", 2))
        await hung_up(parent, "keys_reloaded", PROCESSES)
        assert {*serving_children(parent)} == pids, "nobody was started again"
        answers = [await road.call("GET", path) for path in ("/readyz", "/metrics", "/my/tickets")]
        assert await parent.stop() == 0
        said = json.dumps(parent.log) + "".join(parent.said()) + "".join(str(each) for each in answers)
        assert len(said) > 2_000 and leaks(said, key_files.secrets) == []


async def test_with_nothing_new_it_changes_nothing_and_other_settings_wait_for_a_restart(
    spawn: Spawn, key_files: KeyFiles
) -> None:
    key_files.put("HOLD_S", "900")
    process = await spawn("work", GATELINE_HOLD_S=f"file:{key_files.folder / 'HOLD_S'}")
    await process.until("working")
    for _ in range(3):
        (told,) = await hung_up(process, "keys_reloaded", 1)
        assert told["rotated"] == []
    key_files.put("HOLD_S", "800")
    (told,) = await hung_up(process, "restart_needed", 1)
    assert told["settings"] == ["GATELINE_HOLD_S"]
    assert await process.stop() == 0
    assert process.errors() == []


async def test_one_that_comes_while_a_process_starts_is_not_lost_and_kills_nothing(
    spawn: Spawn, key_files: KeyFiles
) -> None:
    """The file changes after the process has read it, and before it can hear that."""
    program = ("-c", _SLOW_START)
    process = await spawn("serve", program=program)
    await process.until("reading_done")
    key_files.write(2, 1)
    process.send(signal.SIGHUP)
    process.send(signal.SIGHUP)
    serving = await process.until("serving")
    await process.until("keys_reloaded")
    async with (
        ClientSession(base_url=serving["address"]) as session,
        session.post("/auth/demo/login", json={"buyer": "ann"}) as answer,
    ):
        token = (await answer.json())["token"]
    assert _kid(token) == "k2"
    assert await process.stop() == 0


_SLOW_START = """
import sys, time
from server import cli, config
load = config.load
def slowly(*arguments, **options):
    loaded = load(*arguments, **options)
    print('{"event": "reading_done", "level": "info"}', file=sys.stderr, flush=True)
    time.sleep(1)
    return loaded
cli.load = slowly
sys.exit(cli.main())
"""


async def test_a_terminal_that_is_closed_ends_the_server_in_order(environment: dict[str, str]) -> None:
    terminal, theirs = pty.openpty()
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _AT_A_TERMINAL, "serve", "--with-jobs"),
        cwd=ROOT, env={**os.environ, **environment, "GATELINE_LOG_LEVEL": "warning"}, start_new_session=True,
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while b'"serving"' not in said:
                said += await asyncio.to_thread(os.read, terminal, 4096)
            os.close(terminal)
            assert await server.wait() == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()


_AT_A_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from server.cli import main
sys.exit(main())
"""


def _a_worker(parent: Process) -> int:
    return next(pid for pid, words in serving_children(parent).items() if words[0] == "serve")


def _kid(token: str) -> str:
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


def _label(told: list[dict[str, Any]], purpose: str, place: int) -> str:
    label: str = told[0]["keys"][purpose][place]
    return label
