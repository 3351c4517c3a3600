"""`gateline keys`: what an operator rotates keys with."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from server.config import load
from server.config.rings import RingError, Step, moved
from tests.commands.test_commands import environment, gateline, secrets_of
from tests.test_config import REQUIRED

GATEWAY = {"GATELINE_GATEWAY_URL": "https://pay.example"}
FRESH = b"f" * 32


def rotated(*steps: Step, **settings: str) -> dict[str, str]:
    """The three settings after these steps."""
    given = {**REQUIRED, **settings}
    for step in steps:
        given |= moved(load(given), step, ("qr", "jwt", "webhook"), lambda: FRESH)
    return {
        name: given[name] for name in ("GATELINE_QR_KEYS", "GATELINE_JWT_KEYS", "GATELINE_GATEWAY_SECRETS")
    }


def test_three_steps_bring_a_fresh_key_in_behind_then_to_the_front_then_alone() -> None:
    old, new = (base64.b64encode(key).decode() for key in (b"s" * 32, FRESH))
    expected = {
        (Step.ADD,): (f"1:{old},2:{new}", f"k1:{old},k2:{new}", f"{old},{new}"),
        (Step.ADD, Step.TURN): (f"2:{new},1:{old}", f"k2:{new},k1:{old}", f"{new},{old}"),
        (Step.ADD, Step.TURN, Step.DROP): (f"2:{new}", f"k2:{new}", new),
    }
    for steps, rings in expected.items():
        assert tuple(rotated(*steps).values()) == rings


@pytest.mark.parametrize(
    ("present", "following"),
    [("k1", "k2"), ("k9", "k10"), ("demo", "demo2"), ("2026-11", "2026-12"), ("7", "8"), ("a_09", "a_10")],
)
def test_the_id_of_a_fresh_key_is_the_next_one(present: str, following: str) -> None:
    secret = base64.b64encode(b"s" * 32).decode()
    ring = rotated(Step.ADD, GATELINE_JWT_KEYS=f"{present}:{secret}")["GATELINE_JWT_KEYS"]
    assert ring.rpartition(",")[2].partition(":")[0] == following


def test_ids_of_qr_keys_come_round_and_are_never_given_twice() -> None:
    secret, other = (base64.b64encode(key).decode() for key in (b"s" * 32, b"o" * 32))
    ring = rotated(Step.ADD, GATELINE_QR_KEYS=f"0:{other},255:{secret}")["GATELINE_QR_KEYS"]
    assert ring.rpartition(",")[2].startswith("1:")
    full = ",".join(f"{n}:{base64.b64encode(bytes([n]) * 32).decode()}" for n in range(256))
    with pytest.raises(RingError, match="256 ids"):
        rotated(Step.ADD, GATELINE_QR_KEYS=full)


@pytest.mark.parametrize("step", [Step.TURN, Step.DROP])
def test_a_key_that_is_alone_stays(step: Step) -> None:
    with pytest.raises(RingError, match="one key alone"):
        rotated(step)


def test_the_command_prints_rings_and_writes_them_into_their_files_for_the_same_eyes(tmp_path: Path) -> None:
    env = environment(tmp_path)
    files = {}
    for name, value in secrets_of(env).items():
        files[name] = tmp_path / name
        files[name].write_text(value)
        files[name].chmod(0o640)
    env |= GATEWAY | {name: f"file:{file}" for name, file in files.items()}
    before = load({name: value for name, value in env.items() if name.startswith("GATELINE_")})

    printed = gateline("keys", "--rotate", "add", "--only", "jwt", env=env)
    wrote = gateline("keys", "--rotate", "add", "--write", env=env)
    turned = gateline("keys", "--rotate", "turn", "--write", "--only", "qr", env=env)
    after = load({name: value for name, value in env.items() if name.startswith("GATELINE_")})

    assert printed.stdout.startswith("GATELINE_JWT_KEYS=k1:") and printed.stdout.count("\n") == 1
    assert (wrote.returncode, turned.returncode) == (0, 0), wrote.stderr + turned.stderr
    assert [key_id for key_id, _ in after.qr_keys] == [2, 1]
    assert [key_id for key_id, _ in after.jwt_keys] == ["k1", "k2"]
    assert after.gateway_secrets[0] == before.gateway_secrets[0] and len(after.gateway_secrets) == 2
    for file in files.values():
        assert file.stat().st_mode & 0o777 == 0o640
        assert not [secret for secret in file.read_text().split(",") if secret.strip()[4:] in wrote.stdout]
    assert not list(tmp_path.glob("*.half"))


def test_what_stands_in_no_file_is_not_written_and_nothing_else_either(tmp_path: Path) -> None:
    env = environment(tmp_path, **REQUIRED)
    run = gateline("keys", "--rotate", "add", "--write", env=env)
    assert run.returncode == 1
    assert "GATELINE_QR_KEYS stands in no file" in run.stderr
    assert REQUIRED["GATELINE_GATEWAY_SECRETS"] not in run.stdout + run.stderr
