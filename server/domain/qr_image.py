"""Draws QR codes as data URIs: pure functions from text to a picture."""

import base64
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import segno

# The quiet zone of ISO/IEC 18004, in modules.
_BORDER: Final = 4
# A version 4 code is 33 modules wide, 41 with its border: 328 pixels at 8 pixels a module, which no phone has
# to scale up to show the code 4 cm wide. And 8 one-bit pixels are one byte: a module is a byte, nothing is
# shifted.
_PNG_SCALE: Final = 8
# All masks read equally well here, since sealed bytes are as good as random; see draw_svg.
_TOKEN_MASK: Final = 0
# Longer than any payment URL (WeChat's code_url is at most 512 characters, most providers' are under 200).
_TEXT_CHARS_MAX: Final = 512

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_DARK_RUN: Final = re.compile(b"\x01+")
_TO_PIXELS: Final = bytes.maketrans(b"\x00\x01", b"\xff\x00")
# Strokes are spelled in characters that may stand in a URI as they are (RFC 3986, 3.3), so that only what is
# around them is percent-encoded, once.
_SVG_HEAD: Final = "data:image/svg+xml," + quote(
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {side} {side}' shape-rendering='crispEdges'>"
    "<path fill='#fff' d='M0,0h{side}v{side}H0z'/><path stroke='#000' d='",
    safe="/=:,'{}",
)
_SVG_TAIL: Final = quote("'/></svg>", safe="/='")

_Matrix = Sequence[bytes | bytearray]


def draw_svg(token: str) -> str:
    """Draw a QR token as a ``data:image/svg+xml`` URI: version 4, error correction M, border of 4 modules.

    ValueError if the text does not fit version 4 (90 characters) or leaves the alphanumeric alphabet.
    """
    return _svg(_token_matrix(token))


def draw_png(token: str) -> str:
    """Draw a QR token as a ``data:image/png;base64`` URI: as :func:`draw_svg`, 8 pixels a module, 328 wide.

    ValueError as there.
    """
    return "data:image/png;base64," + base64.b64encode(_png(_token_matrix(token))).decode("ascii")


def draw_text_svg(text: str) -> str:
    """Draw any text, such as a payment URL, as a ``data:image/svg+xml`` URI: error correction M, any version.

    Here segno chooses the mask: texts repeat themselves, and a bad mask could show. ValueError if the text is
    empty or longer than 512 characters.
    """
    if not 1 <= len(text) <= _TEXT_CHARS_MAX:
        raise ValueError(f"a text to draw has from 1 to {_TEXT_CHARS_MAX} characters, not {len(text)}")
    return _svg(segno.make(text, error="m", boost_error=False, micro=False).matrix)


def _token_matrix(token: str) -> _Matrix:
    """Encode a token: rows of bytes, 1 for a dark module."""
    return segno.make(
        token, version=4, error="m", mode="alphanumeric", mask=_TOKEN_MASK, boost_error=False, micro=False
    ).matrix


def _svg(matrix: _Matrix) -> str:
    """Write a matrix as one path of strokes, a stroke for each run of dark modules in a row."""
    side = len(matrix) + 2 * _BORDER
    strokes = []
    for y, row in enumerate(matrix, _BORDER):
        pen = -_BORDER
        strokes.append(f"M0,{y}.5")
        for run in _DARK_RUN.finditer(row):
            strokes.append(f"m{run.start() - pen},0h{run.end() - run.start()}")
            pen = run.end()
    return _SVG_HEAD.format(side=side) + "".join(strokes) + _SVG_TAIL


def _png(matrix: _Matrix) -> bytes:
    """Write a matrix as a PNG of one bit a pixel (ISO/IEC 15948: grey, not interlaced, no filter)."""
    side = (len(matrix) + 2 * _BORDER) * _PNG_SCALE
    margin = b"\xff" * _BORDER
    blank = (b"\x00" + b"\xff" * (side // 8)) * (_BORDER * _PNG_SCALE)
    lines = [blank]
    lines += [(b"\x00" + margin + row.translate(_TO_PIXELS) + margin) * _PNG_SCALE for row in matrix]
    lines.append(blank)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    # Level 1: the default level takes four times as long to save 300 of 600 bytes.
    data = zlib.compress(b"".join(lines), 1)
    return _PNG_SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    """Frame a PNG chunk: length, kind, data, CRC-32 over kind and data."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
