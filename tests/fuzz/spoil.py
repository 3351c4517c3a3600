"""Spoiling honest things: JSON, texts, tokens, addresses, heads. Every choice is the dice's, so a seed repeats it."""

from __future__ import annotations

import base64
import hmac
import json
from random import Random
from typing import Any

import msgspec

from server.limits import BODY_BYTES_MAX


class Spelled(msgspec.Struct, frozen=True):
    """Bytes that stand in JSON as they are."""

    raw: bytes


class Pairs(msgspec.Struct, frozen=True):
    """An object with its names in order, also one that comes twice."""

    pairs: list[tuple[Any, Any]]


ODD_TEXTS = (
    "", " ", "x" * 600, "x" * 5_000, "bus\n", "bus\x00", "\x1b[31m", "a\tb", "é", "中文", "\u202e", "🎫", "../..",
    "%00",
    "'; --", "${x}", "{{7*7}}", "null", "-1", "1e9", "0" * 26, "9" * 40, "2026-13-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00", "2026-01-01T00:00:00", "SUCCESS", "wechat", "hosted", "free", "miniprogram",
    "\ufeff",
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 51, 1.5, 2**31, 2**53, 2**63, 2**64, 10**40, -(10**40), 1e308, [], {}, [[]], [None],
    {"a": {}}, [{"product_id": 1, "qty": 0}], {"environmentType": "desktop"},
    Spelled(b"NaN"), Spelled(b"-Infinity"), Spelled(b"1e999"), Spelled(b"-0"), Spelled(b"01"), Spelled(b"1."),
    Spelled(b'"\\ud800"'), Spelled(b'"\\udc00\\ud800"'), Spelled(b'"\xff\xfe"'), Spelled(b'"\xed\xa0\x80"'),
    Spelled(b'"\\u0000"'), Spelled(b"'x'"), Spelled(b""), Spelled(b"\x00"), Spelled(b"tru"), Spelled(b"//"),
)  # fmt: skip


def odd_value(dice: Random) -> Any:
    """A value that few fields take."""
    pick = dice.random()
    if pick < 0.35:
        return dice.choice(ODD_TEXTS)
    if pick < 0.9:
        return dice.choice(ODD_VALUES)
    depth = dice.choice((10, 500, 1_000, 20_000))
    return dice.choice(
        (
            Spelled(b"[" * depth + b"]" * depth),
            Spelled(b'{"a":' * depth + b"1" + b"}" * depth),
            Spelled(b"[" * depth),
            Spelled(b"9" * depth),
            Spelled(b"0." + b"9" * depth),
            Spelled(b'"' + b"\\u4e2d" * depth + b'"'),
            Spelled(b"[" + b"0," * depth + b"0]"),
        )
    )


def spelled(value: Any) -> bytes:
    """JSON, or what looks like it."""
    if isinstance(value, Spelled):
        return value.raw
    if isinstance(value, Pairs):
        return b"{" + b",".join(spelled(name) + b":" + spelled(its) for name, its in value.pairs) + b"}"
    if isinstance(value, dict):
        return spelled(Pairs(list(value.items())))
    if isinstance(value, list):
        return b"[" + b",".join(map(spelled, value)) + b"]"
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def spoil_value(dice: Random, value: Any) -> Any:
    """The value with something changed, at any depth."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        return _spoil_object(dice, value)
    if isinstance(value, list) and value and dice.random() < 0.85:
        place = dice.randrange(len(value))
        changed = list(value)
        changed[place] = spoil_value(dice, value[place])
        return dice.choice((changed, changed, value * dice.choice((2, 30)), value[:place]))
    if isinstance(value, str) and dice.random() < 0.5:
        return spoil_text(dice, value)
    if isinstance(value, int) and dice.random() < 0.5:
        return value + dice.choice((-1, 1, 2**31, -(2**63), 10**20))
    return odd_value(dice)


def _spoil_object(dice: Random, value: dict[str, Any]) -> Any:
    name = dice.choice(list(value))
    how = dice.randrange(8)
    if how == 0:
        return {key: its for key, its in value.items() if key != name}
    if how == 1:  # given twice, and not alike
        return Pairs([*value.items(), (name, spoil_value(dice, value[name]))])
    if how == 2:
        return {spoil_text(dice, name) if key == name else key: its for key, its in value.items()}
    if how == 3:
        return {**value, spoil_text(dice, name): odd_value(dice)}
    if how == 4:  # another field's value
        return {**value, name: value[dice.choice(list(value))]}
    return {**value, name: spoil_value(dice, value[name])}


def spoil_text(dice: Random, text: str) -> str:
    """The text with a character changed, cut, doubled, or another text."""
    place = dice.randrange(len(text) + 1)
    return dice.choice(
        (
            text[:place],
            text[:place] + dice.choice(ODD_TEXTS) + text[place:],
            text[:place]
            + chr(dice.choice((0, 9, 10, 13, 32, 44, 127, 160, 0x4E2D, 0x1F39F)))
            + text[place + 1 :],
            text * 2,
            text.swapcase(),
            dice.choice(ODD_TEXTS),
        )
    )


def spoil_bytes(dice: Random, raw: bytes) -> bytes:
    """The bytes with some flipped, cut, doubled or put in."""
    for _ in range(dice.choice((1, 1, 2, 5))):
        place = dice.randrange(len(raw) + 1)
        how = dice.randrange(6)
        if how == 0 and raw:
            place %= len(raw)
            raw = raw[:place] + bytes((raw[place] ^ (1 << dice.randrange(8)),)) + raw[place + 1 :]
        elif how == 1:
            raw = raw[:place]
        elif how == 2:
            raw = raw[:place] + dice.randbytes(dice.choice((1, 4, 30))) + raw[place:]
        elif how == 3:
            raw = raw[:place] + raw[place:] * 2
        elif how == 4:
            raw = (
                raw[:place]
                + dice.choice((b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r\n", b'"', b"}", b"["))
                + raw[place:]
            )
        else:
            raw = raw[:place] + raw[place + dice.choice((1, 2, 8)) :]
    return raw


def spoil_json(dice: Random, raw: bytes) -> bytes:
    """A body of JSON, spoilt in its values or in its bytes; seldom one that is larger than any address takes."""
    pick = dice.random()
    if pick < 0.25:
        return spoil_bytes(dice, raw)
    if pick < 0.27:
        return raw + b" " * (BODY_BYTES_MAX * dice.choice((1, 9)) - len(raw) + dice.choice((-1, 0, 1)))
    try:
        value = json.loads(raw or b"{}")
        for _ in range(dice.choice((1, 1, 1, 2, 4))):
            if isinstance(value, Pairs | Spelled):
                break
            value = spoil_value(dice, value)
        return spelled(value)
    except (ValueError, RecursionError):  # spoilt before, and no JSON any more, or a very deep one
        return spoil_bytes(dice, raw)


# --- Tokens --------------------------------------------------------------------------------------------------


def spoil_jwt(dice: Random, token: str) -> str:
    """A bearer token that was not issued."""
    head, payload, signature = token.split(".")
    pieces = dice.choices((head, payload, signature, "", "e30", "bnVsbA", "W10"), k=dice.randrange(1, 7))
    alg = dice.choice(("none", "None", "HS512", "RS256"))
    claims = json.loads(_opened(payload)) | {dice.choice(("aud", "sub", "exp", "gen")): odd_value(dice)}
    text = f"{head}.{_segment(claims)}"
    stranger = base64.urlsafe_b64encode(hmac.digest(b"stranger", text.encode(), "sha256")).decode()
    return dice.choice(
        (
            _flipped(dice, token),
            token[: dice.randrange(len(token))],
            ".".join(pieces),
            f"{_segment({'alg': alg, 'kid': 'k1'})}.{payload}.{signature}",
            f"{_segment({'alg': 'HS256', 'kid': odd_value(dice)})}.{payload}.{signature}",
            f"{text}.{stranger}",  # signed truly, with a key that is no one's
            token + dice.choice((".", "=", "..", "." + signature, "\xff", " x")),
            dice.randbytes(dice.choice((1, 30, 400))).decode("latin-1").translate({10: 46, 13: 46, 0: 46}),
            token * dice.choice((2, 6)),
        )
    )


def _flipped(dice: Random, token: str) -> str:
    place = dice.randrange(len(token))
    return token[:place] + dice.choice("ABCabc019-_.=") + token[place + 1 :]


def _segment(value: Any) -> str:
    return base64.urlsafe_b64encode(spelled(value)).rstrip(b"=").decode()


def _opened(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def spoil_qr(dice: Random, token: str) -> str:
    """A QR token that was not issued, or that is spelled in another way."""
    place = dice.randrange(len(token))
    return dice.choice(
        (
            token[:place] + dice.choice("ABCXYZ2347018=-é") + token[place + 1 :],
            token[:place],
            token + dice.choice("A2= \n"),
            token.lower(),
            f" {token}\n",
            token[1:] + token[:1],
            base64.b32encode(bytes((1, dice.randrange(256))) + dice.randbytes(52))[:87].decode(),
            base64.b32encode(dice.randbytes(54))[:87].decode(),
            token * dice.choice((2, 6)),
        )
    )


# --- Heads and addresses ---------------------------------------------------------------------------------------

PLACES = (
    "%00", "a%00b", "%0d%0aX:%20y", "%ff", "%ed%a0%80", "%E4%B8%AD", "..%2F..", "a%2Fb", "%20", "%25",
    "%7Bcode%7D", "*",
    "'", "A" * 300, "0" * 16, "0" * 26, "U" * 16, "%EF%BC%90" * 16, ".", "..", "%2e%2e", "", ";x=1", "%",  "%zz",
)  # fmt: skip
VALUES = (
    "", "%00", "%0a", "%ff", "null", "true", "-1", "0", "1", "1.5", "1e3", "1_0", "9" * 30, "9" * 1_000, "nan",
    "%D9%A5",
    "[]", "bus%0a", "2026-01-01", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00%2B14:00",
    "MDAwMS0wMS0wMVQwMDowMDowMCsyMzo1OSB4", "Z" * 26, "csv", "png", "svg", "success", "reject", "hour", "day",
)  # fmt: skip
NAMES = (
    "limit",
    "cursor",
    "format",
    "from",
    "to",
    "function",
    "location",
    "operator",
    "result",
    "image",
    "unit",
    "x",
)


def spoil_path(dice: Random, path: str) -> str:
    """Another address, near the honest one."""
    how = dice.randrange(6)
    if how <= 2:
        pairs = [f"{dice.choice(NAMES)}={dice.choice(VALUES)}" for _ in range(dice.choice((1, 1, 2, 5)))]
        return f"{path}?{'&'.join(pairs)}"
    pieces = path.split("/")
    place = dice.randrange(len(pieces))
    if how == 3:
        pieces[place] = dice.choice(PLACES)
    elif how == 4:
        pieces.insert(place, dice.choice(PLACES))
    else:
        return path + dice.choice(
            ("/", "//", "?", "#x", "?%", "%2f", "?" + "a=1&" * 400, "/" + "a/" * 500, "?=&=&;")
        )
    return "/".join(pieces) or "/"


HEADS = (
    ("Content-Type", ("text/plain", "application/json; charset=utf-16", "application/json;", "*/*",
         "a/b; c=\"", "", "x" * 500)),
    ("Content-Encoding", ("gzip", "br", "identity", "", "gzip, gzip")),
    ("Accept", ("*/*", "text/html", "text/event-stream", "q=", ",", "x" * 2_000)),
    ("Accept-Encoding", ("gzip", "identity;q=0", "*;q=0", "\xff")),
    ("X-Request-Id", ("short", "0123456789", "é" * 10, "a" * 65, "0" * 64, "{}", "-" * 8)),
    ("X-Forwarded-For", ("127.0.0.1", "::1, x", "999.1.1.1", "a" * 1_000)),
    ("If-None-Match", ('"x"', "*", ",,,")),
    ("If-Modified-Since", ("Sat, 01 Jan 2000 00:00:00 GMT", "never", "-1")),
    ("Range", ("bytes=0-1", "bytes=-1", "bytes=5-2", "bytes=0-0,0-0", "lines=1", "bytes=" + "9" * 40 + "-")),
    ("Expect", ("100-continue", "the-unexpected", "")),
    ("Cookie", ("a=b", "a" * 3_000, "=;=;=", 'a="\\')),
    ("Origin", ("null", "http://evil.example", "\xff")),
    ("User-Agent", ("", "MicroMessenger/8.0 miniProgram", "x" * 4_000, "\xe4\xb8\xad")),
    ("Idempotency-Key", ("", "a" * 64, "a" * 65, "a b", "{stock}", "same", "\xff")),
    ("Authorization", ("Bearer", "Basic YTpi", "Bearer a.b.c", "bearer " + "x" * 3_000,
         "Bearer \xff.\xff.\xff", "")),
    ("Sec-WebSocket-Protocol", ("gateline.v1, bearer.x.y.z", "bearer.", ",,", "\xff")),
    ("Connection", ("close", "keep-alive", "x, y, close", "")),
    ("Upgrade", ("websocket", "h2c", "")),
    ("Date", ("never",)),
    ("X-Signature", ("v1=" + "0" * 64, "v1=", "v2=x", "\xff", "")),
    ("X-Signature-Timestamp", ("0", "-1", "9" * 12, "9" * 400, "1e9", "\xff")),
    ("Wechatpay-Signature", ("WECHATPAY/SIGNTEST/x", "AAAA", "=", "\xff", "A" * 684)),
    ("Wechatpay-Timestamp", ("0", "9" * 13, "x")),
    ("Wechatpay-Serial", ("0", "0" * 128, "PUB_KEY_ID_0", "\xff")),
    ("Wechatpay-Nonce", ("", "x" * 1_025, "\xff")),
    ("X-Odd", ("\xff" * 50, "a" * 7_000, "\t", "a\tb", '"', "\x80")),
)  # fmt: skip


def spoil_head(dice: Random, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Headers, some of them gone, given twice, or odd. How the body is framed is not among them."""
    changed = list(headers)
    how = dice.randrange(6)
    if how == 0 and changed:
        del changed[dice.randrange(len(changed))]
    elif how == 1 and changed:
        changed.append(dice.choice(changed))
    elif how == 2:
        changed += [
            (f"X-{number}", "y" * dice.choice((1, 100))) for number in range(dice.choice((20, 90, 200)))
        ]
    elif how == 3 and changed:
        place = dice.randrange(len(changed))
        name, value = changed[place]
        changed[place] = (name.swapcase(), value)
    else:
        for _ in range(dice.choice((1, 1, 3))):
            name, values = dice.choice(HEADS)
            if dice.random() < 0.5:
                changed = [each for each in changed if each[0].lower() != name.lower()]
            changed.append((name, dice.choice(values)))
    return changed
