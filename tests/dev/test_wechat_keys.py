"""The simulator's keys: of WeChat's shapes, kept in a folder of their owner's alone, and handed to Gateline whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from server.dev.wechat_keys import WeChatKeys

URL = "http://127.0.0.1:8090"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which keys were made."""
    home = tmp_path_factory.mktemp("keys") / "wechat"
    WeChatKeys.open(home)
    return home


def test_keys_have_the_shapes_of_wechats(keys: WeChatKeys) -> None:
    assert keys.mchid.isdigit()
    assert keys.miniprogram_appid.startswith("wx")
    assert keys.appid.startswith("wx")
    assert keys.appid != keys.miniprogram_appid
    assert len(keys.miniprogram_appid) == len(keys.appid) == 18
    assert keys.public_key_id.startswith("PUB_KEY_ID_0" + keys.mchid)
    assert len(keys.api_v3_key.encode()) == 32
    assert int(keys.mch_serial, 16) == keys.mch_cert.serial_number
    assert len(keys.mch_serial) == len(keys.platform_serial) == 40
    assert keys.mch_key.key_size == 2048
    assert keys.mch_cert.public_key() == keys.mch_key.public_key()
    assert keys.platform_cert.public_key() == keys.platform_key.public_key()


def test_two_merchants_share_nothing(keys: WeChatKeys) -> None:
    other = WeChatKeys.fresh()

    for name in (
        "mchid",
        "mch_serial",
        "appid",
        "secret",
        "api_v3_key",
        "public_key_id",
        "salt",
        "platform_serial",
    ):
        assert getattr(keys, name) != getattr(other, name)
    assert keys.pay_key.public_key() != other.pay_key.public_key()


def test_a_folder_gives_the_same_keys_again_to_its_owner_alone(folder: Path) -> None:
    first, again = WeChatKeys.open(folder), WeChatKeys.open(folder)

    assert first.environment(URL) == again.environment(URL)
    assert first.platform_key.private_numbers() == again.platform_key.private_numbers()
    assert first.pay_key.private_numbers() == again.pay_key.private_numbers()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert {"apiclient_key.pem", "apiclient_cert.pem"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("left", ["account.json", "apiclient_key.pem", "platform_cert.pem"])
def test_a_folder_that_is_half_written_is_made_anew(tmp_path: Path, folder: Path, left: str) -> None:
    before = WeChatKeys.open(folder)
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes() if path.name != left else path.read_bytes()[:20])

    made = WeChatKeys.open(tmp_path)

    assert made.mch_serial != before.mch_serial
    assert WeChatKeys.open(tmp_path).environment(URL) == made.environment(URL)
    (tmp_path / left).unlink()
    assert WeChatKeys.open(tmp_path).mch_serial != made.mch_serial


def test_a_write_that_is_cut_short_leaves_a_folder_that_is_made_anew(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "platform_key.pem").unlink()
    written: list[str] = []
    replace = Path.replace

    def cut(path: Path, target: Path) -> Path:
        if len(written) == 3:
            raise OSError("the disk is full")
        written.append(path.name)
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(Path, "replace", cut)
        WeChatKeys.open(tmp_path)
    made = WeChatKeys.open(tmp_path)

    assert made.mch_cert.public_key() == made.mch_key.public_key()
    assert made.platform_cert.public_key() == made.platform_key.public_key()
    assert load_pem_public_key((tmp_path / "pub_key.pem").read_bytes()) == made.pay_key.public_key()


def test_the_environment_is_what_gateline_reads(keys: WeChatKeys) -> None:
    environment = keys.environment(URL)

    assert {name.removeprefix("GATELINE_WECHAT_") for name in environment} == {
        "MCHID",
        "MCH_CERT",
        "MCH_KEY",
        "API_V3_KEY",
        "PUBLIC_KEY_ID",
        "PUBLIC_KEY",
        "PLATFORM_CERTS",
        "MINIPROGRAM_APPID",
        "MINIPROGRAM_SECRET",
        "APPID",
        "SECRET",
        "H5",
        "API_URLS",
        "LOGIN_URL",
    }
    assert environment["GATELINE_WECHAT_API_URLS"] == environment["GATELINE_WECHAT_LOGIN_URL"] == URL
    private = load_pem_private_key(environment["GATELINE_WECHAT_MCH_KEY"].encode(), password=None)
    assert private.private_numbers() == keys.mch_key.private_numbers()  # type: ignore[union-attr]
    public = load_pem_public_key(environment["GATELINE_WECHAT_PUBLIC_KEY"].encode())
    assert public == keys.pay_key.public_key()
    certificate = x509.load_pem_x509_certificate(environment["GATELINE_WECHAT_PLATFORM_CERTS"].encode())
    assert certificate == keys.platform_cert
    for name in ("platform_key", "pay_key"):  # WeChat's own never leave it
        numbers = getattr(keys, name).private_numbers()
        assert numbers != private.private_numbers()  # type: ignore[union-attr]


def test_the_environment_of_files_says_the_same_without_a_secret_in_it(folder: Path) -> None:
    keys = WeChatKeys.open(folder)
    values, files = keys.environment(URL), keys.environment_files(folder, URL)

    assert values.keys() == files.keys()
    read = {
        name: Path(value.removeprefix("file:")).read_text() if value.startswith("file:") else value
        for name, value in files.items()
    }
    assert read == values
    for secret in (keys.api_v3_key, keys.secret, keys.miniprogram_secret, "PRIVATE KEY"):
        assert secret not in "".join(files.values())
    assert all(
        Path(value.removeprefix("file:")).is_absolute() for value in files.values() if "file:" in value
    )


def test_keys_do_not_tell_themselves_to_a_log(keys: WeChatKeys) -> None:
    assert keys.api_v3_key not in repr(keys)
    assert keys.secret not in repr(keys)
