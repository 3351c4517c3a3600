"""Answers are read whole, whatever pieces they come in, and what is no answer of ours is an error."""

from __future__ import annotations

import pytest

from bench.answers import CLOSE, PING, TEXT_FRAME, AnswerError, client_frame, read_frames, read_http

BODY = b'{"result":"success","label":"\xe8\xbd\xae\xe6\xb8\xa1","text":"a\\r\\n\\r\\nb"}'
HEAD = b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: %d\r\nServer: x\r\n\r\n" % len(BODY)
WHOLE = HEAD + BODY


def test_an_answer_is_read_at_whatever_byte_it_is_split() -> None:
    for split in range(len(WHOLE)):
        assert read_http(WHOLE[:split]) is None, split

    found = read_http(WHOLE)

    assert found is not None
    assert (found.status, WHOLE[found.body : found.end], found.end) == (200, BODY, len(WHOLE))


def test_only_the_first_of_two_answers_is_read() -> None:
    found = read_http(WHOLE + WHOLE[:40])

    assert found is not None
    assert found.end == len(WHOLE)


@pytest.mark.parametrize("name", [b"content-length", b"CONTENT-LENGTH", b"Content-length"])
@pytest.mark.parametrize("value", [b":3", b": 3", b":  3 "])
def test_the_length_is_found_however_it_is_spelled(name: bytes, value: bytes) -> None:
    found = read_http(b"HTTP/1.1 503 No\r\n" + name + value + b"\r\n\r\nabc")

    assert found is not None
    assert (found.status, found.end) == (503, 17 + len(name) + len(value) + 4 + 3)


def test_a_length_in_the_body_is_not_the_length() -> None:
    body = b"\r\nContent-Length: 999999\r\n"
    found = read_http(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    assert found is not None
    assert found.end - found.body == len(body)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: x3\r\n\r\nabc",
        b"HTTP/2 200",
        b"\x81\x05hello",
    ],
)
def test_what_is_no_answer_of_ours_is_an_error(answer: bytes) -> None:
    with pytest.raises(AnswerError):
        read_http(answer)


def server_frame(payload: bytes, head: int = TEXT_FRAME) -> bytes:
    """As servers send it: not masked."""
    size = len(payload)
    if size < 126:
        return bytes((head, size)) + payload
    if size < 1 << 16:
        return bytes((head, 126)) + size.to_bytes(2, "big") + payload
    return bytes((head, 127)) + size.to_bytes(8, "big") + payload


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536])
def test_frames_of_every_kind_of_length_are_read_at_whatever_byte_they_are_split(size: int) -> None:
    first, second = server_frame(b"x" * size), server_frame(b"ping", PING)
    both = first + second
    for split in {*range(min(len(first), 300)), len(first) - 1}:
        assert list(read_frames(both[:split])) == []
    for split in range(len(first), len(both)):
        assert [frame.end for frame in read_frames(both[:split])] == [len(first)]

    frames = list(read_frames(both))

    assert [frame.head for frame in frames] == [TEXT_FRAME, PING]
    assert [both[frame.payload : frame.end] for frame in frames] == [b"x" * size, b"ping"]


def test_a_masked_frame_from_a_server_is_an_error() -> None:
    with pytest.raises(AnswerError):
        list(read_frames(client_frame(b"hello")))


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_client_frame_is_masked_with_nought(size: int) -> None:
    frame = client_frame(b"y" * size, head=CLOSE)
    unmasked = server_frame(b"y" * size, CLOSE)
    length_end = len(unmasked) - size

    assert frame[0] == CLOSE
    assert frame[1] == unmasked[1] | 0x80
    assert frame[2:length_end] == unmasked[2:length_end]
    assert frame[length_end:] == b"\0\0\0\0" + b"y" * size
