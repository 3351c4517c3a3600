"""Reading requests: bounded, of the right type, decoded straight into a struct."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from server.domain.errors import ErrorCode, Refusal
from server.domain.ids import CROCKFORD, ORDER_ID_CHARS, TICKET_CODE_CHARS

T = TypeVar("T")
_ORDER_ID = re.compile(f"[{CROCKFORD}]{{{ORDER_ID_CHARS}}}")
_TICKET_CODE = re.compile(f"[{CROCKFORD}]{{{TICKET_CODE_CHARS}}}")


_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}  # made once per struct, and reused


async def read_json(request: web.Request, struct: type[T], *, required: bool = True) -> T:
    """The body as `struct`; an absent body is `{}` when it is not required.

    Raises Refusal: UNSUPPORTED_MEDIA_TYPE, INVALID_JSON, VALIDATION_FAILED (naming the field); aiohttp raises 413 past
    64 KiB.
    """
    raw = await request.read()
    if not raw and not required:
        raw = b"{}"
    elif request.content_type != "application/json":
        raise Refusal(ErrorCode.UNSUPPORTED_MEDIA_TYPE)
    return decode(raw, struct)


def decode(raw: bytes, struct: type[T]) -> T:
    """JSON bytes as `struct`. Raises Refusal: INVALID_JSON, VALIDATION_FAILED."""
    try:
        decoder = _decoders.get(struct)
        if decoder is None:
            decoder = _decoders[struct] = msgspec.json.Decoder(struct)
        value: T = decoder.decode(raw)
    except msgspec.ValidationError as fault:
        raise Refusal(ErrorCode.VALIDATION_FAILED, str(fault)) from fault
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise Refusal(ErrorCode.INVALID_JSON) from fault
    return value


def read_query(request: web.Request, struct: type[T]) -> T:
    """The query string as `struct`, each value from its text. Raises Refusal(VALIDATION_FAILED).

    A name given twice is refused rather than one of its values taken silently.
    """
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given:
            raise Refusal(ErrorCode.VALIDATION_FAILED, f"`{name}` is given more than once.")
        given[name] = value
    try:
        return msgspec.convert(given, struct, strict=False)
    except msgspec.ValidationError as fault:
        raise Refusal(ErrorCode.VALIDATION_FAILED, str(fault)) from fault


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
