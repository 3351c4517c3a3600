"""A file of keys that does not answer: what a process does meanwhile, and says of it."""

from __future__ import annotations

import asyncio
import os

import pytest
import structlog

from server import rotation
from server.config import load
from server.keyring import Keyring
from server.rotation import rotating
from tests.conftest import eventually
from tests.rotation.conftest import KeyFiles, leaks


async def test_it_is_given_up_after_a_while_and_the_next_sighup_is_heard(
    key_files: KeyFiles, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "KEYS_READ_S_MAX", 1.0)
    keyring, hung_up = Keyring(load(environment)), asyncio.Event()
    assert keyring.tokens is not None
    file = key_files.folder / "JWT_KEYS"
    with structlog.testing.capture_logs() as log:
        async with rotating(keyring, environment, hung_up):
            await asyncio.sleep(0.3)  # its first look is over
            file.unlink()
            os.mkfifo(file)
            hung_up.set()
            await eventually(lambda: asyncio.sleep(0, bool(log)))
            assert list(keyring.tokens.keys) == ["k1"]
            with file.open("w") as late:  # or the thread that reads would wait for ever
                file.unlink()
                late.write("too late, and no key")
            key_files.write(1, 2)
            hung_up.set()
            await eventually(lambda: asyncio.sleep(0, len(log) == 2))

    assert [line["event"] for line in log] == ["alert", "keys_reloaded"]
    assert (log[0]["alert"], log[0]["faults"]) == ("KEYS_RELOAD_FAILED", ["TimeoutError"])
    assert list(keyring.tokens.keys) == ["k1", "k2"]
    assert leaks(str(log), key_files.secrets) == []
