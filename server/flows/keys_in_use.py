"""Which keys a server accepts, told to the audit trail: by their ids and fingerprints, never the keys themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from server.config import Config
from server.domain.audit import Act, Action
from server.store import audit
from server.store.pool import Database

_SUBJECT: Final = "keys"
_FINGERPRINT_HEX: Final = (
    8  # of SHA-256: tells two keys apart, and says nothing about a key of 256 random bits
)


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
        keys["wechat_api_v3"] = [_fingerprint(config.wechat.api_v3_key)]
    return keys


async def tell_keys(db: Database, config: Config, actor: str) -> bool:
    """Write into the trail which keys this process accepts, unless the last entry says so already. True: written.

    So many processes with the same keys are one entry; a rotation is one, with what was before. Raises
    Refusal(POSTGRES_UNAVAILABLE): to be tried again, since a server starts without Postgres, too.
    """
    keys = keys_in_use(config)
    async with db.transaction() as connection:
        last = await audit.newest(connection, Action.KEYS_CHANGED, _SUBJECT)
        before = {purpose: change["new"] for purpose, change in (last or {}).items()}
        if before == keys:
            return False
        details = _compared(before, keys)
        await audit.record(connection, [Act(Action.KEYS_CHANGED, _SUBJECT, details)], actor=actor)
    return True


def _compared(before: Mapping[str, Sequence[str]], keys: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Every purpose with what is accepted now, and with `old` where that is something else than before."""
    details: dict[str, Any] = {}
    for purpose in {**keys, **before}:
        new, old = list(keys.get(purpose, ())), before.get(purpose)
        details[purpose] = {"new": new} if old in (None, new) else {"old": old, "new": new}
    return details


def _fingerprint(key: bytes) -> str:
    return hashlib.sha256(b"gateline key\0" + key).hexdigest()[:_FINGERPRINT_HEX]
