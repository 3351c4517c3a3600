"""The configuration: what is taken, what is refused, and that a refusal never shows what was given."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from server.config import SETTINGS, Ack, Config, ConfigError, load
from server.config.settings import SERVER_SETTINGS

SECRET = base64.b64encode(b"s" * 32).decode()
OTHER = base64.b64encode(b"o" * 32).decode()
KEYS = {"GATELINE_QR_KEYS": f"1:{SECRET}", "GATELINE_JWT_KEYS": f"k1:{SECRET}"}
REQUIRED = {**KEYS, "GATELINE_GATEWAY_SECRETS": SECRET, "GATELINE_GATEWAY_URL": "https://pay.example"}
BY_NAME = {setting.env: setting for setting in SERVER_SETTINGS}


def faults(environment: dict[str, str], **options: bool) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(environment, **options)
    return str(refused.value).splitlines()


def test_with_nothing_but_the_secrets_everything_has_its_default() -> None:
    assert load(REQUIRED) == Config(
        redis_url=None,
        database_url=None,
        owner_database_url=None,
        host="127.0.0.1",
        port=8080,
        public_url="http://127.0.0.1:8080",
        client_ip_header="",
        data_dir=Path(".gateline"),
        shards=1,
        ack=Ack.FSYNC,
        hold_s=900,
        buyer_orders_max=10,
        qr_ttl_s=60,
        offline_window_s=86_400,
        buyer_token_s=7200,
        operator_token_s=43200,
        qr_keys=((1, b"s" * 32),),
        jwt_keys=(("k1", b"s" * 32),),
        gateway_secrets=(b"s" * 32,),
        gateway_url="https://pay.example",
        demo_login=False,
        guest_login=False,
        guests_a_minute_max=120,
        stream_entries_max=5_000_000,
        redis_memory_mb_max=0,
        postgres_pool=10,
        log_level="info",
        wechat=None,
    )


LEGAL: dict[str, dict[str, Any]] = {
    "REDIS_URL": {
        "": None,
        "redis://h": "redis://h",
        "redis://:p%40ss@h:1/2": "redis://:p%40ss@h:1/2",
        "rediss://h:6380": "rediss://h:6380",
        "unix:///run/valkey.sock?db=1": "unix:///run/valkey.sock?db=1",
    },
    "DATABASE_URL": {
        "": None,
        "postgresql://u:p@h:5432/d": "postgresql://u:p@h:5432/d",
        "postgres://h/d": "postgres://h/d",
        "postgresql://u@h/d?sslmode=require": "postgresql://u@h/d?sslmode=require",
        "postgresql:///d?host=/run/postgresql": "postgresql:///d?host=/run/postgresql",
    },
    "GATELINE_OWNER_DATABASE_URL": {"": None},
    "GATELINE_HOST": {"0.0.0.0": "0.0.0.0", "::": "::", "gate-1.example": "gate-1.example"},  # noqa: S104
    "GATELINE_PORT": {"0": 0, "1": 1, "65535": 65_535},
    "GATELINE_PUBLIC_URL": {
        "https://t.example": "https://t.example",
        "https://t.example/a/": "https://t.example/a",
    },
    "GATELINE_CLIENT_IP_HEADER": {"": "", "X-Forwarded-For": "X-Forwarded-For"},
    "GATELINE_DATA_DIR": {"/var/lib/gateline": Path("/var/lib/gateline"), "x": Path("x")},
    "GATELINE_SHARDS": {"1": 1, "16": 16},
    "GATELINE_ACK": {"memory": Ack.MEMORY, "fsync": Ack.FSYNC, "replica": Ack.REPLICA},
    "GATELINE_HOLD_S": {"1": 1, "86400": 86_400},
    "GATELINE_BUYER_ORDERS_MAX": {"0": 0, "100": 100},
    "GATELINE_QR_TTL_S": {"1": 1, "60": 60},
    "GATELINE_OFFLINE_WINDOW_S": {"0": 0, "86400": 86_400},
    "GATELINE_BUYER_TOKEN_S": {"60": 60, "604800": 604_800},
    "GATELINE_OPERATOR_TOKEN_S": {"60": 60, "86400": 86_400},
    "GATELINE_QR_KEYS": {
        f"255:{SECRET}": ((255, b"s" * 32),),
        f"2:{OTHER},1:{SECRET}": ((2, b"o" * 32), (1, b"s" * 32)),
    },
    "GATELINE_JWT_KEYS": {
        f"2026-11_b:{SECRET}": (("2026-11_b", b"s" * 32),),
        f"new:{OTHER},old:{SECRET}": (("new", b"o" * 32), ("old", b"s" * 32)),
        f"long:{base64.b64encode(b'l' * 64).decode()}": (("long", b"l" * 64),),
    },
    "GATELINE_GATEWAY_SECRETS": {f"{OTHER},{SECRET}": (b"o" * 32, b"s" * 32)},
    "GATELINE_GATEWAY_URL": {
        "http://127.0.0.1:9": "http://127.0.0.1:9",
        "https://p.example/": "https://p.example",
    },
    "GATELINE_DEMO_LOGIN": {"0": False, "1": True},
    "GATELINE_GUEST_LOGIN": {"0": False, "1": True},
    "GATELINE_GUESTS_A_MINUTE_MAX": {"0": 0, "100000": 100_000},
    "GATELINE_STREAM_ENTRIES_MAX": {"1000": 1_000, "100000000": 100_000_000},
    "GATELINE_REDIS_MEMORY_MB_MAX": {"0": 0, "1000000": 1_000_000},
    "GATELINE_POSTGRES_POOL": {"2": 2, "100": 100},
    "GATELINE_LOG_LEVEL": {"debug": "debug", "info": "info", "warning": "warning", "error": "error"},
}
NO_NUMBER = (
    "",
    "x",
    "1.0",
    "1e3",
    " 1",
    "1 ",
    "+1",
    "1_000",
    "0x10",
    "٣",
    "１",
    "-1",
    "9" * 30,
    "9" * 5_000,
    "null",
)
NO_URL = ("h", "//h", "ftp://h", "http:", "http://", "https:///path", "http://h:port", "http://h:99999", "http://[::1",
          "http://a b", "http://h/\n", "javascript:alert(1)")  # fmt: skip
NO_SECRET = ("", "short", "c2hvcnQ=", SECRET[:-1], SECRET + "=", "!" + SECRET, SECRET[:20] + " " + SECRET[20:],
             base64.b64encode(b"s" * 31).decode(), base64.urlsafe_b64encode(b"\xff" * 32).decode(), "中" * 44,
             SECRET + "\n")  # fmt: skip
ILLEGAL: dict[str, tuple[str, ...]] = {
    "REDIS_URL": (
        "h:6379",
        "http://h",
        "redis://",
        "redis://h:port",
        "redis://h:99999",
        "unix://",
        "unix:",
        "rediss:///0",
    ),
    "GATELINE_OWNER_DATABASE_URL": ("h/d", "mysql://h/d"),
    "DATABASE_URL": ("h/d", "mysql://h/d", "postgresql://h:port/d", "postgresql://h:99999/d", "postgresql:"),
    "GATELINE_HOST": ("", "a b", "a/b", "h:80/", "x" * 254, "é", "h\n", "http://h"),
    "GATELINE_PORT": (*NO_NUMBER, "65536"),
    "GATELINE_PUBLIC_URL": (*NO_URL, "https://t.example?a=1", "https://t.example#a"),
    "GATELINE_CLIENT_IP_HEADER": ("X Real IP", "X-Real-IP:", "x" * 65, "é", "X\n"),
    "GATELINE_DATA_DIR": ("", "a\x00b"),
    "GATELINE_SHARDS": (*NO_NUMBER, "0", "17"),
    "GATELINE_ACK": ("", "Fsync", "always", "memory "),
    "GATELINE_HOLD_S": (*NO_NUMBER, "0", "86401"),
    "GATELINE_BUYER_ORDERS_MAX": (*NO_NUMBER, "-1", "101"),
    "GATELINE_GUESTS_A_MINUTE_MAX": (*NO_NUMBER, "-1", "100001"),
    "GATELINE_QR_TTL_S": (*NO_NUMBER, "0", "61"),
    "GATELINE_OFFLINE_WINDOW_S": (*NO_NUMBER, "86401"),
    "GATELINE_BUYER_TOKEN_S": (*NO_NUMBER, "59", "604801"),
    "GATELINE_OPERATOR_TOKEN_S": (*NO_NUMBER, "59", "86401"),
    "GATELINE_QR_KEYS": (
        *(f"1:{secret}" for secret in NO_SECRET),
        SECRET,
        f":{SECRET}",
        f"k1:{SECRET}",
        f"-1:{SECRET}",
        f"256:{SECRET}",
        f"1_0:{SECRET}",
        f"1:{SECRET},",
        f"1:{SECRET},1:{OTHER}",
        f"1:{SECRET},01:{OTHER}",  # two spellings of one id
        f"1:{SECRET},2:{SECRET}",  # one key under two ids
        f"1:{base64.b64encode(b's' * 33).decode()}",
        f"1={SECRET}",
        f"1:{SECRET};2:{OTHER}",
    ),
    "GATELINE_JWT_KEYS": (
        *(f"k1:{secret}" for secret in NO_SECRET),
        SECRET,
        f":{SECRET}",
        f"k 1:{SECRET}",
        f"ké:{SECRET}",
        f"{'k' * 33}:{SECRET}",
        f"k1:{SECRET},",
        f"k1:{SECRET},k1:{OTHER}",
        f"k1:{SECRET},k2:{SECRET}",  # one key under two ids
        f"k1:{SECRET}, k2:{OTHER}",
    ),
    "GATELINE_GATEWAY_SECRETS": (*NO_SECRET[1:], f"{SECRET},", f"{SECRET},short", f"{SECRET} {OTHER}"),
    "GATELINE_GATEWAY_URL": (*NO_URL, "https://p.example?a=1", "https://p.example#a"),
    "GATELINE_DEMO_LOGIN": ("", "yes", "2", "True", " 1", "on"),
    "GATELINE_GUEST_LOGIN": ("", "yes", "2", "True", " 1", "on"),
    "GATELINE_STREAM_ENTRIES_MAX": (*NO_NUMBER, "999", "100000001"),
    "GATELINE_REDIS_MEMORY_MB_MAX": (*NO_NUMBER, "1000001"),
    "GATELINE_POSTGRES_POOL": (*NO_NUMBER, "1", "101"),
    "GATELINE_LOG_LEVEL": ("", "INFO", "trace", "critical"),
}


def test_every_setting_is_tried_here() -> None:
    assert set(LEGAL) == set(ILLEGAL) == set(BY_NAME)


@pytest.mark.parametrize("name", BY_NAME)
def test_what_is_legal_is_taken(name: str) -> None:
    for text, expected in LEGAL[name].items():
        assert getattr(load({**REQUIRED, name: text}), BY_NAME[name].field) == expected, text


@pytest.mark.parametrize("name", BY_NAME)
def test_what_is_illegal_is_refused_with_its_name_and_range_and_never_with_its_value(name: str) -> None:
    for text in ILLEGAL[name]:
        told = faults({**REQUIRED, name: text})
        assert told == [f"{name} is not legal. Legal: {BY_NAME[name].legal}."], text


@pytest.mark.parametrize("name", KEYS)
def test_a_missing_secret_is_an_error_that_says_what_it_is_for(name: str) -> None:
    (told,) = faults({key: value for key, value in REQUIRED.items() if key != name})
    assert told == f"{name} is missing: {BY_NAME[name].meaning}. Legal: {BY_NAME[name].legal}."


def test_a_command_that_serves_no_one_needs_no_secret_but_refuses_a_broken_one() -> None:
    config = load({}, serving=False)
    assert (config.qr_keys, config.jwt_keys, config.gateway_secrets, config.gateway_url) == ((), (), (), "")
    (told,) = faults({"GATELINE_JWT_KEYS": "k1:short"}, serving=False)
    assert told.startswith("GATELINE_JWT_KEYS is not legal.")


def test_a_value_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    assert load({**REQUIRED, "GATELINE_GATEWAY_SECRETS": f"file:{file}"}) == load(REQUIRED)

    (told,) = faults({**REQUIRED, "GATELINE_GATEWAY_SECRETS": f"file:{tmp_path / 's3cr3t'}"})
    assert told == "GATELINE_GATEWAY_SECRETS names a file that cannot be read: No such file or directory."
    file.write_text("short")
    (told,) = faults({**REQUIRED, "GATELINE_GATEWAY_SECRETS": f"file:{file}"})
    assert told.startswith("GATELINE_GATEWAY_SECRETS is not legal.")
    file.write_bytes(b"\xff")
    (told,) = faults({**REQUIRED, "GATELINE_GATEWAY_SECRETS": f"file:{file}"})
    assert told.startswith("GATELINE_GATEWAY_SECRETS is not legal.")


def test_who_serves_can_be_paid_in_some_way() -> None:
    (told,) = faults(KEYS)
    assert told.startswith("There is no way to be paid")
    assert load(KEYS, serving=False).gateway_url == ""
    for name in ("GATELINE_GATEWAY_SECRETS", "GATELINE_GATEWAY_URL"):
        (told,) = faults({**KEYS, name: REQUIRED[name]})
        assert told == "GATELINE_GATEWAY_URL and GATELINE_GATEWAY_SECRETS belong together."


def test_a_name_of_ours_that_is_unknown_is_an_error_since_it_is_most_likely_misspelt() -> None:
    told = faults(
        {**REQUIRED, "GATELINE_PROT": "8080", "GATELINE_": "", "gateline_port": "1", "PATH": "/bin"}
    )
    assert told == [
        "GATELINE_ is not a setting of Gateline; see the table in README.",
        "GATELINE_PROT is not a setting of Gateline; see the table in README.",
    ]


def test_all_faults_are_told_at_once_one_a_line() -> None:
    told = faults({"GATELINE_PORT": "x", "GATELINE_ACK": "x", "REDIS_URL": "x", "GATELINE_X": "x"})
    assert [line.split()[0] for line in told] == [
        "REDIS_URL",
        "GATELINE_PORT",
        "GATELINE_ACK",
        "GATELINE_QR_KEYS",
        "GATELINE_JWT_KEYS",
        "GATELINE_X",
    ]


def test_no_fault_shows_a_value() -> None:
    marked = {setting.env: f"s3cr3t {number}é" for number, setting in enumerate(SETTINGS)}
    for setting in SETTINGS:
        if setting.field == "data_dir":
            marked[setting.env] = "s3cr3t\x00"
    told = "\n".join(faults(marked))
    assert "s3cr3t" not in told
    assert told.count("\n") == len(SETTINGS) - 1


def test_every_setting_says_what_it_means_and_what_is_legal() -> None:
    for setting in SETTINGS:
        assert setting.meaning and setting.legal, setting.env
    assert {setting.field for setting in SERVER_SETTINGS} | {"wechat"} == set(Config.__struct_fields__)


@pytest.mark.parametrize(
    ("host", "public_url"),
    [("::1", "http://[::1]:81"), ("10.0.0.1", "http://10.0.0.1:81"), ("h", "http://h:81")],
)
def test_without_a_public_address_clients_reach_us_where_we_listen(host: str, public_url: str) -> None:
    assert load({**REQUIRED, "GATELINE_HOST": host, "GATELINE_PORT": "81"}).public_url == public_url


def test_the_configuration_cannot_be_changed_once_read() -> None:
    with pytest.raises(AttributeError):
        load(REQUIRED).port = 1  # type: ignore[misc]


def test_the_owner_of_the_database_is_named_beside_the_server_or_not_at_all() -> None:
    both = {
        "DATABASE_URL": "postgresql://server@h/d",
        "GATELINE_OWNER_DATABASE_URL": "postgresql://owner@h/d",
    }

    assert load(REQUIRED | both).owner_database_url == "postgresql://owner@h/d"
    del both["DATABASE_URL"]
    assert faults(REQUIRED | both) == faults(REQUIRED | both, serving=False)
    assert "needs DATABASE_URL" in faults(REQUIRED | both)[0]
