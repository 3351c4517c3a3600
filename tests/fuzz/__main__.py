"""The command line of the harness: `scripts/fuzz --requests 100000 --seed 7`, `scripts/fuzz --replay FILE`."""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

import msgspec
import uvloop
from yarl import URL

from server.dev.embedded import embedded
from server.dev.wechat_keys import WeChatKeys
from server.store.migrate import migrate_by_owner
from server.telemetry import configure_logging
from tests.fuzz.case import Finding, Outcome
from tests.fuzz.driver import Driver
from tests.fuzz.run import attempt, fuzz, to_stderr
from tests.fuzz.scene import Scene, opened
from tests.fuzz.server import PLANTS

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = 20_000  # about a minute
REPLAYS = 3  # what depends on what else is under way may not come at once


def main(arguments: list[str]) -> int:
    """0 when nothing was found; 1 when something was; 2 for a wrong call. The last line is one JSON object."""
    options = _parser().parse_args(arguments)
    finding = (
        None if options.replay is None else msgspec.json.decode(options.replay.read_bytes(), type=Finding)
    )
    seed = finding.seed if finding is not None else options.seed
    began = time.monotonic()
    folder = ROOT / ".gateline" / f"fuzz-{os.getpid()}"
    folder.mkdir(parents=True)
    outcome = Outcome(seed)
    try:
        with (
            embedded(folder, need_valkey=True, need_postgres=True, erase=True) as servers,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            assert servers.redis_url and servers.database_url and servers.owner_database_url
            environment = _environment(seed, folder, servers.redis_url, servers.database_url)
            runner.run(migrate_by_owner(servers.database_url, servers.owner_database_url))
            runner.run(_run(outcome, environment, options, finding))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _tell(outcome, options.out)
    sys.stdout.write(json.dumps(outcome.line() | {"seconds": round(time.monotonic() - began, 1)}) + "\n")
    return 1 if outcome.breaches else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description="Attack a real server with requests that no one should send."
    )
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"how many ({REQUESTS:,})")
    parser.add_argument("--seed", type=int, default=7, help="of all dice (7)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="send the bytes of a finding again")
    parser.add_argument(
        "--plant", metavar="FAULTS", help=f"break the server first, it must be found: {','.join(PLANTS)}"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / ".gateline" / "fuzz", metavar="FOLDER", help="where findings go"
    )
    return parser


def _environment(seed: int, folder: Path, redis_url: str, database_url: str) -> dict[str, str]:
    """Keys are made of the seed, so that a token in a finding is one in the replay too."""

    def key(name: str) -> str:
        return base64.b64encode(hashlib.sha256(f"{name} {seed}".encode()).digest()).decode()

    return {
        "REDIS_URL": redis_url,
        "DATABASE_URL": database_url,
        "GATELINE_PORT": "0",
        "GATELINE_DATA_DIR": str(folder / "run"),
        "GATELINE_QR_KEYS": f"1:{key('qr')}",
        "GATELINE_JWT_KEYS": f"k1:{key('jwt')},old:{key('old jwt')}",
        "GATELINE_GATEWAY_SECRETS": key("gateway"),
        "GATELINE_DEMO_LOGIN": "1",
        "GATELINE_GUEST_LOGIN": "1",
    }


async def _run(
    outcome: Outcome, environment: dict[str, str], options: argparse.Namespace, finding: Finding | None
) -> None:
    async with opened(environment, WeChatKeys.fresh(), seed=outcome.seed, plant=options.plant) as scene:
        if finding is None:
            await fuzz(scene, environment, outcome, requests=options.requests)
        else:
            await _replay(scene, outcome, finding)


async def _replay(scene: Scene, outcome: Outcome, finding: Finding) -> None:
    url = URL(scene.process.address)
    to_stderr(f"again: {finding.what} ({finding.name})")
    for _ in range(REPLAYS):
        driver = Driver(url.host or "", url.port or 0)
        await attempt(scene, outcome, driver, finding.index, finding.case(scene.facts))
        await driver.close()


def _tell(outcome: Outcome, folder: Path) -> None:
    for number, finding in enumerate(outcome.findings):
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{finding.seed}-{number}.json"
        file.write_bytes(msgspec.json.format(msgspec.json.encode(finding), indent=1) + b"\n")
        to_stderr(
            f"\n{finding.what}\n  {finding.name}, number {finding.index} of seed {finding.seed}; {file}"
        )
        to_stderr(f"  sent {' '.join(finding.packets)[:400]}\n  came {finding.received[:200]}")


if __name__ == "__main__":
    configure_logging("error")
    sys.exit(main(sys.argv[1:]))
