"""Reading answers with as little work as an honest client can do: status, length, and where the body is.

The load generator shares a core with the databases, so it must not be what limits a lane: no header is parsed that it
does not need. What comes unexpected (chunked bodies, bytes that nobody asked for) is an error, never skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\nContent-Length: "  # as aiohttp spells it; others are found by the pattern
_ANY_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*(?=\r\n)", re.IGNORECASE)
_HEAD_BYTES_MAX: Final = 64 * 1024
TEXT_FRAME: Final = 0x81  # final, text
CLOSE, PING, PONG = 0x88, 0x89, 0x8A


class AnswerError(Exception):
    """The other side does not speak as a server of ours does; the message says how."""


class HttpAnswer(NamedTuple):
    """Where one answer lies in the bytes that came: `body` is its body's first byte, `end` the byte after it."""

    status: int
    body: int
    end: int


def read_http(data: bytes) -> HttpAnswer | None:
    """The first answer in `data`; None while it is not complete. Raises AnswerError for what is no answer of ours."""
    head_end = data.find(_HEAD_END)
    if head_end < 0:
        if len(data) > _HEAD_BYTES_MAX or not b"HTTP/1.1 ".startswith(data[:9]):
            raise AnswerError(f"not an HTTP answer: {data[:80]!r}")
        return None
    try:
        status = int(data[9:12])
        at = data.find(_LENGTH, 0, head_end)
        if at < 0:
            found = _ANY_LENGTH.search(data, 0, head_end + 2)
            if found is None:
                raise AnswerError(f"an answer without a length: {data[:head_end]!r}")
            length = int(found[1])
        else:
            at += len(_LENGTH)
            stop = data.find(b"\r", at)
            length = int(data[at:stop])
    except ValueError as fault:
        raise AnswerError(f"not an HTTP answer: {data[:80]!r}") from fault
    body = head_end + len(_HEAD_END)
    end = body + length
    return HttpAnswer(status, body, end) if len(data) >= end else None


class Frame(NamedTuple):
    """One WebSocket frame: its first byte (final bit and opcode), and where its payload lies; `end` is after it."""

    head: int
    payload: int
    end: int


def read_frames(data: bytes) -> Iterator[Frame]:
    """Every complete, unmasked frame in `data`, in order (RFC 6455, 5.2). The caller keeps what follows the last."""
    at, size = 0, len(data)
    while size - at >= 2:
        length, payload = data[at + 1], at + 2
        if length == 126:
            payload = at + 4
            length = int.from_bytes(data[at + 2 : payload], "big")
        elif length == 127:
            payload = at + 10
            length = int.from_bytes(data[at + 2 : payload], "big")
        elif length > 127:
            raise AnswerError("a server's frame is never masked")
        end = payload + length
        if size < payload or size < end:
            return
        yield Frame(data[at], payload, end)
        at = end


def client_frame(payload: bytes, *, head: int = TEXT_FRAME) -> bytes:
    """A client's frame, masked with the key 0 (RFC 6455 leaves the key to the client; with 0 masking is identity)."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 1 << 16:
        length = bytes((0x80 | 126,)) + size.to_bytes(2, "big")
    else:
        length = bytes((0x80 | 127,)) + size.to_bytes(8, "big")
    return bytes((head,)) + length + b"\0\0\0\0" + payload
