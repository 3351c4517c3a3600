"""Scans as they come in, garbled: the quick way of reading them says what the strict way says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.domain.errors import ErrorCode, Refusal
from server.web import scanning
from server.web.body import decode_by
from server.web.scanning import ScanRequest, read_scan
from server.web.stream import _framed, _named

QUICK = settings(deadline=None, database=None, max_examples=300)
_strictly = msgspec.json.Decoder(ScanRequest).decode

TEXT = st.one_of(
    st.sampled_from(
        ["bus", "ferry", "pier-1", "gate-7", "", "a" * 33, "a" * 65, "bus\n", "x y", "é", "x" * 513]
    ),
    st.text(max_size=12),
)
VALUE = st.one_of(
    TEXT, TEXT, TEXT, st.none(), st.booleans(), st.integers(-9, 9), st.lists(TEXT, max_size=2), st.just({})
)
SCAN = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("qr_token", "function_code", "scan_id", "venue_code", "terminal_device_id", "of_tomorrow"), VALUE
    ),
)
GOOD = {"qr_token": "x", "function_code": "bus", "scan_id": "s-1", "venue_code": "pier-1"}


def outcome(read: Any, body: bytes) -> Any:
    try:
        return decode_by(read, body)
    except Refusal as refusal:
        return refusal.code


@pytest.fixture(autouse=True)
def _nothing_known() -> None:
    scanning._known_places.clear()


@QUICK
@given(st.lists(st.one_of(SCAN, st.builds(lambda some: GOOD | some, SCAN)), min_size=1, max_size=5))
def test_a_scan_is_read_alike_whatever_places_are_known_by_then(scans: list[dict[str, Any]]) -> None:
    """The places of one example are known to the next one: nothing may be let in by what came before."""
    for scan in (*scans, *scans):
        body = msgspec.json.encode(scan)
        assert outcome(read_scan, body) == outcome(_strictly, body)


GARBLED = st.builds(
    lambda body, place, junk: body[: place % len(body)] + junk + body[place % len(body) + len(junk) // 2 :],
    st.just(msgspec.json.encode(GOOD)),
    st.integers(0, 200),
    st.one_of(
        st.binary(max_size=6),
        st.sampled_from(
            [
                b"\xff",
                b"\xed\xa0\x80",
                b'\\ud800"',
                b"[" * 2_000,
                b"NaN",
                b"1e999",
                b"\x00",
                b'","qr_token":"y',
            ]
        ),
    ),
)


@QUICK
@given(st.one_of(GARBLED, st.binary(max_size=60)))
@example(b'{"scan_id":' + b"[" * 3_000)
@example(b'{"scan_id":"s","odd":' + b"[" * 3_000)
def test_garbled_bytes_are_read_alike_and_end_in_a_refusal(body: bytes) -> None:
    told, strict = outcome(read_scan, body), outcome(_strictly, body)
    refused = (ErrorCode.INVALID_JSON, ErrorCode.VALIDATION_FAILED)  # of both, which is seen first may differ
    assert told == strict or (told in refused and strict in refused)
    assert isinstance(told, ScanRequest) or told in refused
    named = _named(body)
    assert named is None or 1 <= len(named) <= 64


@QUICK
@given(st.integers(0, 0xFFFF))
@example(125)
@example(126)
@example(127)
def test_an_answer_of_any_length_is_one_text_frame(length: int) -> None:
    framed = _framed(b"a" * length)
    assert framed[0] == 0x81 and not framed[1] & 0x80  # text, whole, not masked
    short = framed[1]
    told, head = (int.from_bytes(framed[2:4], "big"), 4) if short == 126 else (short, 2)
    assert short <= 126 and told == length == len(framed) - head
