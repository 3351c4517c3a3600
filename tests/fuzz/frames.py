"""WebSocket frames as no gate sends them (RFC 6455), after an honest upgrade or a spoilt one."""

from __future__ import annotations

import base64
from random import Random

from tests.fuzz.case import Case, Way
from tests.fuzz.spoil import spoil_bytes, spoil_json, spoil_jwt

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
CODES = (0, 999, 1000, 1001, 1004, 1005, 1006, 1015, 2999, 3000, 4401, 4999, 5000, 65_535)
UPGRADES = (
    ("Upgrade", ("websocket", "WebSocket", "h2c", "websocket, x", "")),
    ("Connection", ("Upgrade", "keep-alive, Upgrade", "close", "")),
    ("Sec-WebSocket-Version", ("13", "8", "0", "99", "x", "13, 8", "")),
    ("Sec-WebSocket-Key", ("", "x", "AAAAAAAAAAAAAAAAAAAAAA==", "A" * 24, "A" * 4_000)),
    (
        "Sec-WebSocket-Protocol",
        ("gateline.v1", "gateline.v2", ",", "x" * 4_000, "bearer.x", "gateline.v1, bearer."),
    ),
    (
        "Sec-WebSocket-Extensions",
        ("permessage-deflate", "permessage-deflate; server_max_window_bits=99", 'x; y="'),
    ),
    ("Origin", ("null", "http://evil.example")),
)


def frame(
    payload: bytes,
    opcode: int = TEXT,
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"mask",
    said: int | None = None,
) -> bytes:
    """One frame; `said` belies its length."""
    length = len(payload) if said is None else said
    first = bytes(((0x80 if fin else 0) | rsv << 4 | opcode,))
    bit = 0x80 if mask else 0
    if length < 126:
        size = bytes((bit | length,))
    elif length < 2**16:
        size = bytes((bit | 126,)) + length.to_bytes(2, "big")
    else:
        size = bytes((bit | 127,)) + length.to_bytes(8, "big")
    if not mask:
        return first + size + payload
    return first + size + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


def upgrade(token: str, changes: dict[str, str] | None = None) -> bytes:
    """The request of a gate for its socket."""
    headers = {
        "Host": "x",
        "Authorization": f"Bearer {token}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(b"a gate's 16bytes").decode(),
        "Sec-WebSocket-Protocol": "gateline.v1",
    } | (changes or {})
    lines = ["GET /venue/stream HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


class Frames:
    """Makes cases around the scan of now."""

    def __init__(self, token: str, scan: bytes) -> None:
        self._token = token
        self._scan = scan

    def any(self, dice: Random) -> Case:
        """A socket with up to ten frames; seldom one that should not come about."""
        if dice.random() < 0.12:
            return self._spoilt_upgrade(dice)
        frames = [self._frame(dice) for _ in range(dice.choice((1, 1, 2, 10)))]
        if dice.random() < 0.3:
            frames = [b"".join(frames)]
        if dice.random() < 0.15:
            whole = b"".join(frames)
            cut = dice.randrange(1, max(2, len(whole)))
            frames = [whole[:cut], whole[cut:]]
        return Case(way=Way.SOCKET, name="frames", packets=(upgrade(self._token), *frames))

    def _spoilt_upgrade(self, dice: Random) -> Case:
        changes = {name: dice.choice(values) for name, values in dice.sample(UPGRADES, k=dice.choice((1, 2)))}
        token = self._token if dice.random() < 0.7 else spoil_jwt(dice, self._token)
        return Case(way=Way.HALF, name="upgrade", packets=(upgrade(token, changes), frame(self._scan)))

    def _frame(self, dice: Random) -> bytes:
        scan = self._scan.replace(b'"scan_id":"', b'"scan_id":"' + dice.randbytes(2).hex().encode(), 1)
        make = dice.choice(_MAKERS)
        return make(dice, scan)


def _honest(dice: Random, scan: bytes) -> bytes:
    return frame(scan, mask=None if dice.random() < 0.2 else b"mask")


def _spoilt(dice: Random, scan: bytes) -> bytes:
    not_text = dice.choice((b"\xff\xfe", b"\xed\xa0\x80", b'{"scan_id":"\xff"}', b"\xc0\x80"))
    return frame(spoil_json(dice, scan) if dice.random() < 0.8 else not_text)


def _any_opcode(dice: Random, scan: bytes) -> bytes:
    return frame(
        dice.randbytes(dice.choice((0, 1, 125, 126))), dice.randrange(16), rsv=dice.choice((0, 0, 1, 2, 4))
    )


def _sized(dice: Random, scan: bytes) -> bytes:
    return frame(b"x" * dice.choice((0, 125, 126, 4_095, 4_096, 4_097, 70_000)))


def _control(dice: Random, scan: bytes) -> bytes:
    """It may neither be long nor in parts."""
    opcode = dice.choice((PING, PONG, CLOSE))
    long = dice.random() < 0.5
    return frame(b"x" * dice.choice((126, 4_000)), opcode) if long else frame(b"", opcode, fin=False)


def _closing(dice: Random, scan: bytes) -> bytes:
    code = dice.choice(CODES).to_bytes(2, "big")
    return frame(dice.choice((b"", b"\x03", code, code + b"bye", code + b"\xff" * 10)), CLOSE)


def _pings(dice: Random, scan: bytes) -> bytes:
    return frame(b"ping" * dice.choice((0, 1, 30)), dice.choice((PING, PONG))) * dice.choice((1, 50, 500))


def _parts(dice: Random, scan: bytes) -> bytes:
    """A text in two frames, and perhaps another between them; or the end of none."""
    if dice.random() < 0.3:
        return frame(b"x", CONTINUATION, fin=dice.random() < 0.5) * dice.choice((1, 30))
    cut = dice.randrange(len(scan))
    between = dice.choice((b"", frame(b"", PING), frame(scan), frame(b"", CONTINUATION, fin=True)))
    return frame(scan[:cut], fin=False) + between + frame(scan[cut:], CONTINUATION)


def _belied(dice: Random, scan: bytes) -> bytes:
    """Another length than it says, half a frame, or any bytes of it changed."""
    said = dice.choice((2**16, 2**31, 2**63, 2**64 - 1, len(scan) + 10))
    half = frame(scan)[: dice.randrange(6)]
    return dice.choice((frame(scan, said=said), half, spoil_bytes(dice, frame(scan))))


_MAKERS = (
    *(_honest, _honest, _spoilt, _spoilt, _any_opcode, _sized),
    *(_control, _closing, _pings, _parts, _belied),
)
