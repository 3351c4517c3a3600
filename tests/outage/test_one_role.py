"""An installation with one role for everything works, and is told what it gives up."""

from __future__ import annotations

import signal

from tests.outage.conftest import Spawn


async def test_a_process_says_once_that_its_role_could_rewrite_the_record(
    spawn: Spawn, owner_url: str
) -> None:
    alone = await spawn("serve", "--workers", "2", "--with-jobs", DATABASE_URL=owner_url)
    with_two = await spawn("work")
    told = await alone.until("record_not_protected")
    await alone.until("serving")
    await with_two.until("working")
    for process in (alone, with_two):
        process.send(signal.SIGTERM)
        assert await process.ended() == 0

    assert told["level"] == "warning" and "Two roles" in told["reason"]
    assert sum(line["event"] == "record_not_protected" for line in alone.log) == 1
    assert "record_not_protected" not in {line["event"] for line in with_two.log}
