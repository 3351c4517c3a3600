"""What the words of the `gateline` command do."""

from __future__ import annotations

import argparse
import asyncio
import base64
import getpass
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog
import uvloop

from server import workers
from server.app import Parts, open_parts
from server.config import Config, rings
from server.demo import run_demo
from server.dev.databases import databases
from server.dev.embedded import EmbeddedServerError
from server.dev.serving import serving
from server.dev.wechat import WeChat
from server.dev.wechat_faults import parse as parse_faults
from server.dev.wechat_keys import WeChatKeys
from server.domain.catalog import Role
from server.domain.catalog_diff import Change, ChangeKind
from server.domain.catalog_file import CatalogFileError, parse
from server.domain.errors import Refusal
from server.flows import operators
from server.flows.catalog_apply import apply
from server.flows.operators import OperatorError
from server.hot.connection import AckError
from server.jobs.backup import BackupError, back_up
from server.jobs.check import check
from server.jobs.findings import exit_code, render, report
from server.restore import owner_url, rehydrate, restore
from server.rotation import hangup_signal
from server.service import address_of, serve, stop_signal, work
from server.store.audit import trail
from server.store.migrate import MigrationError, may_change_verdicts, migrate_by_owner, pending
from server.store.pool import Database
from server.telemetry import configure_logging, forget_dead_processes
from server.workers import WorkersError

_ONE_ROLE: Final = (
    'the role of DATABASE_URL can change what is recorded; README, "Two roles", says how to give it less'
)
_log: Final = structlog.get_logger(__name__)
T = TypeVar("T")


class CommandError(Exception):
    """The command cannot be done; the message says why and what to do."""


def run(arguments: argparse.Namespace, config: Config) -> int:
    """Run one command; the exit status is 0 when it did what it was asked."""
    try:
        return _COMMANDS[arguments.command](arguments, config)
    except Refusal as refusal:
        return _fail(f"{refusal.code.name}: {refusal.message}")
    except (
        CommandError,
        OperatorError,
        EmbeddedServerError,
        AckError,
        rings.RingError,
        BackupError,
        MigrationError,
        WorkersError,
        OSError,
        UnicodeDecodeError,
    ) as fault:
        return _fail(str(fault))
    except KeyboardInterrupt:
        return 130


def _fail(message: str) -> int:
    print(f"gateline: {message}", file=sys.stderr)
    return 1


def _run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


# --- Running ------------------------------------------------------------------------------------------------


def _demo(arguments: argparse.Namespace, config: Config) -> int:
    return run_demo(os.environ, once=arguments.once)


def _serve(arguments: argparse.Namespace, config: Config) -> int:
    configure_logging(config.log_level)
    metrics_dir = config.data_dir.absolute() / "metrics"
    if arguments.leash is None:  # a worker's parent has done all this
        forget_dead_processes(metrics_dir)
    with databases(config) as named:
        if arguments.leash is None:
            _run(_schema_is_current(config, named))
        if arguments.workers > 1:
            return _serve_by_workers(arguments, named, metrics_dir)
        _run(
            serve(
                named,
                os.environ,
                with_jobs=arguments.with_jobs,
                reuse_port=arguments.reuse_port,
                metrics_dir=metrics_dir,
                leash=arguments.leash,
            )
        )
        return 0


def _serve_by_workers(arguments: argparse.Namespace, named: Config, metrics_dir: Path) -> int:
    with workers.reserved(named.host, named.port, shared=arguments.reuse_port) as port:
        settings = {
            "REDIS_URL": named.redis_url or "",
            "DATABASE_URL": named.database_url or "",
            "GATELINE_OWNER_DATABASE_URL": "",  # none of their business
            "GATELINE_PORT": str(port),
        }

        def worker(name: str, *words: str) -> workers.Worker:
            return workers.Worker(name, words, os.environ, settings, metrics_dir)

        async def run() -> int:
            stopped = stop_signal()
            return await workers.run(
                [worker(f"serve-{n + 1}", "serve", "--reuse-port") for n in range(arguments.workers)],
                worker("work", "work") if arguments.with_jobs else None,
                address_of(named.host, port),
                stopped,
                hangup_signal(stopped),
            )

        return _run(run())


def _work(arguments: argparse.Namespace, config: Config) -> int:
    configure_logging(config.log_level)
    with databases(config) as named:
        if arguments.leash is None:
            _run(_schema_is_current(config, named))
        _run(work(named, os.environ, leash=arguments.leash))
        return 0


async def _schema_is_current(config: Config, named: Config) -> None:
    """An embedded database is brought up to date; one of the environment only by `gateline migrate`."""
    if config.database_url is None:
        await _migrated(named)
        return
    database = Database(config.database_url, size_max=1)
    try:
        if missing := await pending(database):
            raise CommandError(f"the database lacks {', '.join(missing)}: run `gateline migrate` first")
        if await may_change_verdicts(database):
            _log.warning("record_not_protected", reason=_ONE_ROLE)
    except (
        Refusal
    ):  # a gate that is restarted during an outage must come up; what needs Postgres says so itself
        print("gateline: Postgres does not answer; its schema was not looked at", file=sys.stderr)
    finally:
        await database.close()


async def _migrated(named: Config) -> list[str]:
    return await migrate_by_owner(named.database_url or "", named.owner_database_url)


# --- Commands on the databases ------------------------------------------------------------------------------


def _migrate(arguments: argparse.Namespace, config: Config) -> int:
    with databases(config) as named:
        applied = _run(_migrated(named))
    print("\n".join(f"applied {name}" for name in applied) or "up to date")
    if named.owner_database_url is None:
        print(f"gateline: {_ONE_ROLE}", file=sys.stderr)
    return 0


def _on_parts(config: Config, act: Callable[[Parts], Awaitable[int]]) -> int:
    async def with_parts(named: Config) -> int:
        await _schema_is_current(config, named)
        async with open_parts(named) as parts:
            return await act(parts)

    configure_logging("error")
    with databases(config) as named:
        return _run(with_parts(named))


def _rehydrate(arguments: argparse.Namespace, config: Config) -> int:
    async def act(parts: Parts) -> int:
        await rehydrate(parts, use_gates=arguments.recover)
        return 0

    return _on_parts(config, act)


def _backup(arguments: argparse.Namespace, config: Config) -> int:
    with databases(config) as named:
        size = _run(back_up(owner_url(named), arguments.file, os.environ))
    print(f"{arguments.file}: {size:,} bytes")
    return 0


def _restore(arguments: argparse.Namespace, config: Config) -> int:
    async def with_parts(named: Config) -> int:
        async with open_parts(named) as parts:  # Redis must answer before anything is written
            return await restore(parts, arguments.file, os.environ)

    configure_logging("error")
    with databases(config) as named:
        return _run(with_parts(named))


def _check(arguments: argparse.Namespace, config: Config) -> int:
    async def act(parts: Parts) -> int:
        shards = parts.config.shards
        findings = await check(parts.bulk_database, parts.redis, parts.streams, parts.epochs, shards)
        print(report(findings) if arguments.json else render(findings))
        return exit_code(findings)

    return _on_parts(config, act)


def _catalog_apply(arguments: argparse.Namespace, config: Config) -> int:
    async def act(parts: Parts) -> int:
        try:
            file = parse(arguments.file.read_text(encoding="utf-8"))
            changes = await apply(parts.bulk_database, parts.stock, file, dry_run=arguments.dry_run)
        except CatalogFileError as fault:
            for each in fault.faults:
                print(f"{arguments.file}:{each.line}: {each.reason}", file=sys.stderr)
            return 1
        _tell_changes(changes, dry_run=arguments.dry_run)
        return 0

    return _on_parts(config, act)


def _tell_changes(changes: list[Change], *, dry_run: bool) -> None:
    told = [change for change in changes if change.kind is not ChangeKind.NOTHING]
    for change in told:
        print(change)
    number = f"{len(told)} of {len(changes)} entries"
    print(f"{number} would change; nothing was written." if dry_run else f"{number} changed.")


def _operator(arguments: argparse.Namespace, config: Config) -> int:
    async def act(parts: Parts) -> int:
        username, db = arguments.username, parts.database
        if arguments.verb == "disable":
            await operators.disable(db, username)
        elif arguments.verb == "password":
            await operators.set_password(db, username, _ask_password())
        elif arguments.verb == "unblock":
            await operators.unblock(db, parts.throttle, username)
        else:
            await operators.add(db, username, Role(arguments.role), arguments.venue, _ask_password())
        print(f"{username}: done")
        return 0

    return _on_parts(config, act)


def _ask_password() -> str:
    """From the terminal, twice; from a pipe, its first line. Never from the arguments, which others can see."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != password:
        raise CommandError("the two passwords differ")
    return password


def _audit(arguments: argparse.Namespace, config: Config) -> int:
    async def act(parts: Parts) -> int:
        async with parts.bulk_database.connection() as connection:
            entries = await trail(connection, arguments.since, arguments.limit)
        for entry in entries:
            print(msgspec.json.encode(entry).decode() if arguments.json else entry)
        return 0

    return _on_parts(config, act)


def _keys(arguments: argparse.Namespace, config: Config) -> int:
    def key() -> str:
        return base64.b64encode(secrets.token_bytes(32)).decode()

    if arguments.rotate:
        return _rotate(arguments, config)
    print(f"GATELINE_QR_KEYS=1:{key()}")
    print(f"GATELINE_JWT_KEYS=k1:{key()}")
    print(f"GATELINE_GATEWAY_SECRETS={key()}")
    return 0


def _rotate(arguments: argparse.Namespace, config: Config) -> int:
    purposes = arguments.only or [
        each for each in rings.PURPOSES if each != "webhook" or config.gateway_secrets
    ]
    texts = rings.moved(config, rings.Step(arguments.rotate), purposes, lambda: secrets.token_bytes(32))
    if arguments.write:
        for file in rings.write(os.environ, texts):
            print(f"{file}: written; SIGHUP tells the processes that read it")
    else:
        print("\n".join(f"{name}={text}" for name, text in texts.items()))
    return 0


def _dev_wechat(arguments: argparse.Namespace, config: Config) -> int:
    folder = config.data_dir.absolute() / "wechat"
    try:
        faults = parse_faults(arguments.misbehave)
    except ValueError as fault:
        raise CommandError(str(fault)) from fault
    simulator = WeChat(WeChatKeys.open(folder), faults, time_scale=arguments.time_scale)

    async def act() -> None:
        async with serving(simulator.app(), arguments.port) as address:
            for name, value in simulator.keys.environment_files(folder, address).items():
                print(f"export {name}={value}")
            print(f"# The phone that pays: {address}/phone. Ctrl-C stops.", flush=True)
            await stop_signal().wait()

    _run(act())
    return 0


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace, Config], int]]] = {
    "demo": _demo,
    "serve": _serve,
    "work": _work,
    "migrate": _migrate,
    "rehydrate": _rehydrate,
    "backup": _backup,
    "restore": _restore,
    "check": _check,
    "catalog_apply": _catalog_apply,
    "operator": _operator,
    "audit": _audit,
    "keys": _keys,
    "dev_wechat": _dev_wechat,
}
