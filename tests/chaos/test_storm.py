"""A short storm is a part of every test run: twenty kills and more in a minute, and the books agree."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(600)
async def test_a_storm_of_a_minute_loses_nothing_doubles_nothing_and_breaches_nothing() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos", "--seconds", "60", "--seed", "6"),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(580):
            printed, _ = await process.communicate()
    except TimeoutError:
        process.send_signal(signal.SIGTERM)
        raise
    told = json.loads(printed.splitlines()[-1])

    assert process.returncode == 0, printed.decode()
    assert told["kills"] >= 20
    assert told["acknowledged"] > 100  # some thousands on a machine of its own
    assert told["unknown"] == 0
    assert (told["lost"], told["doubled"], told["breaches"]) == (0, 0, 0)
