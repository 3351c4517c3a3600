"""What WeChat Pay tells of a transaction: in the open as the answer to a query, and sealed in a notification.

Structs are strict in what settlement looks at and let pass what they do not know. Source: WeChat Pay API v3,
"payment notification", "query by out_trade_no" and "decrypting certificates and notifications".
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from server.domain.payments import CURRENCY
from server.limits import PAYMENT_FEN_MAX

ALGORITHM: Final = "AEAD_AES_256_GCM"
SETTLING_EVENT: Final = "TRANSACTION.SUCCESS"
KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_CIPHERTEXT_CHARS_MAX: Final = 16_384  # that of a payment is about 1,000
_YEAR_MIN: Final = 2000
_YEAR_MAX: Final = 9998

# What msgspec raises for bytes that are no JSON of the struct: also for text that is no UTF-8, or nested too deep.
NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Unreadable(Exception):
    """A notification that cannot be opened or understood; says in which respect, and nothing of what it holds."""


class SealedOtherwise(Unreadable):
    """One that this key does not open; another may."""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """The sealed part: base64 of ciphertext and tag, and what opens it but for the key."""

    algorithm: Annotated[str, msgspec.Meta(max_length=32)]
    ciphertext: Annotated[str, msgspec.Meta(max_length=_CIPHERTEXT_CHARS_MAX)]
    nonce: Annotated[str, msgspec.Meta(max_length=16)]
    associated_data: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    original_type: Annotated[str, msgspec.Meta(max_length=32)] = "transaction"


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A notification as it comes."""

    id: Annotated[str, msgspec.Meta(max_length=64)]
    event_type: Annotated[str, msgspec.Meta(max_length=64)]
    resource: Resource


class TradeState(enum.StrEnum):
    """Where a transaction stands at WeChat; the last three come of payment codes only."""

    SUCCESS = "SUCCESS"
    REFUND = "REFUND"  # it was paid, and some of it was given back since
    NOTPAY = "NOTPAY"
    CLOSED = "CLOSED"
    REVOKED = "REVOKED"
    USERPAYING = "USERPAYING"
    PAYERROR = "PAYERROR"


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """What was ordered, in fen; the payer may have paid less, with a coupon of WeChat's."""

    total: Annotated[int, msgspec.Meta(ge=0, le=PAYMENT_FEN_MAX)]
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{1,16}\Z")] = CURRENCY


class TransactionPayer(msgspec.Struct, frozen=True, kw_only=True):
    """Who paid, as the app knows them; empty while no one has."""

    openid: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{0,128}\Z")] = ""

    def __repr__(self) -> str:
        """Without the openid: a struct that is printed by mistake must not bring it into a log."""
        return "TransactionPayer(...)"


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction at WeChat. What was never paid has no `transaction_id`, time, and perhaps no amount."""

    appid: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{0,32}\Z")] = ""
    mchid: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{1,32}\Z")]
    out_trade_no: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_|*-]{1,32}\Z")]
    trade_state: TradeState
    transaction_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{0,32}\Z")] = ""
    trade_type: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{0,16}\Z")] = ""
    success_time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    amount: Amount | None = None
    payer: TransactionPayer | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a paid one that does not say what settlement must know, or at no possible time."""
        if self.trade_state in (TradeState.SUCCESS, TradeState.REFUND) and not (
            self.appid and self.transaction_id and self.success_time and self.amount
        ):
            raise ValueError("what is paid has an appid, a transaction_id, a success_time and an amount")
        if self.success_time and not _YEAR_MIN <= self.success_time.year <= _YEAR_MAX:
            raise ValueError(f"`success_time` must be from {_YEAR_MIN} to {_YEAR_MAX}")


_transaction: Final = msgspec.json.Decoder(Transaction)


class ApiV3Keys:
    """The keys that open notifications: one, or two while WeChat goes over from one to the other."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def replace(self, other: ApiV3Keys) -> None:
        """Open as the other does from now on, for everyone who holds this object."""
        self._keys = other._keys

    def open(self, envelope: Envelope) -> Transaction | None:
        """As `open_notification`, with whichever key opens it."""
        *others, last = self._keys
        for key in others:
            with suppress(SealedOtherwise):
                return open_notification(envelope, key)
        return open_notification(envelope, last)


def open_notification(envelope: Envelope, api_v3_key: bytes) -> Transaction | None:
    """The transaction that a notification tells of; None: an event of another kind, not ours to settle.

    The caller has verified the signature. Raises Unreadable; ValueError for a key that is none.
    """
    if envelope.event_type != SETTLING_EVENT:
        return None
    if envelope.resource.original_type != "transaction":
        raise Unreadable("not of a transaction")
    return read_transaction(unseal(api_v3_key, envelope.resource))


def read_transaction(plain: bytes) -> Transaction:
    """A transaction from its JSON. Raises Unreadable."""
    try:
        return _transaction.decode(plain)
    except NOT_JSON:
        raise Unreadable("not a transaction") from None


def unseal(api_v3_key: bytes, resource: Resource) -> bytes:
    """What a resource holds. Raises Unreadable; ValueError for a key that is not of 32 bytes (a mistake of ours)."""
    if len(api_v3_key) != KEY_BYTES:
        raise ValueError(f"an APIv3 key has {KEY_BYTES} bytes")
    if resource.algorithm != ALGORITHM:
        raise Unreadable("sealed in another way")
    nonce = resource.nonce.encode()
    if len(nonce) != _NONCE_BYTES:
        raise Unreadable("the nonce is not of 12 bytes")
    try:
        sealed = base64.b64decode(resource.ciphertext, validate=True)
        return AESGCM(api_v3_key).decrypt(nonce, sealed, (resource.associated_data or "").encode())
    except (binascii.Error, ValueError):  # ValueError: text that is not ASCII
        raise Unreadable("the ciphertext is not base64") from None
    except InvalidTag:
        raise SealedOtherwise("sealed with another key, or changed") from None
