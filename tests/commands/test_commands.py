"""The `gateline` command as a person types it: real processes, embedded servers, one data folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from server import config as configuration
from server.dev.embedded import EmbeddedServers
from server.dev.process import children
from tests.conftest import database_named
from tests.road import PATIENCE_S

GATELINE = [sys.executable, "-m", "server.cli"]
CATALOG = """
[[functions]]
code = "bus"
label = "Bus"

[[venues]]
code = "stop"
name = "Stop"
functions = ["bus"]

[[products]]
sku = "RIDE"
name = "Ride"
price_fen = 300
sellable = 10
functions = { bus = 1 }

[[operators]]
username = "gina"
role = "gate"
"""


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """An environment without any setting of ours but the data folder."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GATELINE_") and name not in ("REDIS_URL", "DATABASE_URL")
    }
    return {**clean, "GATELINE_DATA_DIR": str(tmp_path / "data"), **more}


def gateline(*words: str, env: dict[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*GATELINE, *words],
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def secrets_of(env: dict[str, str]) -> dict[str, str]:
    """What `gateline keys` prints, as settings."""
    printed = gateline("keys", env=env).stdout.splitlines()
    return dict(line.split("=", 1) for line in printed)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a `gateline serve --with-jobs` on embedded servers, which is ready."""
    tmp_path = tmp_path_factory.mktemp("serving")
    env = environment(tmp_path, GATELINE_GATEWAY_URL="http://127.0.0.1:9", GATELINE_PORT="18431")
    env |= secrets_of(env)
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen([*GATELINE, "serve", "--with-jobs"], env=env, stderr=log)
    try:
        until_ready("http://127.0.0.1:18431", process)
        yield env
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        log.close()


def until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until /readyz says 200."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=PATIENCE_S):  # noqa: S310
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("not ready in time")


def test_the_demo_holds_every_step_and_says_so_in_its_last_line(tmp_path: Path) -> None:
    env = environment(tmp_path, GATELINE_PORT="0")
    first = gateline("demo", "--once", env=env)
    again = gateline("demo", "--once", env=env)

    for run in (first, again):
        assert run.returncode == 0, run.stdout + run.stderr
        result = json.loads(run.stdout.splitlines()[-1])
        assert result["ok"] is True
        assert result["steps"] >= 25
        assert result["breaches"] == 0
    assert "Schema: applied" not in again.stdout, "the data of the first run was not kept"


def test_fresh_keys_make_a_legal_configuration(tmp_path: Path) -> None:
    env = environment(tmp_path)
    given = secrets_of(env) | {"GATELINE_GATEWAY_URL": "http://127.0.0.1:9"}

    loaded = configuration.load(given)

    assert len(loaded.qr_keys) == len(loaded.jwt_keys) == len(loaded.gateway_secrets) == 1
    assert secrets_of(env) != secrets_of(env)


def test_serving_without_secrets_is_an_error_that_names_all_of_them(tmp_path: Path) -> None:
    run = gateline("serve", env=environment(tmp_path))

    assert run.returncode == 1
    for name in ("QR_KEYS", "JWT_KEYS"):
        assert f"GATELINE_{name} is missing" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_catalog_file_changes_a_running_server_which_shares_its_embedded_databases(
    serving: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "catalog.toml"
    file.write_text(CATALOG)

    tried = gateline("catalog", "apply", str(file), "--dry-run", env=serving)
    applied = gateline("catalog", "apply", str(file), env=serving)
    again = gateline("catalog", "apply", str(file), env=serving)
    password = gateline("operator", "password", "gina", env=serving, stdin="a long enough password\n")
    unblocked = gateline("operator", "unblock", "gina", env=serving)
    checked = gateline("check", env=serving)

    assert "4 of 4 entries would change" in tried.stdout, tried
    assert "4 of 4 entries changed" in applied.stdout, applied
    assert "0 of 4 entries changed" in again.stdout
    assert password.returncode == 0, password
    assert unblocked.stdout == "gina: done\n", unblocked
    assert checked.returncode == 0, checked.stdout
    deadline = time.monotonic() + PATIENCE_S
    skus: list[str] = []
    while time.monotonic() < deadline and skus != ["RIDE"]:
        with urllib.request.urlopen("http://127.0.0.1:18431/catalog", timeout=PATIENCE_S) as answer:
            skus = [product["sku"] for product in json.load(answer)["products"]]
    assert skus == ["RIDE"]


def test_a_wrong_catalog_file_is_refused_with_line_and_reason(
    serving: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "catalog.toml"
    file.write_text(CATALOG.replace("{ bus = 1 }", "{ boat = 1 }"))

    run = gateline("catalog", "apply", str(file), env=serving)

    assert run.returncode == 1
    line = CATALOG.splitlines().index("functions = { bus = 1 }") + 1
    assert f"catalog.toml:{line}:" in run.stderr
    assert "boat" in run.stderr


def test_short_passwords_and_unknown_operators_are_refused_in_words(serving: dict[str, str]) -> None:
    short = gateline("operator", "add", "gus", env=serving, stdin="short\n")
    unknown = [gateline("operator", verb, "nobody", env=serving) for verb in ("disable", "unblock")]

    assert [each.returncode for each in (short, *unknown)] == [1, 1, 1]
    assert "10 to 256 characters" in short.stderr
    assert all("no operator of this name" in each.stderr for each in unknown)


def test_workers_share_the_embedded_databases_of_their_parent(tmp_path: Path) -> None:
    env = environment(tmp_path, GATELINE_GATEWAY_URL="http://127.0.0.1:9", GATELINE_PORT="18432")
    env |= secrets_of(env)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*GATELINE, "serve", "--workers", "2", "--with-jobs"], env=env, stdout=log, stderr=log
        )
        try:
            until_ready("http://127.0.0.1:18432", process)
            checked = gateline("check", env=env)
            started = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(process.pid)]
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(PATIENCE_S)

    assert status == 0, (tmp_path / "log").read_text()
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert sum(b"valkey-server" in words for words in started) == 1
    assert sum(b"server.cli" in words for words in started) == 3
    assert not (tmp_path / "data" / "addresses.json").exists()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_the_audit_trail_says_who_did_what_to_a_running_installation(
    serving: dict[str, str], tmp_path: Path
) -> None:
    added = gateline("operator", "add", "audited", env=serving, stdin="a long enough password\n")
    listed = gateline("audit", env=serving)
    newest = gateline("audit", "--limit", "1", "--json", env=serving)
    later = gateline("audit", "--since", "2999-01-01", env=serving)
    unreadable = gateline("audit", "--since", "yesterday", env=serving)

    assert added.returncode == listed.returncode == 0, listed
    keys, *_, last = listed.stdout.splitlines()
    assert "gateline serve " in keys and "KEYS_CHANGED  keys: qr [" in keys
    assert last.endswith("OPERATOR_ADDED  audited: role gate, venue null")
    entry = json.loads(newest.stdout)
    assert (entry["action"], entry["subject"], entry["actor"]) == (
        "OPERATOR_ADDED",
        "audited",
        last.split()[2],
    )
    assert (later.returncode, later.stdout) == (0, "")
    assert unreadable.returncode == 2
    everything = listed.stdout + newest.stdout
    assert "long enough" not in everything
    for setting in ("GATELINE_QR_KEYS", "GATELINE_JWT_KEYS", "GATELINE_GATEWAY_SECRETS"):
        assert serving[setting].rpartition(":")[2] not in everything


async def test_a_database_of_the_environment_is_migrated_only_when_asked(
    servers: EmbeddedServers, tmp_path: Path
) -> None:
    assert servers.database_url and servers.owner_database_url and servers.redis_url
    admin = await asyncpg.connect(servers.owner_database_url)
    await admin.execute("CREATE DATABASE bare")
    url, owner_url = (
        database_named(each, "bare") for each in (servers.database_url, servers.owner_database_url)
    )
    env = environment(tmp_path, DATABASE_URL=url, REDIS_URL=servers.redis_url)
    as_owner = {**env, "GATELINE_OWNER_DATABASE_URL": owner_url}
    try:
        refused = gateline("check", env=env)
        one_role = gateline("migrate", env={**env, "DATABASE_URL": owner_url})
        without_rights = gateline("check", env=env)
        migrated = gateline("migrate", env=as_owner)
        rehydrated = gateline("rehydrate", env=env)
        again = gateline("migrate", env={**env, "DATABASE_URL": owner_url})  # the server keeps its rights
        audited = gateline("check", env=env)
    finally:
        await admin.execute("DROP DATABASE bare WITH (FORCE)")
        await admin.close()

    assert refused.returncode == 1
    assert "run `gateline migrate` first" in refused.stderr
    assert "applied 0001_baseline" in one_role.stdout
    assert "can change what is recorded" in one_role.stderr
    assert without_rights.returncode == 1
    assert "GATELINE_OWNER_DATABASE_URL" in without_rights.stderr and "Traceback" not in without_rights.stderr
    assert (migrated.stdout.strip(), migrated.stderr) == ("up to date", "")
    assert again.stdout.strip() == "up to date"
    assert audited.returncode == 0, audited
    assert rehydrated.returncode == 0, rehydrated
    assert "0 of 0" in rehydrated.stderr
