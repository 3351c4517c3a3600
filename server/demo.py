"""The demo: embedded servers, a demo catalog, simulators of both gateways, and the whole road, on this machine alone.

Its secrets and passwords are made at random on the first run and kept under the data folder: there is no default
password to forget.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec
import uvloop

from server.app import Parts, open_parts
from server.config import Config, WeChatAccount, load
from server.dev.databases import databases
from server.dev.embedded import EmbeddedServerError
from server.dev.gateway import Gateway
from server.dev.serving import serving
from server.dev.walk import Walk, show_report, walk
from server.dev.walk_wechat import pay_by_wechat
from server.dev.wechat import WeChat
from server.dev.wechat_keys import WeChatKeys
from server.domain.catalog_diff import ChangeKind
from server.domain.catalog_file import parse
from server.flows import operators
from server.flows.catalog_apply import apply
from server.jobs.check import check
from server.jobs.findings import exit_code, render
from server.service import listening
from server.store.migrate import migrate_by_owner
from server.telemetry import configure_logging

CATALOG: Final = Path(__file__).parent / "dev" / "demo_catalog.toml"
ACCOUNTS: Final = ("gate-1", "analyst-1")
_READY_S_MAX: Final = 60.0
_RECORD_S_MAX: Final = 15.0
_NOTIFY_TIME_SCALE: Final = 0.01  # WeChat tells again after 15 s; here after 0.15 s


def run_demo(environment: Mapping[str, str], *, once: bool) -> int:
    """The `gateline demo` command; 0 when every step held. Raises ConfigError, EmbeddedServerError, OSError."""
    data_dir = Path(environment.get("GATELINE_DATA_DIR", ".gateline"))
    kept = _secrets(data_dir)
    wechat = WeChatKeys.open(data_dir / "wechat")
    nowhere = "http://127.0.0.1:1"  # replaced when the simulators have their ports
    given = {
        "GATELINE_LOG_LEVEL": "error",
        **kept["environment"],
        "GATELINE_GATEWAY_URL": nowhere,
        "GATELINE_DEMO_LOGIN": "1",
        # A demo never goes to a real merchant's account.
        **{name: value for name, value in environment.items() if not name.startswith("GATELINE_WECHAT_")},
        **wechat.environment(nowhere),
    }
    config = load(given)
    configure_logging(config.log_level)
    print("Gateline demo: starting Valkey and PostgreSQL…", flush=True)
    if config.port == 0:  # the gateway has to know our address before we listen
        config = load({**given, "GATELINE_PORT": str(_free_port(config.host))})
    with databases(config) as named, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_demo(named, wechat, kept["passwords"], once=once))


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _secrets(data_dir: Path) -> dict[str, dict[str, str]]:
    """What the demo keeps from run to run, readable by its user alone."""

    def key() -> str:
        return base64.b64encode(secrets.token_bytes(32)).decode()

    data_dir.mkdir(parents=True, exist_ok=True)
    file = data_dir / "demo.json"
    if not file.exists():
        fresh = {
            "environment": {
                "GATELINE_QR_KEYS": f"1:{key()}",
                "GATELINE_JWT_KEYS": f"demo:{key()}",
                "GATELINE_GATEWAY_SECRETS": key(),
            },
            "passwords": {account: secrets.token_urlsafe(9) for account in ACCOUNTS},
        }
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(fresh, stream)
    try:
        kept: dict[str, dict[str, str]] = json.loads(file.read_text(encoding="utf-8"))
        return {part: dict(kept[part]) for part in ("environment", "passwords")}
    except (ValueError, LookupError, TypeError) as fault:
        raise EmbeddedServerError(
            f"{file} cannot be read: delete it, and the demo makes a new one"
        ) from fault


class _Simulators(NamedTuple):
    """Where they are reached, and the app of the simulated phone."""

    gateway: str
    wechat: str
    miniprogram_appid: str


async def _demo(config: Config, wechat: WeChatKeys, passwords: dict[str, str], *, once: bool) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with (
        serving(Gateway(config.gateway_secrets).app()) as gateway_url,
        serving(WeChat(wechat, time_scale=_NOTIFY_TIME_SCALE).app()) as wechat_url,
    ):
        config = msgspec.structs.replace(config, gateway_url=gateway_url, wechat=_at(config, wechat_url))
        simulators = _Simulators(gateway_url, wechat_url, wechat.miniprogram_appid)
        async with open_parts(config) as parts:
            await _prepare(parts, passwords)
            async with listening(parts, with_jobs=True) as address:
                result = await _road(parts, address, passwords, simulators)
                if not once and not stopped.is_set():
                    _tell_addresses(address, simulators, passwords)
                    await stopped.wait()
                    print("\nStopping…", flush=True)
    if once:
        print(json.dumps(result))
    return 0 if result["ok"] else 1


def _at(config: Config, url: str) -> WeChatAccount | None:
    """The merchant, with WeChat at this address."""
    if config.wechat is None:
        return None
    return msgspec.structs.replace(config.wechat, api_urls=(url,), login_url=url)


async def _prepare(parts: Parts, passwords: dict[str, str]) -> None:
    """The schema, the catalog and the accounts; all of it may be there from an earlier run."""
    config = parts.config
    applied = await migrate_by_owner(config.database_url or "", config.owner_database_url)
    if applied:
        print(f"Schema: applied {', '.join(applied)}")
    await parts.rehydration.guard()  # a cap can only be lowered in an open gate
    changes = await apply(
        parts.bulk_database, parts.stock, parse(CATALOG.read_text(encoding="utf-8")), dry_run=False
    )
    print(f"Catalog: {sum(1 for change in changes if change.kind is not ChangeKind.NOTHING)} changes")
    while await parts.publisher.publish():  # the caps, before the first order comes
        pass
    for username, password in passwords.items():
        await operators.set_password(parts.database, username, password)


async def _road(
    parts: Parts, address: str, passwords: dict[str, str], simulators: _Simulators
) -> dict[str, Any]:
    """Walk the road, show the report, audit both databases; the demo's result."""
    async with aiohttp.ClientSession() as session:
        await _until_ready(session, address)
        print(f"Serving on {address}\n")
        walked = Walk(session, address)
        try:
            rows = await walk(
                walked,
                passwords,
                pay_by_wechat=lambda product: pay_by_wechat(
                    walked, product, simulators.wechat, simulators.miniprogram_appid
                ),
                until_recorded=lambda: _until_recorded(parts),
            )
        except (LookupError, TypeError, aiohttp.ClientError, TimeoutError) as fault:
            walked.broken.append(f"the road ended after step {walked.steps}: {fault!r}")
        else:
            show_report(rows)
    findings = await check(parts.bulk_database, parts.redis, parts.streams, parts.epochs, parts.config.shards)
    print("\n" + render(findings))
    for line in walked.broken:
        print(f"DID NOT HOLD: {line}")
    breaches = sum(finding.breaches for finding in findings)
    return {
        "ok": not walked.broken and exit_code(findings) == 0,
        "steps": walked.steps,
        "steps_broken": len(walked.broken),
        "breaches": breaches,
    }


async def _until_ready(session: aiohttp.ClientSession, address: str) -> None:
    async with asyncio.timeout(_READY_S_MAX):
        while True:
            async with session.get(f"{address}/readyz") as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.05)


async def _until_recorded(parts: Parts) -> None:
    """Reports are made of the record, which is behind the gate by the flusher's lag."""
    async with asyncio.timeout(_RECORD_S_MAX):
        while any([await parts.streams.length(name) for name in parts.stream_names]):
            await asyncio.sleep(0.02)


def _tell_addresses(address: str, simulators: _Simulators, passwords: dict[str, str]) -> None:
    print(
        f"""
Still serving. Ctrl-C stops.

  Buyer          {address}/
  Gate           {address}/gate
  Report         {address}/report
  API document   {address}/docs
  Readiness      {address}/readyz
  Metrics        {address}/metrics
  Phone          {simulators.wechat}/phone (pays orders that wait at the simulated WeChat)
  Cashier        {simulators.gateway}/pay (through an order's payUrl)
"""
    )
    print("  Accounts of the gate and the report")
    for username, password in passwords.items():
        print(f"    {username:<12} {password}")
    print("  Buyers need none here: POST /auth/demo/login takes any name.", flush=True)
