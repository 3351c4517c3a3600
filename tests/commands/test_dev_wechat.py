"""`gateline dev wechat`: a WeChat Pay on loopback, and the settings that point a server to it."""

from __future__ import annotations

import base64
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import config
from tests.road import PATIENCE_S

GATELINE = Path(sys.executable).with_name("gateline")


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, running on a free port."""
    environment = {"PATH": os.environ["PATH"], "GATELINE_DATA_DIR": str(tmp_path / "data")}
    command = [str(GATELINE), "dev", "wechat", "--port", "0", "--misbehave", "everything,seed=7"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_what_it_prints_makes_a_server_use_it_and_it_ends_when_told(
    simulator: subprocess.Popen[str],
) -> None:
    assert simulator.stdout is not None
    exported: dict[str, str] = {}
    for line in simulator.stdout:
        if not line.startswith("export "):
            break
        name, _, value = shlex.split(line)[1].partition("=")
        exported[name] = value
    key = base64.b64encode(b"k" * 32).decode()
    loaded = config.load({"GATELINE_QR_KEYS": f"1:{key}", "GATELINE_JWT_KEYS": f"k:{key}", **exported})

    assert loaded.wechat is not None
    assert loaded.wechat.verifying_keys().keys() > {exported["GATELINE_WECHAT_PUBLIC_KEY_ID"]}
    url = loaded.wechat.login_url
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url) and url in line, "the phone that pays"
    with urllib.request.urlopen(f"{url}/phone", timeout=PATIENCE_S) as answer:  # noqa: S310 - of our own making
        assert "Nothing to pay" in answer.read().decode()
    simulator.send_signal(signal.SIGINT)
    assert simulator.wait(PATIENCE_S) == 0


def test_a_fault_that_it_does_not_know_is_told_with_those_it_knows(tmp_path: Path) -> None:
    command = [str(GATELINE), "dev", "wechat", "--port", "0", "--misbehave", "nonsense=1"]
    environment = {"PATH": os.environ["PATH"], "GATELINE_DATA_DIR": str(tmp_path / "data")}
    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert run.returncode == 1
    assert "'nonsense=1' is no fault" in run.stderr and "notify_lost" in run.stderr
    assert "Traceback" not in run.stderr
