"""What the harness does to processes is really done: clocks move, disks are full, and a seed makes the same storm."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.chaos import clock, disk
from tests.chaos.clock import Clock
from tests.chaos.parts import ClockedValkey
from tests.chaos.storm import schedule
from tests.road import PATIENCE_S

needs_library = pytest.mark.skipif(clock.library() is None, reason="libfaketime is not installed")
LINKS = ["clients>serve-1", "serve-1>redis", "work-1>postgres"]


@needs_library
def test_a_process_sees_its_clock_jump_and_its_timeouts_do_not(tmp_path: Path) -> None:
    hands = Clock(tmp_path, "test")
    program = (
        "import time\n"
        "while input(): print(time.time(), time.monotonic(), flush=True)\n"
    )  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=hands.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def look() -> tuple[float, float]:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("?\n")
            process.stdin.flush()
            wall, monotonic = process.stdout.readline().split()
            return float(wall) - time.time(), float(monotonic) - time.monotonic()

        def until(behind_s: int) -> float:
            """The monotonic clock's offset, once the other one is where it was set."""
            hands.set(behind_s)
            deadline = time.monotonic() + PATIENCE_S
            while round((seen := look())[0]) != behind_s:
                assert time.monotonic() < deadline, seen
                time.sleep(0.1)
            return seen[1]

        monotonic = [until(0), until(-120), until(45), until(0)]
        process.kill()
    clock.forget(process.pid)

    assert all(abs(seconds) < 20 for seconds in monotonic)


@needs_library
def test_a_valkey_sees_its_clock_jump_while_it_runs(tmp_path: Path) -> None:
    hands = Clock(tmp_path, "valkey")
    with ClockedValkey(tmp_path / "valkey", hands) as valkey, Redis.from_url(valkey.url) as redis:
        hands.set(300)
        deadline = time.monotonic() + PATIENCE_S
        while abs(ahead := redis.time()[0] - time.time()) < 10 and time.monotonic() < deadline:
            time.sleep(0.1)
        pid = valkey.pid
    clock.forget(pid)

    assert 290 < ahead < 310


def test_a_valkey_without_room_for_its_log_ends_rather_than_forget(tmp_path: Path) -> None:
    with ClockedValkey(tmp_path / "valkey", Clock(tmp_path, "valkey")) as valkey:
        with Redis.from_url(valkey.url) as redis:
            disk.limit_growth(valkey.pid, valkey.folder, 5_000)
            kept = 0
            with pytest.raises(RedisConnectionError):
                for kept in range(1_000):
                    redis.set(f"key-{kept}", "x" * 100)
        valkey.stop()
        valkey.start()
        with Redis.from_url(valkey.url) as redis:
            assert 0 < kept <= redis.dbsize() <= kept + 1


def test_a_file_loses_what_was_not_synced_and_nothing_that_was(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb", buffering=0) as file:
        file.write(b"s" * 10_000)
        os.fsync(file.fileno())
        try:
            on_disk = disk.lose_unwritten(log)
        except OSError as reason:
            pytest.skip(f"the kernel does not tell: {reason}")
        file.write(b"u" * 10_000)
        lost = disk.lose_unwritten(log)

    assert on_disk == 0
    assert 10_000 <= lost < 10_000 + mmap.PAGESIZE
    assert set(log.read_bytes()) == set(b"s")


def test_a_seed_makes_the_same_storm_and_a_minute_of_it_kills_twenty_times() -> None:
    first, again, other = (schedule(seed, 60, LINKS, clocks=True) for seed in (1, 1, 2))

    assert first == again != other
    for seed in range(50):
        kinds = Counter(blow.kind for blow in schedule(seed, 60, LINKS, clocks=False))
        assert kinds["kill"] >= 22
        assert kinds["clock"] == 0
    assert {"cut", "amid", "delay", "swallow", "refuse", "stop", "quota", "clock"} <= {
        blow.kind for blow in first
    }
