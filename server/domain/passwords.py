"""Passwords of the staff: Argon2id (RFC 9106), written as PHC strings.

Parameters: OWASP's Password Storage Cheat Sheet, 19 MiB and two passes: a gate's whole shift logs in within a minute,
on two cores that also scan.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from server.limits import PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN

_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32
_PASSES, _LANES, _MEMORY_KIB = 2, 1, 19 * 1024
# Checked when there is no such operator, so that the time of an answer does not tell who exists.
DECOY: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1$Z2F0ZWxpbmVkZWNveXNhbA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)


def acceptable(password: str) -> bool:
    """Long enough to be worth hashing (10 characters), short enough to be one (256)."""
    return PASSWORD_CHARS_MIN <= len(password) <= PASSWORD_CHARS_MAX


def hash_password(password: str) -> str:
    """The PHC string of a password. Takes about 50 ms and 19 MiB: never on the event loop."""
    kdf = Argon2id(
        salt=os.urandom(_SALT_BYTES),
        length=_KEY_BYTES,
        iterations=_PASSES,
        lanes=_LANES,
        memory_cost=_MEMORY_KIB,
    )
    return kdf.derive_phc_encoded(password.encode())


def verify_password(password: str, phc: str) -> bool:
    """Whether this is the password of the PHC string. As slow as hashing, whatever the answer."""
    try:
        Argon2id.verify_phc_encoded(password.encode(), phc)
    except InvalidKey:
        return False
    return True
