"""The settings of the server, one line each; the README's table is made from the same lines."""

from __future__ import annotations

import enum

from server.config.reading import (
    Setting,
    flag,
    folder,
    header,
    host,
    integer,
    jwt_keys,
    one_of,
    optional_web_address,
    postgres_url,
    qr_keys,
    redis_url,
    secrets,
)


class Ack(enum.Enum):
    """When a decision may be told to the client. What each level can lose is stated in README."""

    MEMORY = "memory"
    FSYNC = "fsync"
    REPLICA = "replica"


SHARDS_MAX = 16

_STRONG = "base64 of 32 bytes or more (`gateline keys` makes all of them)"

SERVER_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "REDIS_URL",
        "redis_url",
        "",
        redis_url,
        "redis://, rediss:// or unix:// address, or empty",
        "Redis >= 7 or Valkey >= 7.2; empty: the embedded Valkey",
    ),
    Setting(
        "DATABASE_URL",
        "database_url",
        "",
        postgres_url,
        "postgresql:// address, or empty",
        "PostgreSQL >= 15, as the server's role; empty: the embedded one",
    ),
    Setting(
        "GATELINE_OWNER_DATABASE_URL",
        "owner_database_url",
        "",
        postgres_url,
        "postgresql:// address, or empty",
        "the same database as its owner, for `migrate`, `backup` and `restore`; empty: DATABASE_URL is the owner's",
    ),
    Setting("GATELINE_HOST", "host", "127.0.0.1", host, "a host name or address", "where to listen"),
    Setting(
        "GATELINE_PORT", "port", "8080", integer(0, 65535), "0 to 65535; 0: any free one", "where to listen"
    ),
    Setting(
        "GATELINE_PUBLIC_URL",
        "public_url",
        "",
        optional_web_address,
        "http:// or https:// address, or empty",
        "how clients and gateways reach us; empty: http://host:port",
    ),
    Setting(
        "GATELINE_CLIENT_IP_HEADER",
        "client_ip_header",
        "",
        header,
        "the name of a header, or empty",
        "where your proxy writes the client's address (its last entry counts); empty: the connection's own",
    ),
    Setting(
        "GATELINE_DATA_DIR",
        "data_dir",
        ".gateline",
        folder,
        "a folder",
        "home of the embedded servers and of run files",
    ),
    Setting(
        "GATELINE_SHARDS",
        "shards",
        "1",
        integer(1, SHARDS_MAX),
        f"1 to {SHARDS_MAX}",
        "shards of the tickets in Redis; the same in every process",
    ),
    Setting(
        "GATELINE_ACK",
        "ack",
        "fsync",
        Ack,
        "memory, fsync or replica",
        "when a decision is told to the client (see Acknowledgement)",
    ),
    Setting(
        "GATELINE_HOLD_S",
        "hold_s",
        "900",
        integer(1, 86_400),
        "1 to 86400 seconds",
        "how long an unpaid order holds its units",
    ),
    Setting(
        "GATELINE_BUYER_ORDERS_MAX",
        "buyer_orders_max",
        "10",
        integer(0, 100),  # their times are read and written as one string with each order
        "0 to 100 orders; 0: no bound",
        "new orders of one buyer in any GATELINE_HOLD_S, so also the units that one buyer keeps from others",
    ),
    Setting(
        "GATELINE_QR_TTL_S",
        "qr_ttl_s",
        "60",
        integer(1, 60),
        "1 to 60 seconds",
        "how long a QR token may be scanned",
    ),
    Setting(
        "GATELINE_OFFLINE_WINDOW_S",
        "offline_window_s",
        "86400",
        integer(0, 86_400),  # a day: as long as what a scan was told is remembered, less an hour
        "0 to 86400 seconds",
        "how long after it was made a scan may be uploaded by a gate that was offline",
    ),
    Setting(
        "GATELINE_BUYER_TOKEN_S",
        "buyer_token_s",
        "7200",
        integer(60, 604_800),
        "60 to 604800 seconds",
        "life of a buyer's token",
    ),
    Setting(
        "GATELINE_OPERATOR_TOKEN_S",
        "operator_token_s",
        "43200",
        integer(60, 86_400),
        "60 to 86400 seconds",
        "life of an operator's token: a shift",
    ),
    Setting(
        "GATELINE_QR_KEYS",
        "qr_keys",
        None,
        qr_keys,
        "id:key,… with ids 0 to 255, keys base64 of exactly 32 bytes",
        "keys of QR tokens; the first issues, all are accepted",
        rotates=True,
    ),
    Setting(
        "GATELINE_JWT_KEYS",
        "jwt_keys",
        None,
        jwt_keys,
        f"id:key,… with ids of A-Z a-z 0-9 _ -, keys {_STRONG}",
        "keys of the bearer tokens; the first signs, all are accepted",
        rotates=True,
    ),
    Setting(
        "GATELINE_GATEWAY_SECRETS",
        "gateway_secrets",
        "",
        secrets,
        f"secret,… each {_STRONG}, or empty",
        "HMAC secrets shared with the payment gateway; the first signs, all are accepted",
        rotates=True,
    ),
    Setting(
        "GATELINE_GATEWAY_URL",
        "gateway_url",
        "",
        optional_web_address,
        "http:// or https:// address, or empty",
        "the hosted cashier of the payment gateway; empty: no such gateway",
    ),
    Setting(
        "GATELINE_DEMO_LOGIN",
        "demo_login",
        "0",
        flag,
        "0 or 1",
        "1: POST /auth/demo/login hands a buyer's token to anyone; never in production",
    ),
    Setting(
        "GATELINE_GUEST_LOGIN",
        "guest_login",
        "0",
        flag,
        "0 or 1",
        "1: POST /auth/guest/login makes a new buyer of whoever asks; their tickets live on their device, for 400 days",
    ),
    Setting(
        "GATELINE_GUESTS_A_MINUTE_MAX",
        "guests_a_minute_max",
        "120",
        integer(0, 100_000),
        "0 to 100000 guests a minute; 0: no bound",
        "new guests from one address, and as many at once: a venue's wifi, or a mobile network, is one address",
    ),
    Setting(
        "GATELINE_STREAM_ENTRIES_MAX",
        "stream_entries_max",
        "5000000",
        integer(1_000, 100_000_000),
        "1000 to 100000000 entries",
        "unflushed entries of a stream past which scans and orders get 503",
    ),
    Setting(
        "GATELINE_REDIS_MEMORY_MB_MAX",
        "redis_memory_mb_max",
        "0",
        integer(0, 1_000_000),
        "0 to 1000000 MiB; 0: no bound of ours",
        "memory of Redis past which scans and orders get 503",
    ),
    Setting(
        "GATELINE_POSTGRES_POOL",
        "postgres_pool",
        "10",
        integer(2, 100),
        "2 to 100",
        "Postgres connections of one process",
    ),
    Setting(
        "GATELINE_LOG_LEVEL",
        "log_level",
        "info",
        one_of("debug", "info", "warning", "error"),
        "debug, info, warning or error",
        "least level of the JSON log on standard error",
    ),
)
