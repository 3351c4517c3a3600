"""Identifiers: ticket codes and order ids, in Crockford's base32.

Crockford's alphabet leaves out I, L, O and U, so a code that is read aloud or typed from a printout has
no look-alikes. Here a code has ONE spelling, upper case: codes are keys, and two spellings of one key are
two keys.

Source of the alphabet: https://www.crockford.com/base32.html; of the order id: https://github.com/ulid/spec.
"""

import secrets
import time
from typing import Final

CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

TICKET_CODE_CHARS: Final = 16
# 80 bits: with a billion tickets sold, a guessed code exists with a chance of 1e-15 a guess.
TICKET_CODE_BYTES: Final = 10
ORDER_ID_CHARS: Final = 26
ORDER_ID_RANDOM_BYTES: Final = 10
# A ULID gives 48 bits to the clock: enough until the year 10889.
UNIX_MS_LIMIT: Final = 1 << 48

# int(..., 32) reads "0-9a-v" in C and in linear time, where base64.b32decode is a loop in Python. What is not
# in the alphabet becomes "!", which int() refuses: it would take "_", "+" and blanks.
_TO_INT_DIGITS: Final = bytes(
    b"0123456789abcdefghijklmnopqrstuv"[CROCKFORD.index(chr(byte))] if chr(byte) in CROCKFORD else ord("!")
    for byte in range(256)
)
# Two characters at a time (10 bits): twice as fast as base64.b32encode with a translation of its alphabet.
_PAIRS: Final = tuple(high + low for high in CROCKFORD for low in CROCKFORD)
_ORDER_SHIFTS: Final = range(120, -1, -10)


def new_ticket_code(entropy: bytes | None = None) -> str:
    """Make a ticket code: 16 characters that hold 80 random bits.

    ``entropy`` is the 10 bytes to use; without it the operating system's are taken.
    ValueError if it is not 10 bytes.
    """
    return unpack_ticket_code(secrets.token_bytes(TICKET_CODE_BYTES) if entropy is None else entropy)


def pack_ticket_code(ticket_code: str) -> bytes:
    """Turn a ticket code into its 10 bytes. ValueError if it is not a ticket code."""
    if len(ticket_code) != TICKET_CODE_CHARS:
        raise ValueError("a ticket code is 16 characters of Crockford's base32")
    try:
        number = int(ticket_code.encode("ascii").translate(_TO_INT_DIGITS), 32)
    except ValueError:  # encode() raises one too
        raise ValueError("a ticket code is 16 characters of Crockford's base32") from None
    return number.to_bytes(TICKET_CODE_BYTES, "big")


def unpack_ticket_code(packed: bytes) -> str:
    """Turn 10 bytes into the ticket code they stand for. ValueError for any other length."""
    if len(packed) != TICKET_CODE_BYTES:
        raise ValueError(f"a packed ticket code is {TICKET_CODE_BYTES} bytes, not {len(packed)}")
    n, pairs = int.from_bytes(packed, "big"), _PAIRS
    # Written out, since every scan comes through here: half the time of a loop.
    return (
        f"{pairs[n >> 70]}{pairs[n >> 60 & 1023]}{pairs[n >> 50 & 1023]}{pairs[n >> 40 & 1023]}"
        f"{pairs[n >> 30 & 1023]}{pairs[n >> 20 & 1023]}{pairs[n >> 10 & 1023]}{pairs[n & 1023]}"
    )


def is_ticket_code(text: str) -> bool:
    """Say whether the text is spelled as a ticket code. Whether the ticket exists is another question."""
    try:
        pack_ticket_code(text)
    except ValueError:
        return False
    return True


def new_order_id(now_ms: int | None = None, entropy: bytes | None = None) -> str:
    """Make an order id: a ULID, 26 characters that sort by the time they were made.

    ``now_ms`` is unix time in milliseconds, by default the clock's; ``entropy`` is the 10 random bytes, by
    default the operating system's. Ids of one millisecond sort in no particular order.
    ValueError if the time does not fit 48 bits or the entropy is not 10 bytes.
    """
    if now_ms is None:
        now_ms = time.time_ns() // 1_000_000
    if entropy is None:
        entropy = secrets.token_bytes(ORDER_ID_RANDOM_BYTES)
    if not 0 <= now_ms < UNIX_MS_LIMIT:
        raise ValueError(f"now_ms must be from 0 to {UNIX_MS_LIMIT - 1}")
    if len(entropy) != ORDER_ID_RANDOM_BYTES:
        raise ValueError(f"an order id takes {ORDER_ID_RANDOM_BYTES} random bytes, not {len(entropy)}")
    number = now_ms << 80 | int.from_bytes(entropy, "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in _ORDER_SHIFTS])


def new_out_trade_no(order_id: str, entropy: bytes | None = None) -> str:
    """Make a number for one payment attempt of an order: its id, a dash and five random characters.

    32 characters: the most that WeChat Pay takes. A person who sees it there finds the order. ``entropy`` is the 4
    bytes to use; without it the operating system's are taken.
    """
    number = int.from_bytes(secrets.token_bytes(4) if entropy is None else entropy, "big")
    return f"{order_id}-" + "".join([CROCKFORD[number >> shift & 31] for shift in range(20, -1, -5)])
