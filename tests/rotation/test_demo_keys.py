"""The demo's keys are known for what they are, and are refused everywhere but in the demo."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from server import demo
from server.config import load
from server.config.reading import DEMO_MARK
from server.dev.wechat_keys import WeChatKeys
from tests.conftest import eventually, key
from tests.rotation.conftest import KeyFiles, Spawn
from tests.test_config import REQUIRED, faults

NAMES = ("GATELINE_QR_KEYS", "GATELINE_JWT_KEYS", "GATELINE_GATEWAY_SECRETS")
GATEWAY = {"GATELINE_GATEWAY_URL": "https://pay.example"}


def told(name: str) -> str:
    return (
        f"{name} holds a key of the demo, which is for `gateline demo` alone; `gateline keys` makes others."
    )


@pytest.fixture
def kept(tmp_path: Path) -> dict[str, str]:
    """The keys that a demo has made on its first run."""
    return demo._secrets(tmp_path / "demo")["environment"]


def test_they_are_legal_in_the_demo_alone(kept: dict[str, str]) -> None:
    config = load({**kept, **GATEWAY}, demo=True)
    assert all(key.startswith(DEMO_MARK) for _, key in (*config.qr_keys, *config.jwt_keys))
    assert faults({**kept, **GATEWAY}) == [told(name) for name in NAMES]
    assert faults({**kept, **GATEWAY}, serving=False) == [told(name) for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_one_is_enough_also_behind_a_real_one_and_in_a_file(
    name: str, kept: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "ring"
    file.write_text(f"{REQUIRED[name]},{kept[name].replace('1:', '2:')}\n")
    assert faults({**REQUIRED, name: kept[name]}) == [told(name)]
    assert faults({**REQUIRED, name: f"file:{file}"}) == [told(name)]


def test_they_stay_from_run_to_run_and_no_two_demos_have_the_same(tmp_path: Path) -> None:
    first, again, other = (demo._secrets(tmp_path / name) for name in ("a", "a", "b"))
    assert first == again
    assert set(first["environment"].values()).isdisjoint(other["environment"].values())
    assert (tmp_path / "a" / "demo.json").stat().st_mode & 0o777 == 0o600


def test_a_demo_of_before_gets_marked_keys_and_keeps_its_passwords(tmp_path: Path) -> None:
    unmarked = {"GATELINE_QR_KEYS": f"1:{key()}", "GATELINE_JWT_KEYS": f"demo:{key()}"}
    passwords = {"gate-1": "as it was"}
    (tmp_path / "demo.json").write_text(json.dumps({"environment": unmarked, "passwords": passwords}))
    now = demo._secrets(tmp_path)
    assert now["passwords"] == passwords
    assert load({**now["environment"], **GATEWAY}, demo=True).gateway_secrets[0].startswith(DEMO_MARK)
    assert demo._secrets(tmp_path) == now


def test_the_demo_never_signs_with_the_keys_of_an_installation(
    kept: dict[str, str], wechat_keys: WeChatKeys
) -> None:
    config = load(demo._settings({**REQUIRED, "GATELINE_HOLD_S": "600"}, kept, wechat_keys), demo=True)
    assert config.hold_s == 600
    keys = (*dict(config.qr_keys).values(), *dict(config.jwt_keys).values(), *config.gateway_secrets)
    assert all(key.startswith(DEMO_MARK) for key in keys)


async def test_a_server_does_not_start_with_them_nor_take_them_later(
    spawn: Spawn, key_files: KeyFiles, kept: dict[str, str]
) -> None:
    refused = await spawn("serve", **kept)
    assert await refused.ended() == 1
    said = "".join(refused.said())
    assert said.splitlines()[1:] == [told(name) for name in NAMES]

    process = await spawn("work")
    await process.until("working")
    key_files.put("JWT_KEYS", kept["GATELINE_JWT_KEYS"])
    process.send(signal.SIGHUP)

    async def alerted() -> bool:
        return any(line.get("alert") == "KEYS_RELOAD_FAILED" for line in process.log)

    await eventually(alerted)
    # Twice, when the file was there before the first look.
    alert, *_ = [line for line in process.log if line.get("event") == "alert"]
    assert alert["faults"] == [told("GATELINE_JWT_KEYS")]
    assert await process.stop() == 0
    for secret in kept.values():
        assert secret.rpartition(":")[2][8:30] not in said + json.dumps(process.log)
