"""Which keys a configuration has, to be told to people: by ids and fingerprints, never the keys themselves."""

from __future__ import annotations

import hashlib
from typing import Final

from server.config import Config

# Of SHA-256: tells two keys apart, and says nothing about a key of 256 random bits
_FINGERPRINT_HEX: Final = 8


def keys_in_use(config: Config) -> dict[str, list[str]]:
    """What they are for -> the keys accepted; the first one also issues or signs. "1 (3fd0c2a7)": id, fingerprint."""
    keys = {
        "qr": [f"{key_id} ({_fingerprint(key)})" for key_id, key in config.qr_keys],
        "jwt": [f"{key_id} ({_fingerprint(key)})" for key_id, key in config.jwt_keys],
        "webhook": [_fingerprint(key) for key in config.gateway_secrets],
    }
    if config.wechat is not None:
        keys["wechat_merchant"] = [f"{config.wechat.mch_certificate.serial_number:X}"]
        keys["wechat_platform"] = list(config.wechat.verifying_keys())
        keys["wechat_api_v3"] = [_fingerprint(key) for key in config.wechat.api_v3_keys]
    return keys


def _fingerprint(key: bytes) -> str:
    return hashlib.sha256(b"gateline key\0" + key).hexdigest()[:_FINGERPRINT_HEX]
