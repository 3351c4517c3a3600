"""Reading requests: bounded, of the right type, decoded straight into a struct."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec
from aiohttp import hdrs, web

from server.domain.errors import ErrorCode, Refusal
from server.domain.ids import CROCKFORD, ORDER_ID_CHARS, TICKET_CODE_CHARS
from server.limits import BODY_BYTES_MAX, BODY_READ_S_MAX

T = TypeVar("T")
Time = Annotated[datetime, msgspec.Meta(tz=True)]  # RFC 3339 with an offset; ours end with Z
_ORDER_ID = re.compile(f"[{CROCKFORD}]{{{ORDER_ID_CHARS}}}")
_TICKET_CODE = re.compile(f"[{CROCKFORD}]{{{TICKET_CODE_CHARS}}}")
_INTEGER_DIGITS_MAX: Final = 18  # fits 64 bits
_TOLD_CHARS_MAX: Final = 160  # of a message that repeats what the caller sent

# Made once per struct, and reused.
_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}
_integers: dict[type[Any], frozenset[str]] = {}


async def read_bytes(request: web.Request, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """The whole body.

    Raises Refusal: BAD_REQUEST when it is cut off or not encoded as its headers say, REQUEST_TIMEOUT when it does not
    come within 10 s, BODY_TOO_LARGE past `bytes_max`.
    """
    if request.client_max_size != bytes_max:
        request = request.clone(client_max_size=bytes_max)
    try:
        if request.content.is_eof():  # it came with the head, as nearly always: no timer is needed
            return await request.read()
        async with asyncio.timeout(BODY_READ_S_MAX):
            return await request.read()
    except TimeoutError as fault:
        raise Refusal(ErrorCode.REQUEST_TIMEOUT) from fault
    except web.HTTPRequestEntityTooLarge as fault:
        message = f"The body is larger than {bytes_max // 1024} KiB."
        raise Refusal(ErrorCode.BODY_TOO_LARGE, message) from fault
    except (web.RequestPayloadError, OSError) as fault:
        raise Refusal(ErrorCode.BAD_REQUEST) from fault
    except RuntimeError as fault:  # what aiohttp raises when the client has gone before its body is asked for
        if request.transport is not None:
            raise
        raise Refusal(ErrorCode.BAD_REQUEST) from fault


async def read_json(
    request: web.Request, struct: type[T], *, required: bool = True, bytes_max: int = BODY_BYTES_MAX
) -> T:
    """The body as `struct`; an absent body is `{}` when it is not required.

    Raises Refusal: UNSUPPORTED_MEDIA_TYPE, INVALID_JSON, VALIDATION_FAILED (naming the field), and as `read_bytes`.
    """
    raw = await read_bytes(request, bytes_max)
    if not raw and not required:
        raw = b"{}"
    elif request.content_type != "application/json" or hdrs.CONTENT_ENCODING in request.headers:
        raise Refusal(ErrorCode.UNSUPPORTED_MEDIA_TYPE)
    return decode(raw, struct)


def decode(raw: bytes, struct: type[T]) -> T:
    """JSON bytes as `struct`. Raises Refusal: INVALID_JSON, VALIDATION_FAILED."""
    decoder = _decoders.get(struct)
    if decoder is None:
        decoder = _decoders[struct] = msgspec.json.Decoder(struct)
    value: T = decode_by(decoder.decode, raw)
    return value


def decode_by(decoder: Callable[[bytes], T], raw: bytes) -> T:
    """JSON bytes as `decoder` reads them. Raises Refusal: INVALID_JSON, VALIDATION_FAILED."""
    try:
        return decoder(raw)
    except msgspec.ValidationError as fault:
        raise _invalid(str(fault)) from fault
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise Refusal(ErrorCode.INVALID_JSON) from fault


def read_query(request: web.Request, struct: type[T]) -> T:
    """The query string as `struct`, each value from its text. Raises Refusal(VALIDATION_FAILED).

    A name given twice is refused rather than one of its values taken silently.
    """
    given: dict[str, str | int] = {}
    integers = _integers_of(struct)
    for name, value in request.query.items():
        if name in given:
            raise _invalid(f"Given more than once: `{name}`")
        number = (
            name in integers and value.isascii() and value.isdigit() and len(value) <= _INTEGER_DIGITS_MAX
        )
        given[name] = int(value) if number else value
    try:
        # Strict: the lax mode would also take "null" for no value, and "1700000000" for a time.
        return msgspec.convert(given, struct)
    except msgspec.ValidationError as fault:
        raise _invalid(str(fault)) from fault


def _invalid(message: str) -> Refusal:
    """It begins with what is wrong and ends with where; a long value between them is not repeated at length."""
    if len(message) > _TOLD_CHARS_MAX:
        half = _TOLD_CHARS_MAX // 2
        message = f"{message[:half]} … {message[-half:]}"
    return Refusal(ErrorCode.VALIDATION_FAILED, message)


def _integers_of(struct: type[Any]) -> frozenset[str]:
    """The names of the struct's integer fields."""
    names = _integers.get(struct)
    if names is not None:
        return names
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)  # noqa: S101  (a query is a struct: see the route table)
    names = _integers[struct] = frozenset(
        field.encode_name for field in info.fields if isinstance(field.type, msgspec.inspect.IntType)
    )
    return names


def order_id(request: web.Request) -> str:
    """The order id of the path. Raises Refusal(ORDER_NOT_FOUND) for what cannot be one."""
    given = request.match_info["order_id"]
    if not _ORDER_ID.fullmatch(given):
        raise Refusal(ErrorCode.ORDER_NOT_FOUND)
    return given


def ticket_code(request: web.Request) -> str:
    """The ticket code of the path. Raises Refusal(TICKET_NOT_FOUND) for what cannot be one."""
    given = request.match_info["code"]
    if not _TICKET_CODE.fullmatch(given):
        raise Refusal(ErrorCode.TICKET_NOT_FOUND)
    return given
