"""Ticket codes and order ids: one spelling each, and bytes that come back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.ids import (
    CROCKFORD,
    is_ticket_code,
    new_order_id,
    new_ticket_code,
    pack_ticket_code,
    unpack_ticket_code,
)

TEN_BYTES = st.binary(min_size=10, max_size=10)
CODES = st.text(alphabet=CROCKFORD, min_size=16, max_size=16)


def value_of(text: str) -> int:
    """Crockford's base32, read digit by digit: the slow way, to hold the fast one to."""
    number = 0
    for character in text:
        number = number * 32 + "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(character)
    return number


@settings(deadline=None)
@given(CODES)
def test_a_ticket_code_packs_into_ten_bytes_and_comes_back(code: str) -> None:
    packed = pack_ticket_code(code)
    assert packed == value_of(code).to_bytes(10, "big")
    assert unpack_ticket_code(packed) == code
    assert is_ticket_code(code)


@settings(deadline=None)
@given(TEN_BYTES)
def test_any_ten_bytes_are_a_ticket_code(packed: bytes) -> None:
    code = new_ticket_code(packed)
    assert len(code) == 16
    assert value_of(code) == int.from_bytes(packed, "big")
    assert pack_ticket_code(code) == packed


def test_the_ends_of_the_range_are_spelled_in_full() -> None:
    assert unpack_ticket_code(bytes(10)) == "0" * 16
    assert unpack_ticket_code(b"\xff" * 10) == "Z" * 16


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 15,
        "0" * 17,
        "0" * 15 + "I",
        "0" * 15 + "L",
        "0" * 15 + "O",
        "0" * 15 + "U",
        "0" * 15 + "a",
        "0" * 15 + " ",
        " " + "0" * 15,
        "0" * 15 + "\n",
        "+" + "0" * 15,
        "-" + "0" * 15,
        "0_" * 8,
        "00000000_0000000",
        "0B00000000000000"[:15] + "=",
        "0" * 15 + "\x00",
        "0" * 15 + "\u0660",  # a digit to int(), in Arabic
        "0" * 15 + "\uff10",  # and full-width
        "0" * 15 + "\ud800",
    ],
)
def test_what_is_not_spelled_as_a_ticket_code_is_refused(text: str) -> None:
    assert not is_ticket_code(text)
    with pytest.raises(ValueError, match="a ticket code is 16 characters"):
        pack_ticket_code(text)


@settings(deadline=None)
@given(st.text(max_size=20) | st.text(min_size=16, max_size=16))
def test_no_text_makes_the_check_of_a_ticket_code_raise(text: str) -> None:
    assert is_ticket_code(text) == (len(text) == 16 and set(text) <= set(CROCKFORD))


@pytest.mark.parametrize("length", [0, 9, 11])
def test_a_ticket_code_is_made_of_ten_bytes_and_no_other_number(length: int) -> None:
    with pytest.raises(ValueError, match="10 bytes"):
        unpack_ticket_code(bytes(length))
    with pytest.raises(ValueError, match="10 bytes"):
        new_ticket_code(bytes(length))


def test_new_ticket_codes_differ() -> None:
    assert len({new_ticket_code() for _ in range(1000)}) == 1000


def test_an_order_id_spells_its_time_as_a_ulid_does() -> None:
    # The time 1469918176385 is spelled 01ARYZ6S41 in the tests of the ULID's first implementation.
    order_id = new_order_id(1469918176385, bytes(10))
    assert order_id == "01ARYZ6S41" + "0" * 16


@settings(deadline=None)
@given(st.integers(0, 2**48 - 1), TEN_BYTES)
def test_an_order_id_holds_its_time_and_its_random_bytes(now_ms: int, entropy: bytes) -> None:
    order_id = new_order_id(now_ms, entropy)
    assert len(order_id) == 26
    assert value_of(order_id[:10]) == now_ms
    assert value_of(order_id[10:]) == int.from_bytes(entropy, "big")


@settings(deadline=None)
@given(st.integers(0, 2**48 - 2), TEN_BYTES, TEN_BYTES)
def test_order_ids_sort_by_the_time_they_were_made(now_ms: int, first: bytes, second: bytes) -> None:
    assert new_order_id(now_ms, first) < new_order_id(now_ms + 1, second)


def test_an_order_id_is_made_now_and_differs_from_the_next() -> None:
    ids = {new_order_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert min(ids) > new_order_id(1_700_000_000_000, b"\xff" * 10)


@pytest.mark.parametrize("now_ms", [-1, 2**48])
def test_an_order_id_refuses_a_time_that_does_not_fit(now_ms: int) -> None:
    with pytest.raises(ValueError, match="now_ms"):
        new_order_id(now_ms, bytes(10))


@pytest.mark.parametrize("length", [0, 9, 11])
def test_an_order_id_refuses_other_than_ten_random_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="10 random bytes"):
        new_order_id(0, bytes(length))
