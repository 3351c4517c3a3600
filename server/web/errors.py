"""From a refusal to an answer: one shape for every error, and no stack trace ever leaves."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

import msgspec
import structlog
from aiohttp import HttpVersion11, hdrs, web

from server.domain.errors import ErrorCode, Refusal
from server.telemetry import REQUEST_SECONDS, REQUESTS

_REQUEST_ID: Final = web.RequestKey("request_id", str)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RETRY_AFTER_S: Final = "1"  # a full queue is empty after half a second
EVERY_ANSWER: Final = {
    "X-Content-Type-Options": "nosniff",
    "Server": "Gateline",  # and not which library of which version
    "Cache-Control": "no-store",
    # For whoever opens an answer as if it were a page; pages have their own.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
_PROCESS: Final = uuid4().hex[:20]
_COUNT: Final = itertools.count()
_log: Final = structlog.get_logger("http")
# Routes that are asked so often that a line for each success would only cost: still there at level debug.
_QUIET: Final = frozenset({"/venue/scan", "/healthz", "/readyz", "/metrics"})
_BY_STATUS: Final = {
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.BODY_TOO_LARGE,
}


class ErrorBody(msgspec.Struct, frozen=True):
    """Every error. Some codes add fields of their own."""

    code: str
    message: str
    request_id: str
    product_id: int | msgspec.UnsetType = msgspec.UNSET
    available: int | msgspec.UnsetType = msgspec.UNSET
    status: str | msgspec.UnsetType = msgspec.UNSET
    scan_id: str | msgspec.UnsetType = msgspec.UNSET
    order_id: str | msgspec.UnsetType = msgspec.UNSET
    channel: str | msgspec.UnsetType = msgspec.UNSET
    retry_after_s: int | msgspec.UnsetType = msgspec.UNSET
    requiresUpgrade: bool | msgspec.UnsetType = msgspec.UNSET
    minBridgeVersion: str | msgspec.UnsetType = msgspec.UNSET


def example(code: ErrorCode) -> dict[str, Any]:
    """An error of this code, for the document."""
    return {"code": code.name, "message": code.message, "request_id": "30b864b50118440daf85fd2535d4fdc7"}


def error_body(refusal: Refusal, request_id: str) -> bytes:
    """The refusal as JSON."""
    body: dict[str, Any] = {
        "code": refusal.code.name,
        "message": refusal.message,
        "request_id": request_id,
        **refusal.detail,
    }
    return msgspec.json.encode(body)


def error_response(refusal: Refusal, request_id: str) -> web.Response:
    """The refusal as JSON; a transient one says when to come back."""
    response = web.Response(
        status=refusal.code.status, body=error_body(refusal, request_id), content_type="application/json"
    )
    if refusal.code.status in (429, 503):
        response.headers["Retry-After"] = str(refusal.detail.get("retry_after_s", RETRY_AFTER_S))
    if refusal.code.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if refusal.code.status == 426:
        response.headers["Upgrade"] = "websocket"
    return response


@web.middleware
async def answer_everything(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gives every request an id, turns whatever goes wrong into a stable error, and counts and logs the outcome."""
    started = time.perf_counter()
    request_id = request[_REQUEST_ID] = request_id_of(request.headers)
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        response = await _respond(request, handler, request_id)
        seconds = time.perf_counter() - started
        resource = request.match_info.route.resource
        # Where nothing is, any method may be spelled: it is not counted by a name that a stranger makes up.
        route, method = (resource.canonical, request.method) if resource is not None else ("unknown", "any")
        REQUESTS.labels(method, route, str(response.status)).inc()
        if response.status != HTTPStatus.SWITCHING_PROTOCOLS:  # a socket's hours are not an answer's
            REQUEST_SECONDS.labels(route).observe(seconds)
        log = _log.debug if route in _QUIET and response.status < 400 else _log.info
        log(
            "request",
            method=request.method,
            route=route,
            status=response.status,
            ms=round(seconds * 1000, 2),
        )
    if not response.prepared:
        mark(request, response)
    return response


def id_of(request: web.Request) -> str:
    """The id of a request that is being answered."""
    return request[_REQUEST_ID]


def mark(request: web.Request, response: web.StreamResponse) -> None:
    """The headers of every answer; what streams its answer calls this before it begins."""
    response.headers["X-Request-Id"] = request[_REQUEST_ID]
    for name, value in EVERY_ANSWER.items():
        response.headers.setdefault(name, value)


async def _respond(request: web.Request, handler: Handler, request_id: str) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        return error_response(refusal, request_id)
    except web.HTTPException as answer:
        if answer.status < 400:
            return answer
        mapped = Refusal(_BY_STATUS.get(answer.status, ErrorCode.BAD_REQUEST))
        response = error_response(mapped, request_id)
        if "Allow" in answer.headers:
            response.headers["Allow"] = answer.headers["Allow"]
        return response
    except Exception as fault:
        if isinstance(fault, ConnectionResetError) and _has_gone(
            request
        ):  # nobody hears it, and nothing failed
            return error_response(Refusal(ErrorCode.BAD_REQUEST), request_id)
        _log.exception("request_failed")
        return error_response(Refusal(ErrorCode.INTERNAL), request_id)


async def expect(request: web.Request) -> None:
    """Answers `Expect: 100-continue`; what else a client expects is passed over (RFC 9110, 10.1.1)."""
    if request.headers[hdrs.EXPECT].lower() == "100-continue" and request.version >= HttpVersion11:
        with suppress(ConnectionResetError):  # the client has gone: its body will not come
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the answer itself, which has not begun


def also_where_nothing_is(
    handle: Callable[[Any], Awaitable[web.StreamResponse]],
) -> Callable[[Any], Awaitable[web.StreamResponse]]:
    """Where no route is, aiohttp answers what a client expects by itself: 417 in text, or 500, if it does not know it.

    It is passed over there too: that nothing is there, or takes no such method, is told as ever.
    """

    async def handle_plainly(request: web.Request) -> web.StreamResponse:
        try:
            return await handle(request)
        except (web.HTTPExpectationFailed, UnicodeEncodeError):  # the second as it repeats what is no text
            return await answer_everything(request, request.match_info.handler)
        except ConnectionResetError:
            if not _has_gone(request):
                raise
            return error_response(Refusal(ErrorCode.BAD_REQUEST), request_id_of(request.headers))

    return handle_plainly


def _has_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def request_id_of(headers: Mapping[str, str]) -> str:
    """The caller's X-Request-Id if it is a plain one, else a new one."""
    given = headers.get("X-Request-Id", "")
    if 8 <= len(given) <= 64 and given.isascii() and given.replace("-", "").isalnum():
        return given
    return new_id()


def new_id() -> str:
    """An id that no other process makes, of a request or of a scan whose gate made none: 32 hexadecimal characters.

    Half random, made once, and half counted: random bits for each would cost a system call. It is no secret.
    """
    return f"{_PROCESS}{next(_COUNT):012x}"
