"""The configuration read again while a process runs: which keys are taken, and what changes nothing."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

import pytest

from server.config import Config, ConfigError, load
from server.config.fingerprints import keys_in_use
from server.config.rereading import Rereader
from server.dev.wechat_keys import WeChatKeys
from tests.conftest import key
from tests.test_config import REQUIRED

ROTATING = ("GATELINE_QR_KEYS", "GATELINE_JWT_KEYS", "GATELINE_GATEWAY_SECRETS")


class Installation:
    """Settings in files, as a platform mounts secrets, and a process that has read them."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.environment = {name: f"file:{folder / name}" for name in settings}
        for name, text in settings.items():
            self.write(name, text)
        self.config = load(self.environment)
        self.rereader = Rereader(self.environment)

    def write(self, name: str, text: str) -> None:
        """Another content of a setting's file."""
        (self.folder / name).write_text(text + "\n")

    def faults(self) -> list[str]:
        """What is wrong with the settings now."""
        with pytest.raises(ConfigError) as refused:
            self.rereader.again(self.config)
        return str(refused.value).splitlines()


@pytest.fixture
def old() -> dict[str, str]:
    return dict(zip(ROTATING, (f"1:{key()}", f"k1:{key()}", key()), strict=True))


@pytest.fixture
def installed(tmp_path: Path, old: dict[str, str]) -> Installation:
    return Installation(tmp_path, **{**REQUIRED, **old, "GATELINE_PORT": "8080", "GATELINE_HOLD_S": "900"})


def test_keys_of_files_are_taken_and_the_first_is_the_one_that_signs(
    installed: Installation, old: dict[str, str]
) -> None:
    installed.write("GATELINE_QR_KEYS", f"2:{key()},{old['GATELINE_QR_KEYS']}")
    installed.write("GATELINE_JWT_KEYS", f"{old['GATELINE_JWT_KEYS']},k2:{key()}")

    found = installed.rereader.again(installed.config)

    assert found.rotated == ("GATELINE_QR_KEYS", "GATELINE_JWT_KEYS")
    assert found.waiting == ()
    assert [key_id for key_id, _ in found.config.qr_keys] == [2, 1]
    assert [key_id for key_id, _ in found.config.jwt_keys] == ["k1", "k2"]
    assert found.config.gateway_secrets == installed.config.gateway_secrets


def test_nothing_new_is_nothing_rotated(installed: Installation) -> None:
    found = installed.rereader.again(installed.config)
    assert (found.rotated, found.waiting, found.config) == ((), (), installed.config)


def test_all_other_settings_wait_for_a_restart_and_are_named_each_time(installed: Installation) -> None:
    installed.write("GATELINE_PORT", "8081")
    for _ in range(2):
        found = installed.rereader.again(installed.config)
        assert (found.rotated, found.waiting) == ((), ("GATELINE_PORT",))
        assert found.config == installed.config


BROKEN = {
    "half a ring": ("GATELINE_QR_KEYS", f"1:{'A' * 43}=,2:", "is not legal"),
    "nothing": ("GATELINE_JWT_KEYS", "", "is not legal"),
    "a short secret": ("GATELINE_GATEWAY_SECRETS", base64.b64encode(b"short").decode(), "is not legal"),
    "no secret, though there is a gateway": ("GATELINE_GATEWAY_SECRETS", "", "belong together"),
    "another setting": ("GATELINE_HOLD_S", "nought", "GATELINE_HOLD_S is not legal"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_legal_is_refused_as_a_whole_and_nothing_of_it_is_said(
    installed: Installation, case: str
) -> None:
    name, text, why = BROKEN[case]
    new = key()
    installed.write("GATELINE_JWT_KEYS", f"k9:{new}")
    installed.write(name, text)

    (told,) = installed.faults()

    assert why in told and name in told
    assert new not in told and (not text or text not in told)


def test_a_file_that_is_gone_or_no_text_is_a_fault(installed: Installation) -> None:
    file = installed.folder / "GATELINE_QR_KEYS"
    file.write_bytes(b"\xff\xfe")
    assert installed.faults()[0].startswith("GATELINE_QR_KEYS is not legal")
    file.unlink()
    assert installed.faults() == [
        "GATELINE_QR_KEYS names a file that cannot be read: No such file or directory."
    ]


@pytest.mark.parametrize(("name", "key_id"), [("GATELINE_QR_KEYS", "1"), ("GATELINE_JWT_KEYS", "k1")])
def test_an_id_that_is_in_use_is_not_given_to_another_key(
    installed: Installation, name: str, key_id: str
) -> None:
    installed.write(name, f"{key_id}:{key()}")
    assert installed.faults() == [
        f"{name} gives an id that is in use to another key: a new key needs an id of its own."
    ]


def test_a_merchants_keys_are_taken_and_their_other_settings_wait(
    tmp_path: Path, wechat_keys: WeChatKeys
) -> None:
    merchant = wechat_keys.environment("http://127.0.0.1:9")
    installed = Installation(tmp_path, **REQUIRED, **merchant)
    other = WeChatKeys.fresh()
    fresh = other.environment("http://127.0.0.1:9")
    for name in ("MCH_CERT", "MCH_KEY", "PUBLIC_KEY", "PUBLIC_KEY_ID", "PLATFORM_CERTS", "SECRET"):
        installed.write(f"GATELINE_WECHAT_{name}", fresh[f"GATELINE_WECHAT_{name}"])
    both = f"{other.api_v3_key},{wechat_keys.api_v3_key}"
    installed.write("GATELINE_WECHAT_API_V3_KEY", both)

    found = installed.rereader.again(installed.config)

    rotated = {name.removeprefix("GATELINE_WECHAT_") for name in found.rotated}
    assert rotated == {"MCH_CERT", "API_V3_KEY", "PUBLIC_KEY_ID", "PUBLIC_KEY", "PLATFORM_CERTS"}
    assert found.waiting == ("GATELINE_WECHAT_SECRET",)
    account, before = found.config.wechat, installed.config.wechat
    assert account is not None and before is not None
    assert account.mch_key.public_key() == account.mch_certificate.public_key() == other.mch_key.public_key()
    assert account.api_v3_keys == (other.api_v3_key.encode(), wechat_keys.api_v3_key.encode())
    assert set(account.verifying_keys()) == {other.public_key_id, other.platform_serial}
    assert (account.mchid, account.secret) == (before.mchid, before.secret)


def test_the_environment_of_a_process_cannot_change_under_it() -> None:
    environment = dict(REQUIRED)
    config, rereader = load(environment), Rereader(environment)
    assert rereader.again(config).rotated == ()


def test_a_key_is_told_by_its_id_and_a_fingerprint_that_says_nothing_about_it() -> None:
    secret = secrets.token_bytes(32)
    config = load({**REQUIRED, "GATELINE_JWT_KEYS": f"k1:{base64.b64encode(secret).decode()}"})

    told = keys_in_use(config)

    assert told["jwt"][0].startswith("k1 (") and len(told["jwt"][0]) == len("k1 (12345678)")
    assert secret.hex()[:8] not in str(told) and base64.b64encode(secret).decode()[:8] not in str(told)
    other = load({**REQUIRED, "GATELINE_JWT_KEYS": f"k1:{key()}"})
    assert keys_in_use(other)["jwt"] != told["jwt"]


def test_what_was_read_shows_no_value_when_it_is_printed(installed: Installation) -> None:
    found = installed.rereader.again(installed.config)
    for each in (found, installed.rereader, found.config, Config):
        assert not [value for value in _secrets(installed) if value in repr(each)]


def _secrets(installed: Installation) -> list[str]:
    texts = [(installed.folder / name).read_text().strip() for name in ROTATING]
    raw = [each.rpartition(":")[2] for each in texts]
    return raw + [str(base64.b64decode(each))[2:20] for each in raw] + [os.fsdecode(installed.folder)]
