"""The QR token: what a buyer's phone shows, and what a gate reads.

A token is 54 bytes, spelled as 87 characters of base32 (RFC 4648, no padding)::

    version   1 byte    always 1; authenticated, not encrypted
    key id    1 byte    which key of QrKeys; authenticated, not encrypted
    nonce    12 bytes   random; AES-GCM binds it by itself
    sealed   24 bytes   AES-256-GCM over: jti 8, expiry in unix milliseconds 6 (big-endian), ticket code 10
    tag      16 bytes

Upper-case base32 lets the code use the alphanumeric mode, 5.5 bits a character: 87 characters fit QR version
4 at error correction M, which holds 90. The design allows version 6; fewer modules are larger ones on the
same screen, and are read faster from a scratched phone.

A key must not seal more than 2**32 tokens, since nonces are random (NIST SP 800-38D, 8.3): at 1000 tokens a
second that is 49 days. To rotate, first let every process read the new key, then let it issue, and keep the
old one for as long as a token lives (a minute at most) or a scan of one may come: a gate that was offline
uploads its scans up to a day later.
"""

from __future__ import annotations

import base64
import enum
import secrets
from collections.abc import Mapping
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from server.domain.ids import UNIX_MS_LIMIT, pack_ticket_code, unpack_ticket_code
from server.limits import QR_TTL_MS_MAX

TOKEN_CHARS: Final = 87
KEY_BYTES: Final = 32

_VERSION: Final = 1
_TOKEN_BYTES: Final = 54
_HEAD_BYTES: Final = 2
_NONCE_BYTES: Final = 12
_JTI_BYTES: Final = 8
_EXPIRY_BYTES: Final = 6
# 87 characters are 435 bits, 54 bytes are 432: the last three must be zero, or a token had eight spellings.
_SPARE_BITS: Final = 3
_SPARE_MASK: Final = (1 << _SPARE_BITS) - 1
# A token and the white space that a scanner may send around it. What is longer is not looked at.
_INPUT_CHARS_MAX: Final = 128
_RFC4648: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
# Read by int(..., 32) as in ids: "!" makes int() refuse. Lower case is read too: keyboard-wedge scanners send
# it when caps lock is on.
_TO_INT_DIGITS: Final = bytes(
    b"0123456789abcdefghijklmnopqrstuv"[_RFC4648.index(bytes([byte]).upper())]
    if bytes([byte]).upper() in _RFC4648
    else ord("!")
    for byte in range(256)
)


class QrFault(enum.Enum):
    """Why a token cannot be read. Each is final: with the same keys, the same text will never be read."""

    MALFORMED = "QR_MALFORMED"
    """Not a token: length, alphabet, spelling or version."""
    TAMPERED = "QR_TAMPERED"
    """Spelled as a token, but not sealed by the key it names."""
    UNKNOWN_KEY = "QR_UNKNOWN_KEY"
    """Spelled as a token that names a key we do not hold: retired, never ours, or the key id was changed."""


class IssuedQr(msgspec.Struct, frozen=True, gc=False):
    """A token just made. Times are unix milliseconds; ``jti`` is 16 lower-case hex characters."""

    token: str
    jti: str
    issued_at_ms: int
    expires_at_ms: int


class QrContent(msgspec.Struct, frozen=True, gc=False):
    """What an authentic token says. It may have expired: see :meth:`expired`."""

    ticket_code: str
    jti: str
    expires_at_ms: int

    def expired(self, now_ms: int) -> bool:
        """Say whether the token is over at ``now_ms``: it is valid while ``now_ms < expires_at_ms``."""
        return now_ms >= self.expires_at_ms


class QrKeys:
    """The keys that seal tokens, by id. The first one issues, all of them read.

    ``keys`` maps a key id (0 to 255) to 32 bytes; its order matters. ``current``, when given, names the one
    that issues instead of the first. ValueError if there is no key, an id or a length is out of range, the
    same key has two ids, or ``current`` is not among the ids.
    """

    __slots__ = ("_ciphers", "_current")

    def __init__(self, keys: Mapping[int, bytes], current: int | None = None) -> None:
        if not keys:
            raise ValueError("at least one QR key is needed")
        for key_id, key in keys.items():
            if not 0 <= key_id <= 255:
                raise ValueError(f"a QR key id is from 0 to 255, not {key_id}")
            if len(key) != KEY_BYTES:
                raise ValueError(f"QR key {key_id} must be {KEY_BYTES} bytes, not {len(key)}")
        if len(set(keys.values())) != len(keys):
            raise ValueError("two QR key ids hold the same key")
        if current is not None and current not in keys:
            raise ValueError(f"QR key {current} is to issue, but is not among the keys")
        self._current = next(iter(keys)) if current is None else current
        # One cipher a key, made once: AESGCM expands the key on construction.
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}

    def replace(self, other: QrKeys) -> None:
        """Take over the keys of ``other``, for everyone who holds this object, with the next token."""
        self._current, self._ciphers = other._current, other._ciphers

    @property
    def current(self) -> int:
        """The id of the key that issues."""
        return self._current

    def cipher(self, key_id: int) -> AESGCM | None:
        """Return the cipher of a key, or None if we do not hold it."""
        return self._ciphers.get(key_id)

    @property
    def current_cipher(self) -> AESGCM:
        """The cipher that issues."""
        return self._ciphers[self._current]

    def __repr__(self) -> str:
        return f"QrKeys(ids={list(self._ciphers)}, current={self.current})"


def issue(
    keys: QrKeys, ticket_code: str, *, now_ms: int, ttl_ms: int, entropy: bytes | None = None
) -> IssuedQr:
    """Seal a token for a ticket, with the current key.

    ``now_ms`` is unix time in milliseconds, ``ttl_ms`` is from 1 to 60000. ``entropy`` is 20 bytes, 12 for
    the nonce and 8 for the jti, by default the operating system's; the same bytes twice with one key would
    break the cipher. ValueError for a ticket code that is none, or a number out of its range.
    """
    if not 1 <= ttl_ms <= QR_TTL_MS_MAX:
        raise ValueError(f"ttl_ms must be from 1 to {QR_TTL_MS_MAX}, not {ttl_ms}")
    expires_at_ms = now_ms + ttl_ms
    if now_ms < 0 or expires_at_ms >= UNIX_MS_LIMIT:
        raise ValueError(f"now_ms must be from 0, and the expiry below {UNIX_MS_LIMIT}")
    if entropy is None:
        entropy = secrets.token_bytes(_NONCE_BYTES + _JTI_BYTES)
    elif len(entropy) != _NONCE_BYTES + _JTI_BYTES:
        raise ValueError(f"a token takes {_NONCE_BYTES + _JTI_BYTES} random bytes, not {len(entropy)}")
    nonce, jti = entropy[:_NONCE_BYTES], entropy[_NONCE_BYTES:]
    head = bytes((_VERSION, keys.current))
    content = jti + expires_at_ms.to_bytes(_EXPIRY_BYTES, "big") + pack_ticket_code(ticket_code)
    sealed = keys.current_cipher.encrypt(nonce, content, head)
    token = base64.b32encode(head + nonce + sealed)[:TOKEN_CHARS].decode("ascii")
    return IssuedQr(token, jti.hex(), now_ms, expires_at_ms)


def read(keys: QrKeys, token: str) -> QrContent | QrFault:
    """Open a token, and return what it says or why it cannot be read. Raises for no text whatever.

    Lower case, and white space around the token, are accepted. Expiry is NOT judged: a scan that is retried
    after the token expired must find its first verdict, so whoever redeems sees the content first.
    """
    raw = _unspell(token)
    if raw is None or raw[0] != _VERSION:
        return QrFault.MALFORMED
    cipher = keys.cipher(raw[1])
    if cipher is None:
        return QrFault.UNKNOWN_KEY
    nonce_end = _HEAD_BYTES + _NONCE_BYTES
    try:
        content = cipher.decrypt(raw[_HEAD_BYTES:nonce_end], raw[nonce_end:], raw[:_HEAD_BYTES])
    except InvalidTag:
        return QrFault.TAMPERED
    return QrContent(
        unpack_ticket_code(content[_JTI_BYTES + _EXPIRY_BYTES :]),
        content[:_JTI_BYTES].hex(),
        int.from_bytes(content[_JTI_BYTES : _JTI_BYTES + _EXPIRY_BYTES], "big"),
    )


def _unspell(token: str) -> bytes | None:
    """Turn a token's text into its 54 bytes, or None if it is not the one spelling of any."""
    if len(token) > _INPUT_CHARS_MAX:
        return None
    text = token.strip()
    if len(text) != TOKEN_CHARS:
        return None
    try:
        # No str.upper() before: it would turn the dotless i into I.
        number = int(text.encode("ascii").translate(_TO_INT_DIGITS), 32)
    except ValueError:  # encode() raises one too
        return None
    if number & _SPARE_MASK:
        return None
    return (number >> _SPARE_BITS).to_bytes(_TOKEN_BYTES, "big")
