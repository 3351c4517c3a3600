"""Pictures of QR codes, read back by a decoder that shares no code with the encoder."""

import base64
import io
import random
import re
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import segno
import zxingcpp
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from server.domain.qr import QrKeys, issue
from server.domain.qr_image import draw_png, draw_svg, draw_text_svg

KEYS = QrKeys({1: bytes(range(32))})
TOKEN = issue(KEYS, "0123456789ABCDEF", now_ms=1_750_000_000_000, ttl_ms=60_000, entropy=bytes(20)).token
SVG = "{http://www.w3.org/2000/svg}"


def tokens(count: int) -> list[str]:
    """Tokens that look random, and are the same in every run."""
    seeded = random.Random(20_250)  # noqa: S311
    return [
        issue(
            KEYS,
            "".join(seeded.choices("0123456789ABCDEFGHJKMNPQRSTVWXYZ", k=16)),
            now_ms=seeded.randrange(1_700_000_000_000, 1_900_000_000_000),
            ttl_ms=60_000,
            entropy=seeded.randbytes(20),
        ).token
        for _ in range(count)
    ]


def png_image(uri: str) -> Image.Image:
    start = "data:image/png;base64,"
    assert uri.startswith(start)
    data = base64.b64decode(uri.removeprefix(start), validate=True)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.format == "PNG"
        return image.convert("L")


def svg_image(uri: str, pixels_per_module: int = 4) -> Image.Image:
    """Rasterise the drawing's own dialect: a white square, and horizontal strokes by M, m and h."""
    start = "data:image/svg+xml,"
    assert uri.startswith(start)
    assert re.fullmatch(r"[A-Za-z0-9\-._~:/@!$&'()*+,;=%]+", uri.removeprefix(start)), "not a URI (RFC 3986)"
    root = ElementTree.fromstring(unquote(uri.removeprefix(start)))  # noqa: S314
    assert root.tag == f"{SVG}svg"
    ground, ink = root.findall(f"{SVG}path")
    side = int(root.attrib["viewBox"].removeprefix("0 0 ").split()[0])
    assert root.attrib["viewBox"] == f"0 0 {side} {side}"
    assert ground.attrib == {"fill": "#fff", "d": f"M0,0h{side}v{side}H0z"}
    assert set(ink.attrib) == {"stroke", "d"}
    assert ink.attrib["stroke"] == "#000"
    assert re.fullmatch(r"(M\d+,\d+\.5|m\d+,0|h\d+)+", ink.attrib["d"])
    image = Image.new("L", (side * pixels_per_module,) * 2, 255)
    x = top = 0
    for left, down, skip, length in re.findall(r"M(\d+),(\d+)|m(\d+)|h(\d+)", ink.attrib["d"]):
        if left:
            x, top = int(left) * pixels_per_module, int(down) * pixels_per_module
        elif skip:
            x += int(skip) * pixels_per_module
        else:
            right = x + int(length) * pixels_per_module
            assert right <= image.width
            assert top + pixels_per_module <= image.height
            image.paste(0, (x, top, right, top + pixels_per_module))
            x = right
    return image


def decoded(image: Image.Image) -> zxingcpp.Barcode:
    (found,) = zxingcpp.read_barcodes(image)
    assert found.format == zxingcpp.BarcodeFormat.QRCode
    return found


def modules(image: Image.Image, pixels_per_module: int) -> list[str]:
    """The picture's modules, row by row, from the middle of each."""
    middles = range(pixels_per_module // 2, image.width, pixels_per_module)
    return ["".join(".#"[image.getpixel((x, y)) == 0] for x in middles) for y in middles]


def test_a_png_of_every_token_is_read_back() -> None:
    for token in tokens(500):
        assert decoded(png_image(draw_png(token))).text == token


def test_an_svg_of_every_token_is_read_back() -> None:
    for token in tokens(500):
        assert decoded(svg_image(draw_svg(token))).text == token


@settings(deadline=None, max_examples=50)
@given(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", min_size=87, max_size=87))
def test_a_token_that_is_not_at_all_random_is_read_back(text: str) -> None:
    assert decoded(png_image(draw_png(text))).text == text


def test_a_png_and_an_svg_show_the_same_modules() -> None:
    for token in tokens(20):
        assert modules(png_image(draw_png(token)), 8) == modules(svg_image(draw_svg(token)), 4)


def test_a_token_has_the_very_modules_that_segno_gives_it() -> None:
    alike = ["A" * 87, "7" * 87, "Z" * 86 + "2", "A2" * 43 + "Q"]
    for token in [*tokens(100), *alike]:
        code = segno.make(
            token, version=4, error="m", mode="alphanumeric", mask=0, boost_error=False, micro=False
        )
        rows = modules(svg_image(draw_svg(token)), 4)[4:-4]
        assert [row[4:-4] for row in rows] == ["".join(".#"[dark] for dark in row) for row in code.matrix]


def test_a_token_is_drawn_as_version_4_at_error_correction_m() -> None:
    image = svg_image(draw_svg(TOKEN))
    assert decoded(image).ec_level == "M"
    assert image.width == (33 + 2 * 4) * 4  # version 4 is 33 modules wide


def test_a_png_has_eight_pixels_a_module_and_nothing_between_black_and_white() -> None:
    image = png_image(draw_png(TOKEN))
    assert image.size == (328, 328)
    assert set(image.tobytes()) == {0, 255}


def test_the_quiet_zone_is_four_white_modules_on_every_side() -> None:
    rows = modules(png_image(draw_png(TOKEN)), 8)
    finder = "#######"
    assert rows[:4] == rows[-4:] == ["." * 41] * 4
    assert all(row.startswith("....") and row.endswith("....") for row in rows)
    assert rows[4].startswith(f"....{finder}.")
    assert rows[4].endswith(f".{finder}....")
    assert rows[36].startswith(f"....{finder}.")


@pytest.mark.parametrize(
    "text",
    [
        "weixin://wxpay/bizpayurl?pr=8nJ2kQAzz",
        "https://pay.example/cashier?order=01ARZ3NDEKTSV4RRFFQ69G5FAV&sign=" + "Ab0-_%" * 30,
        "https://pay.example/票?a='\"<>&#b",
        "0123456789",
        "A",
        "x" * 512,
    ],
)
def test_a_text_of_any_length_is_read_back(text: str) -> None:
    found = decoded(svg_image(draw_text_svg(text)))
    assert found.text == text
    assert found.ec_level == "M"


@pytest.mark.parametrize("length", [0, 513])
def test_a_text_of_no_length_or_too_long_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 512 characters"):
        draw_text_svg("x" * length)


@pytest.mark.parametrize(
    "text",
    ["", "A" * 86, "A" * 88, "a" * 87, "1" + "A" * 86, "A" * 86 + "1", "A" * 86 + " ", "\u7968" * 87],
)
def test_what_cannot_be_a_token_is_not_drawn_as_one(text: str) -> None:
    with pytest.raises(ValueError, match="a token is 87 characters of base32"):
        draw_svg(text)
    with pytest.raises(ValueError, match="a token is 87 characters of base32"):
        draw_png(text)
