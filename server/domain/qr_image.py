"""Draws QR codes as data URIs: pure functions from text to a picture.

Each open ticket is drawn anew every minute, on the event loop that also answers scans, so the time matters.
Ratios of one run of `python -m bench.qr_drawing`:

    draw_svg                                       1
    draw_png                                       0.9
    segno, version and mask fixed, as SVG URI     24
    segno, version and mask fixed, as PNG URI     52
    segno's defaults, as SVG URI                  79  (segno tries and weighs eight masks)

So a token, whose version, mask and length are fixed, is encoded here, by tables: see `_token_rows`. It would
be wrong to keep if tokens came in several lengths. Other texts are drawn seldom, and segno encodes them.
"""

import base64
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Final
from urllib.parse import quote

import segno

from server.domain.qr import TOKEN_CHARS

# The quiet zone of ISO/IEC 18004, in modules.
_BORDER: Final = 4
# With its border a token is 41 modules wide: 328 pixels at 8 pixels a module, which no phone has to scale up
# to show the code 4 cm wide. And 8 one-bit pixels are one byte: a module is a byte, nothing is shifted.
_PNG_SCALE: Final = 8
# Longer than any payment URL (WeChat's code_url is at most 512 characters, most providers' are under 200).
_TEXT_CHARS_MAX: Final = 512

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_TO_PIXELS: Final = bytes.maketrans(b"01", b"\xff\x00")
# Strokes are spelled in characters that may stand in a URI as they are (RFC 3986, 3.3), so that only what is
# around them is percent-encoded, once.
_SVG_HEAD: Final = "data:image/svg+xml," + quote(
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {side} {side}' shape-rendering='crispEdges'>"
    "<path fill='#fff' d='M0,0h{side}v{side}H0z'/><path stroke='#000' d='",
    safe="/=:,'{}",
)
_SVG_TAIL: Final = quote("'/></svg>", safe="/='")
# A third of a token's row. Longer pieces make fewer look-ups, shorter ones a smaller cache: this one holds
# 2048 for tokens, and no more than 2046 shorter ones for the ends of texts' rows.
_PIECE: Final = 11


def draw_svg(token: str) -> str:
    """Draw a QR token as a ``data:image/svg+xml`` URI: version 4, error correction M, border 4 modules.

    ValueError if the text is not 87 characters of base32. Whether a key sealed it is not asked.
    """
    return _svg(_token_rows(token))


def draw_png(token: str) -> str:
    """Draw a QR token as a ``data:image/png;base64`` URI: as :func:`draw_svg`, 8 pixels a module, 328 wide.

    ValueError as there.
    """
    return "data:image/png;base64," + base64.b64encode(_png(_token_rows(token))).decode("ascii")


def draw_text_svg(text: str) -> str:
    """Draw any text, such as a payment URL, as a ``data:image/svg+xml`` URI: error correction M, any version.

    Here the mask is chosen by its penalty: texts repeat themselves, and a bad mask could show. ValueError if
    the text is empty or longer than 512 characters.
    """
    if not 1 <= len(text) <= _TEXT_CHARS_MAX:
        raise ValueError(f"a text to draw has from 1 to {_TEXT_CHARS_MAX} characters, not {len(text)}")
    matrix = segno.make(text, error="m", boost_error=False, micro=False).matrix
    return _svg(["".join(map(str, row)) for row in matrix])


# --- Rows ("1" for a dark module) to a picture ---


def _svg(rows: Sequence[str]) -> str:
    """Write rows as one path of strokes, a stroke or more for each run of dark modules."""
    strokes = []
    for y, row in enumerate(rows, _BORDER):
        strokes.append(f"M{_BORDER},{y}.5")
        strokes += [_strokes(row[x : x + _PIECE]) for x in range(0, len(row), _PIECE)]
    return _SVG_HEAD.format(side=len(rows) + 2 * _BORDER) + "".join(strokes) + _SVG_TAIL


@cache
def _strokes(piece: str) -> str:
    """Spell a piece of a row as strokes, and leave the pen at its end."""
    runs = piece.replace("01", "0 1").replace("10", "1 0").split()
    return "".join(f"h{len(run)}" if run[0] == "1" else f"m{len(run)},0" for run in runs)


def _png(rows: Sequence[str]) -> bytes:
    """Write rows as a PNG of one bit a pixel (ISO/IEC 15948: grey, not interlaced, no filter)."""
    side = (len(rows) + 2 * _BORDER) * _PNG_SCALE
    margin = b"\xff" * _BORDER
    blank = (b"\x00" + b"\xff" * (side // 8)) * (_BORDER * _PNG_SCALE)
    lines = [blank]
    lines += [(b"\x00" + margin + row.encode().translate(_TO_PIXELS) + margin) * _PNG_SCALE for row in rows]
    lines.append(blank)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    # Level 1: the default level takes four times as long to save 300 of 600 bytes.
    data = zlib.compress(b"".join(lines), 1)
    return _PNG_SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    """Frame a PNG chunk: length, kind, data, CRC-32 over kind and data."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# --- A token to rows ---
#
# With version, level, mask and length fixed, each module of a QR code is a sum (exclusive or) of bits of the
# data and a constant: Reed-Solomon is linear, placing moves bits, masking and the patterns are the constant.
# So what each byte of data adds to the code is a table of 256 whole codes, as integers of 33 * 33 bits, made
# once, and a token is 64 look-ups. The constant comes from one code that segno makes; tests hold the sum to
# segno's codes. All figures are those of ISO/IEC 18004 for version 4, level M.

_SIDE: Final = 33
_MODULES: Final = _SIDE * _SIDE
_BLOCKS: Final = 2
_BLOCK_DATA_BYTES: Final = 32
_BLOCK_ECC_BYTES: Final = 18
# Any mask will do, since sealed bytes are as good as random: 3000 tokens, drawn clean, were all read by
# zxing-cpp with each mask; turned, blurred, scratched and made noisy, 38 to 39 in a hundred were, with each
# fixed mask as with the one of least penalty.
_MASK: Final = 0
# The alphanumeric mode counts 0 to 9 and A to Z as base 36 does; of its 45 characters the rest is not used.
_VALUES: Final = {character: int(character, 36) for character in "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"}
_PAIRS: Final = {high + low: 45 * _VALUES[high] + _VALUES[low] for high in _VALUES for low in _VALUES}


def _token_rows(token: str) -> list[str]:
    """Encode a token: the same modules as segno makes for version 4, level M, mask 0, alphanumeric mode."""
    code = _CONSTANT
    for table, byte in zip(_TABLES, _token_data(token), strict=True):
        code ^= table[byte]
    bits = f"{code:0{_MODULES}b}"
    return [bits[start : start + _SIDE] for start in range(0, _MODULES, _SIDE)]


def _token_data(token: str) -> bytes:
    """Write a token's characters where they stand in the code's 64 data bytes.

    The rest of the bytes (mode, length, padding) is alike in all tokens, so it is left to the constant.
    """
    if len(token) != TOKEN_CHARS:
        raise ValueError(f"a token is {TOKEN_CHARS} characters of base32, not {len(token)}")
    bits = 0
    try:
        for place in range(0, TOKEN_CHARS - 1, 2):
            bits = bits << 11 | _PAIRS[token[place : place + 2]]
        bits = bits << 6 | _VALUES[token[-1]]
    except KeyError:
        raise ValueError(f"a token is {TOKEN_CHARS} characters of base32") from None
    # After the text come four bits that end it, and two bytes of padding.
    return (bits << 20).to_bytes(_BLOCKS * _BLOCK_DATA_BYTES, "big")


def _times(left: int, right: int) -> int:
    """Multiply in the code's field: polynomials over GF(2) modulo x^8 + x^4 + x^3 + x^2 + 1."""
    product = 0
    while right:
        product ^= left * (right & 1)
        left = left << 1 ^ (0x11D if left & 0x80 else 0)
        right >>= 1
    return product


def _generator() -> list[int]:
    """Multiply out the generator, (x - 2^0) ... (x - 2^17); its coefficients, without the leading 1."""
    coefficients, root = [1], 1
    for _ in range(_BLOCK_ECC_BYTES):
        coefficients = [
            a ^ _times(b, root) for a, b in zip([*coefficients, 0], [0, *coefficients], strict=True)
        ]
        root = _times(root, 2)
    return coefficients[1:]


def _places() -> list[list[int]]:
    """List where each of the 100 codewords' bits stands, highest bit first, as powers of two in the code.

    The path goes in columns of two from the right, up and down by turns, and leaves out the timing column.
    """
    path = []
    for turn, right in enumerate((*range(_SIDE - 1, 7, -2), 5, 3, 1)):
        for y in range(_SIDE) if turn % 2 else reversed(range(_SIDE)):
            path += [1 << (_MODULES - 1 - _SIDE * y - x) for x in (right, right - 1) if not _is_pattern(x, y)]
    # Seven modules remain, and stay as the constant has them.
    return [path[start : start + 8] for start in range(0, len(path) - 7, 8)]


def _is_pattern(x: int, y: int) -> bool:
    """Say whether a module belongs to a finder (with its format bits), to the timing or to the alignment."""
    finder = (x < 9 and (y < 9 or y >= _SIDE - 8)) or (x >= _SIDE - 8 and y < 9)
    return finder or 6 in (x, y) or (24 <= x <= 28 and 24 <= y <= 28)


def _tables() -> list[list[int]]:
    """Make, for each of the 64 data bytes, the 256 codes that its values add."""
    generator, places = _generator(), _places()
    data_places, ecc_places = places[: _BLOCKS * _BLOCK_DATA_BYTES], places[_BLOCKS * _BLOCK_DATA_BYTES :]

    def placed(value: int, place: list[int]) -> int:
        return sum(module for bit, module in enumerate(place) if value << bit & 0x80)

    tables = [[0] for _ in data_places]
    for bit in range(8):
        # The remainder of the last byte of a block; each byte before it is x times as high.
        ecc = [_times(1 << bit, coefficient) for coefficient in generator]
        for index in reversed(range(_BLOCK_DATA_BYTES)):
            for block in range(_BLOCKS):
                # Codewords of the blocks take turns, in the data and in the error correction.
                adds = placed(1 << bit, data_places[_BLOCKS * index + block])
                adds ^= sum(map(placed, ecc, ecc_places[block::_BLOCKS]))
                table = tables[_BLOCK_DATA_BYTES * block + index]
                table += [code ^ adds for code in table]
            carry = ecc[0]
            ecc = [
                a ^ _times(carry, coefficient)
                for a, coefficient in zip([*ecc[1:], 0], generator, strict=True)
            ]
    return tables


def _constant() -> int:
    """Take from a code of segno's what its own data adds."""
    token = "A" * TOKEN_CHARS
    matrix = segno.make(
        token, version=4, error="m", mode="alphanumeric", mask=_MASK, boost_error=False, micro=False
    ).matrix
    code = int("".join(str(module) for row in matrix for module in row), 2)
    for table, byte in zip(_TABLES, _token_data(token), strict=True):
        code ^= table[byte]
    return code


_TABLES: Final = _tables()
_CONSTANT: Final = _constant()
