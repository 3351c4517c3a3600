"""The signature of the generic gateway: HMAC-SHA256 over `timestamp "." raw bytes`, in both directions.

Headers: `X-Signature-Timestamp: <unix seconds>` and `X-Signature: v1=<hex>`. Several secrets are accepted at once, so
that a secret can be rotated; the first one signs.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from server.limits import WEBHOOK_SKEW_S_MAX

TIMESTAMP_HEADER: Final = "X-Signature-Timestamp"
SIGNATURE_HEADER: Final = "X-Signature"


class Secrets:
    """The secrets that are shared with the gateway now."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self.current = tuple(secrets)

    def replace(self, other: Secrets) -> None:
        """Use those of the other from now on, for everyone who holds this object."""
        self.current = other.current


def digest(secret: bytes, timestamp: str, payload: bytes) -> str:
    """`v1=<hex>` of the payload at that time."""
    return "v1=" + hmac.digest(secret, timestamp.encode() + b"." + payload, "sha256").hex()


def headers(secrets: Sequence[bytes], payload: bytes, now_s: int) -> dict[str, str]:
    """The two headers of a signed message."""
    timestamp = str(now_s)
    return {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: digest(secrets[0], timestamp, payload)}


def holds(secrets: Sequence[bytes], sent: Mapping[str, str], payload: bytes, now_s: int) -> bool:
    """Whether the headers sign these raw bytes with any of the secrets, not more than 300 s away from now."""
    timestamp, signature = sent.get(TIMESTAMP_HEADER, ""), sent.get(SIGNATURE_HEADER, "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    fresh = abs(now_s - int(timestamp)) <= WEBHOOK_SKEW_S_MAX
    # Every secret is tried, in constant time each, so that the time tells nothing about which one is in use.
    matches = [
        hmac.compare_digest(digest(secret, timestamp, payload).encode(), signature.encode("utf-8", "replace"))
        for secret in secrets
    ]
    return fresh and any(matches)
