"""Bytes that are hardly HTTP: broken heads, wrong lengths, smuggled requests, other protocols, halves."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.fuzz.case import Case, Way
from tests.fuzz.spoil import spoil_bytes

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
TLS_HELLO = bytes.fromhex("16030100a5010000a10303") + b"\x00" * 32 + bytes.fromhex("000002c02f0100")
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
OTHERS = (
    TLS_HELLO, HTTP2_PREFACE, b"SSH-2.0-OpenSSH_9.6\r\n", b"*1\r\n$4\r\nPING\r\n", b"EHLO x\r\n", b"\x00" * 64,
    b"\x05\x01\x00", b"\x04\x01\x00P\x7f\x00\x00\x01\x00", b"GET /\r\n", b"GET\r\n\r\n", b"GET /healthz\r\n\r\n",
    b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + HEALTH, b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"\xff" * 100,
    b"\r\n" * 40 + HEALTH, b"\n" * 3 + HEALTH, b" " + HEALTH, b"\xef\xbb\xbf" + HEALTH,
)  # fmt: skip
LENGTHS = (
    "-1", "+2", "2, 3", "2,2", "0x2", "2 ", " 2", "2\t", "1e1", "", "two", "٢", "9" * 20, "9" * 400,
    "00000000002", "2.0",
    str(2**31), str(2**63), str(2**64 + 2),
)  # fmt: skip
CODINGS = (
    "chunked", "Chunked", "chunked, chunked", "gzip, chunked", "chunked, gzip", "identity", "xchunked", " chunked",
    "chunked ", "\tchunked", "chunked;x=1", '"chunked"', "", "ch\x00unked", "\x0bchunked", "chunke\xfe",
)  # fmt: skip
CHUNKS = (
    b"0\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n", b"2;x=y\r\n{}\r\n0\r\nA: b\r\n\r\n", b"ZZ\r\n", b"-1\r\n{}\r\n0\r\n\r\n",
    b"2\r\n{}0\r\n\r\n", b"2\n{}\n0\n\n", b"0x2\r\n{}\r\n0\r\n\r\n", b"F" * 16 + b"\r\n{}",
    b"F" * 400 + b"\r\n", b"2\r\n{",
    b"2 \r\n{}\r\n0\r\n\r\n", b"\r\n", b"00000000000000000000002\r\n{}\r\n0\r\n\r\n",
    b"2;" + b"x" * 9_000 + b"\r\n{}\r\n0\r\n\r\n",
    b"1\r\n{\r\n" * 300 + b"0\r\n\r\n", b"0\r\n" + b"A: b\r\n" * 500 + b"\r\n",
    b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
    b"2\x00\r\n{}\r\n0\r\n\r\n", b"2\r{}\r\n0\r\n\r\n",
)  # fmt: skip
TARGETS = (
    b"http://x/healthz", b"http://127.0.0.1:9/healthz", b"https://evil.example/", b"//evil.example/healthz",
    b"*", b"x:443",
    b"/healthz#x", b"healthz", b"", b"/%", b"/\x00", b"/\xe4\xb8\xad", b"/ healthz", b"http://", b"http:///",
    b"http://[::1",
    b"http://[x]/", b"http://x:99999/", b"file:///etc/passwd", b"/" + b"a" * 2_100, b"/" * 2_000, b"?" * 2_000,
    b"/\\..\\..",
    b"http://a@b:c@d/", b"javascript:alert(1)", b"/\x7f", b"http://\xff/",
)  # fmt: skip
METHODS = (
    b"", b"get", b"GE T", b"G\x00T", b"CONNECT", b"PRI", b"M-SEARCH", b"A" * 40, b"A" * 9_000, b"GET\t",
    b"\xffGET", b"SOURCE",
    b"QUERY", b"HEAD", b"TRACE", b"{}", b"POST/healthz",
)  # fmt: skip
VERSIONS = (
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/9.9", b"HTTP/11", b"HTTP/1",
    b"http/1.1", b"",
    b"HTTP/1.1 x", b"HTTP/-1.1", b"HTTP/1.1\x00", b"ICE/1.0", b"RTSP/1.0", b"HTTP/" + b"1" * 50 + b".1",
)  # fmt: skip
LINES = (
    b"X: a\x00b", b"X: " + b"a" * 8_200, b"X: " + b"a" * 70_000, b"X" * 8_200 + b": a", b": a", b"X", b"X a",
    b" X: a", b"X : a",
    b"X\x00: a", b"X:\r\n a", b"X: a\r b", b"X: a\n\tb", b"\xff: a", b"X: \xff", b"Host: y", b"Host",
    b"Connection: upgrade",
    b"Connection: upgrade\r\nUpgrade: websocket",
    b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
    b"Connection: close, keep-alive", b"Keep-Alive: timeout=99999999999999999999", b"Expect: 100-continue, x",
    b"Expect: 100-continue\r\nContent-Length: 2", b"Expect: \x00", b"Content-Length: 2\r\nContent-Length: 3",
    b"Content-Length: 2\r\nContent-Length: 2", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"A: b\r\n" * 127 + b"Z: z", b"A: b\r\n" * 3_000 + b"Z: z", b"X: " + b"\t" * 500, b"X:" + b" " * 500 + b"y",
)  # fmt: skip
POST = b"POST /auth/demo/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

Made = tuple[Way, tuple[bytes, ...]]


class RawBytes:
    """Makes cases around honest requests of now: whole ones, as they go over the wire."""

    def __init__(self, honest: list[bytes]) -> None:
        self._honest = honest
        self._makers: tuple[Callable[[Random], Made], ...] = (
            self._other_protocol, self._first_line, self._line, self._length, self._coding, self._chunks, self._both,
            self._bare, self._pipeline, self._half, self._flipped, self._expect, self._body_of_another_length,
        )  # fmt: skip

    def any(self, dice: Random) -> Case:
        """One of all kinds."""
        make = dice.choice(self._makers)
        way, packets = make(dice)
        if way is not Way.HALF and dice.random() < 0.15:  # in pieces: parsers keep state between them
            whole = b"".join(packets)
            cut = dice.randrange(1, max(2, len(whole)))
            packets = (whole[:cut], whole[cut:])
        wanted = 400 if make == self._both else 0
        return Case(way=way, name=f"raw{make.__name__}", packets=packets, wanted=wanted)

    def _other_protocol(self, dice: Random) -> Made:
        return Way.HALF, (dice.choice(OTHERS),)

    def _first_line(self, dice: Random) -> Made:
        method = dice.choice(METHODS) if dice.random() < 0.3 else b"GET"
        target = dice.choice(TARGETS) if dice.random() < 0.6 else b"/healthz"
        version = dice.choice(VERSIONS) if dice.random() < 0.4 else b"HTTP/1.1"
        return Way.HALF, (method + b" " + target + b" " + version + b"\r\nHost: x\r\n\r\n",)

    def _line(self, dice: Random) -> Made:
        lines = b"\r\n".join(dice.choices(LINES, k=dice.choice((1, 1, 2))))
        return Way.HALF, (
            b"GET /healthz HTTP/1.1\r\n" + lines + b"\r\n\r\n" + dice.choice((b"", b"{}", HEALTH)),
        )

    def _length(self, dice: Random) -> Made:
        length = dice.choice(LENGTHS).encode()
        return Way.HALF, (
            POST + b"Content-Length: " + length + b"\r\n\r\n" + dice.choice((b"{}", b"", b"{}" + HEALTH)),
        )

    def _coding(self, dice: Random) -> Made:
        coding = dice.choice(CODINGS).encode("latin-1")
        return Way.HALF, (
            POST + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + dice.choice(CHUNKS) + HEALTH,
        )

    def _chunks(self, dice: Random) -> Made:
        chunks = dice.choice(CHUNKS)
        if dice.random() < 0.4:
            chunks = spoil_bytes(dice, chunks)
        return Way.HALF, (POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + HEALTH,)

    def _both(self, dice: Random) -> Made:
        """Two servers in a row must not see two different ends: a length and chunks at once are refused."""
        framing = [b"Content-Length: %d\r\n" % dice.choice((0, 2, 5, 44)), b"Transfer-Encoding: chunked\r\n"]
        dice.shuffle(framing)
        inside = b"GET /my/orders HTTP/1.1\r\nHost: x\r\nX: "
        return Way.RAW, (POST + b"".join(framing) + b"\r\n0\r\n\r\n" + inside,)

    def _bare(self, dice: Random) -> Made:
        raw = dice.choice((HEALTH, POST + b"Content-Length: 2\r\n\r\n{}", dice.choice(self._honest)))
        bare = dice.choice((raw.replace(b"\r\n", b"\n"), raw.replace(b"\r\n", b"\r"), raw.replace(b"\r\n",
        b"\r\r\n"),
                            raw.replace(b"\r\n", b"\n", 1), raw.replace(b"\r\n\r\n", b"\n\n", 1)))  # fmt: skip
        return Way.HALF, (bare,)

    def _pipeline(self, dice: Random) -> Made:
        """Honest ones, garbage, honest ones: what comes before the garbage is answered, and nothing is mixed."""
        pieces: list[bytes] = dice.choices([HEALTH, *self._honest], k=dice.choice((1, 3, 40)))
        pieces.insert(
            dice.randrange(len(pieces) + 1), dice.choice((b"\x00", b"\r\n\r\n", b"GARBAGE\r\n\r\n", *OTHERS))
        )
        return Way.HALF, (b"".join(pieces),)

    def _half(self, dice: Random) -> Made:
        whole = dice.choice((HEALTH, *self._honest))
        return Way.HALF, (whole[: dice.randrange(len(whole))],)

    def _flipped(self, dice: Random) -> Made:
        return Way.HALF, (spoil_bytes(dice, dice.choice((HEALTH, *self._honest))),)

    def _expect(self, dice: Random) -> Made:
        expect = dice.choice((b"100-continue", b"100-Continue", b"200-ok", b"", b"100-continue\r\nExpect: x"))
        body = dice.choice(((), (b"{}",), (b"{",), (b"{}" + HEALTH,)))
        return Way.HALF, (POST + b"Expect: " + expect + b"\r\nContent-Length: 2\r\n\r\n", *body)

    def _body_of_another_length(self, dice: Random) -> Made:
        """Less than was said: the rest never comes. More: it is the next request, and no good one."""
        said = dice.choice((1, 3, 40, 70_000))
        return Way.HALF, (
            POST + b"Content-Length: %d\r\n\r\n" % said + dice.choice((b"{}", b"{}xx", b"x" * 50)),
        )
