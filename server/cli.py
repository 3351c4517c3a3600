"""The `gateline` command: its words. What they do stands in `commands.py`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from server.config import Config, ConfigError, load
from server.config.rings import PURPOSES, Step
from server.limits import AUDIT_ENTRIES_MAX, WORKERS_MAX

_SERVING: Final = frozenset(
    {"serve", "work"}
)  # the commands that need every secret, and that count what they do


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 when it did what it was asked, 1 when not, 2 for a wrong call."""
    arguments = _parser().parse_args(argv)
    if arguments.command in _SERVING:
        signal.signal(signal.SIGHUP, _heard_too_early)
    try:
        config = load(os.environ, serving=arguments.command in _SERVING)
    except ConfigError as fault:
        print(f"gateline: the configuration is not legal:\n{fault}", file=sys.stderr)
        return 1
    if arguments.command in _SERVING:
        try:
            _share_metrics(config)
        except OSError as fault:
            print(f"gateline: GATELINE_DATA_DIR cannot be written to: {fault}", file=sys.stderr)
            return 1
    # Only now: the metrics library chooses its storage when it is imported.
    from server.commands import run  # noqa: PLC0415

    return run(arguments, config)


def _heard_too_early(number: int, frame: object) -> None:
    """Read the keys again: they were not read once, or will be looked at when the process can serve."""


def _share_metrics(config: Config) -> None:
    """The processes of one installation on one machine count together, in files of one folder."""
    folder = config.data_dir.absolute() / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gateline", description="Sell, issue and redeem tickets.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="show the whole road on embedded servers, then keep serving")
    demo.add_argument(
        "--once", action="store_true", help="stop after the road; the last line is one JSON object"
    )
    demo.set_defaults(command="demo")

    serve = commands.add_parser("serve", help="serve HTTP")
    serve.add_argument("--with-jobs", action="store_true", help="run the jobs in the same process")
    serve.add_argument("--reuse-port", action="store_true", help="share the port with other processes")
    serve.add_argument(
        "--workers", type=_workers, default=1, metavar="N", help=f"so many processes, 1 to {WORKERS_MAX}"
    )
    serve.set_defaults(command="serve")

    work = commands.add_parser("work", help="run the jobs: flush, publish, expire, reconcile, guard")
    work.set_defaults(command="work")
    for child in (serve, work):  # told by the parent of several workers to each of them
        child.add_argument("--leash", type=int, help=argparse.SUPPRESS)

    commands.add_parser("migrate", help="bring the database up to this version").set_defaults(
        command="migrate"
    )
    check = commands.add_parser("check", help="hold Redis and Postgres against every invariant")
    check.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    check.set_defaults(command="check")

    _keys_parser(commands)
    _record_parser(commands)
    _catalog_parser(commands)
    _operator_parser(commands)
    _dev_parser(commands)
    return parser


def _workers(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= WORKERS_MAX:
        raise argparse.ArgumentTypeError(f"a number from 1 to {WORKERS_MAX}")
    return number


def _entries(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= AUDIT_ENTRIES_MAX:
        raise argparse.ArgumentTypeError(f"a number from 1 to {AUDIT_ENTRIES_MAX:,}")
    return number


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as fault:
        raise argparse.ArgumentTypeError("a date, or a date and time, as ISO 8601 has them") from fault
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _record_parser(commands: Any) -> None:
    rehydrate = commands.add_parser("rehydrate", help="load Redis from Postgres")
    rehydrate.add_argument(
        "--recover",
        action="store_true",
        help="first record what only Redis knows was redeemed: after Postgres has lost its last writes",
    )
    rehydrate.set_defaults(command="rehydrate")

    backup = commands.add_parser("backup", help="write the record into a file, while everything goes on")
    restore = commands.add_parser("restore", help="fill an empty database from a backup, load Redis, check")
    for command, verb in ((backup, "backup"), (restore, "restore")):
        command.add_argument("file", type=Path, metavar="FILE")
        command.set_defaults(command=verb)

    audit = commands.add_parser("audit", help="who changed the catalog, operators and keys, and when")
    audit.add_argument(
        "--since",
        type=_moment,
        metavar="WHEN",
        help="2026-11-22 or 2026-11-22T18:00:00+08:00; UTC if no zone",
    )
    audit.add_argument(
        "--limit",
        type=_entries,
        default=100,
        metavar="N",
        help=f"the newest N, 1 to {AUDIT_ENTRIES_MAX:,}; 100",
    )
    audit.add_argument("--json", action="store_true", help="one JSON object a line")
    audit.set_defaults(command="audit")


def _catalog_parser(commands: Any) -> None:
    catalog = commands.add_parser("catalog", help="products, venues and operators from a file")
    verbs = catalog.add_subparsers(required=True, metavar="VERB")
    apply = verbs.add_parser("apply", help="make the catalog what FILE says; what FILE does not name stays")
    apply.add_argument("file", type=Path, metavar="FILE", help="TOML")
    apply.add_argument("--dry-run", action="store_true", help="only say what would change")
    apply.set_defaults(command="catalog_apply")


def _operator_parser(commands: Any) -> None:
    operator = commands.add_parser("operator", help="accounts of gate staff and analysts")
    verbs = operator.add_subparsers(required=True, metavar="VERB")
    add = verbs.add_parser("add", help="a new account; the password is asked for")
    add.add_argument("username")
    add.add_argument("--role", choices=("gate", "analyst"), default="gate")
    add.add_argument("--venue", help="where their scans happen when they name no venue")
    disable = verbs.add_parser("disable", help="no login, and an end to all tokens, within a second")
    disable.add_argument("username")
    password = verbs.add_parser("password", help="a new password; ends all tokens, and enables the account")
    password.add_argument("username")
    unblock = verbs.add_parser("unblock", help="forget its failed logins: who waits may log in now")
    unblock.add_argument("username")
    for verb in (add, disable, password, unblock):
        verb.set_defaults(command="operator", verb=verb.prog.rpartition(" ")[2])


def _keys_parser(commands: Any) -> None:
    keys = commands.add_parser("keys", help="print fresh secrets for the environment, or rotate those it has")
    keys.add_argument(
        "--rotate",
        choices=[step.value for step in Step],
        help="the present rings with a fresh key behind (add), with the last one first (turn), or alone (drop)",
    )
    keys.add_argument(
        "--only", action="append", choices=list(PURPOSES), help="of these alone; may be given several times"
    )
    keys.add_argument("--write", action="store_true", help="into the files that the settings name")
    keys.set_defaults(command="keys")


def _dev_parser(commands: Any) -> None:
    dev = commands.add_parser("dev", help="stand-ins for others' services, for development")
    verbs = dev.add_subparsers(required=True, metavar="VERB")
    wechat = verbs.add_parser("wechat", help="a WeChat Pay on loopback; prints the settings that point to it")
    wechat.add_argument("--port", type=int, default=8081)
    wechat.add_argument(
        "--time-scale", type=float, default=0.01, metavar="FACTOR", help="of the waits between notifications"
    )
    wechat.add_argument(
        "--misbehave",
        default="",
        metavar="NAME=RATE,…",
        help="or `everything`; `seed=7` repeats a run; an unknown name lists all",
    )
    wechat.set_defaults(command="dev_wechat")


if __name__ == "__main__":
    sys.exit(main())
