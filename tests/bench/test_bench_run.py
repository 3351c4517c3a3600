"""One short run of everything, end to end: real servers, real redemptions, a clean audit. No timing is asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.suite import LANES
from tests.structure.sources import ROOT

RUN_S_MAX = 280.0  # ten seconds on a quiet machine

pytestmark = pytest.mark.timeout(300)


def bench(*words: str, out: Path) -> tuple[int, list[str], str]:
    """`python -m bench WORDS --out OUT`: exit status, lines of its output, what it said meanwhile."""
    command = [sys.executable, "-m", "bench", *words, "--out", str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=RUN_S_MAX)
    return ended.returncode, ended.stdout.splitlines(), ended.stderr


def test_a_steady_run_measures_every_lane_and_ends_with_a_clean_audit(tmp_path: Path) -> None:
    status, printed, said = bench(
        *("steady", "--lanes", "all", "--latency", "--seconds", "0.2", "--rounds", "2", "--tickets", "4000"),
        out=tmp_path,
    )

    assert status == 0, said
    file = Path(printed[-1])
    assert file.parent == tmp_path
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    served = [name for name in LANES if name not in found["not_served"]]
    assert found["lanes"].keys() == set(served)
    assert found["scenario"] == "steady"
    for name, lane in found["lanes"].items():
        assert len(lane["rates"]) == 2 and min(lane["rates"]) > 0, name
        assert lane["latency"].keys() == {"full", "half"}, name
        assert all(0 < each["p50"] <= each["p99"] <= each["p999"] for each in lane["latency"].values()), name
        assert lane["cpu_us"].keys() >= {"load"}, name
    wanted = {f"{name}/noop" for name in served if name != "noop"}
    assert found["ratios"].keys() == wanted | {"http_scan/naive", "http_scan/plain_postgres"}
    assert all(ratio > 0 and math.isfinite(ratio) for ratio in found["ratios"].values())
    # The no-op answers with as many bytes as the real server does.
    assert found["lanes"]["noop"]["answer_bytes"] == found["lanes"]["http_scan"]["answer_bytes"]
    audit = found["audit"]
    assert (audit["ok"], audit["breaches"], audit["undecided"]) == (True, 0, 0)
    events = next(each for each in audit["findings"] if each["invariant"] == "4-told")
    assert events["looked_at"] > 100
    assert found["lag"]["samples"]
    stages = found["figures"]["flusher"]
    assert {each["flusher, µs passed per entry"] for each in stages} == {
        "read",
        "parse",
        "write",
        "commit",
        "trim",
    }
    assert all(each["{s00}:redemptions"] > 0 and each["{stock}:orders"] > 0 for each in stages)
    assert found["machine"]["versions"].keys() >= {
        "python",
        "aiohttp",
        "uvloop",
        "redis",
        "valkey",
        "postgres",
    }
    assert {each.name.rpartition("-")[2] for each in tmp_path.glob("*.svg")} == {
        "rates.svg",
        "latency.svg",
        "lag.svg",
    }
    assert any(line.startswith("gateline check: clean") for line in printed)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("storm", "--seconds", "0.3", "--rounds", "1", "--tickets", "400"), "storm_http"),
        (("flash-sale", "--units", "60"), "told SOLD_OUT"),
        (("pay-storm", "--orders", "30"), "orders settled a second"),
        (("day", "--seconds", "3", "--scans", "1200"), "again"),
        (("workers", "--seconds", "0.3", "--rounds", "1", "--tickets", "4000"), "http_scan 2w"),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
def test_a_scenario_holds_its_own_rules_and_ends_with_a_clean_audit(
    tmp_path: Path, words: tuple[str, ...], shown: str
) -> None:
    status, printed, said = bench(*words, out=tmp_path)

    assert status == 0, said
    assert any(line.startswith(shown) for line in printed)
    assert json.loads(Path(printed[-1]).read_text(encoding="utf-8"))["audit"]["ok"]
