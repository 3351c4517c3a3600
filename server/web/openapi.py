"""The OpenAPI 3.0.3 document, made from the route table and the very structs that decode and encode."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp_apispec import AiohttpApiSpec

from server.domain.errors import ErrorCode
from server.domain.ids import CROCKFORD, ORDER_ID_CHARS, TICKET_CODE_CHARS
from server.web import deadline, device, ops, uploading
from server.web.errors import RETRY_AFTER_S, ErrorBody, example, expect
from server.web.glossary import WORDS, word
from server.web.links import links_from
from server.web.routes import Access, Route
from server.web.schemas import REF, components, query

VERSION: Final = "3.0.3"
_ABOUT: Final = """\
Sells packages of entitlements (a bus ride, a ferry crossing, a museum visit), takes payment, issues tickets exactly
once, shows a short-lived encrypted QR, and redeems it at gates.

**Who.** Buyers, gate operators and analysts each have their own kind of bearer token; a token of one kind opens nothing
of another. Payment gateways sign what they send.

**Retries are safe.** An order carries an `Idempotency-Key`, a scan its `scan_id`: sent again, the first answer comes
again. Every 503 may be retried so, after the seconds that `Retry-After` names. So may every 429: what comes too often
is refused undone. Scans are never refused for that.

**Errors** have one shape: a stable `code`, a `message` for developers, and the `request_id` that finds the request in
the log. A refusal at a gate is no error but a verdict, with 200.

Money is integer fen. Times are RFC 3339 in UTC. Fields may be added; clients pass over those that they do not know.
"""
_TAGS: Final = {
    "buyer": "What a buyer may ask: the catalog and orders.",
    "tickets": "A buyer's tickets and their QR.",
    "gate": "What gate staff may ask beside scans: to log in, where they can work, and what is behind a ticket.",
    "scanning": "Whether a ticket passes.",
    "uploading": "The same for scans that were made while a gate was offline.",
    "stream": "The same over a WebSocket, many scans under way at once.",
    "reports": "What analysts may ask.",
    "figures": "What the report screen shows of it.",
    "webhooks": "What payment gateways tell.",
    "wechat": "Logging in by WeChat, and what WeChat Pay tells.",
    "pages": "The screens.",
    "ops": "What those who run the service ask.",
}
_KINDS: Final = {
    "buyer": "A buyer's token, from a login.",
    "operator": "A gate operator's token, from `POST /operators/login`.",
    "analyst": "An analyst's token, from `POST /operators/login`.",
}
_MAY: Final = {
    Access.BUYER: ("buyer",),
    Access.OPERATOR: ("operator",),
    Access.OWNER_OR_OPERATOR: ("buyer", "operator"),
    Access.ANALYST: ("analyst",),
}
_TEXT: Final = {  # what answers with no struct of ours
    "/metrics": ("text/plain", {"type": "string"}),
    "/openapi/openapi.json": ("application/json", {"type": "object"}),
    "/docs": ("text/html", {"type": "string"}),
    "/": ("text/html", {"type": "string"}),
    "/gate": ("text/html", {"type": "string"}),
    "/report": ("text/html", {"type": "string"}),
}
_PLACES: Final = {  # of the path: name -> (its word, what it looks like)
    "order_id": ("order_id", f"^[{CROCKFORD}]{{{ORDER_ID_CHARS}}}$"),
    "code": ("ticket_code", f"^[{CROCKFORD}]{{{TICKET_CODE_CHARS}}}$"),
}
_HEADERS: Final = {
    "Idempotency-Key": "^[A-Za-z0-9._:-]{1,64}$",
    "X-Signature-Timestamp": "^[0-9]{1,12}$",
    "X-Signature": "^v1=[0-9a-f]{64}$",
    "Wechatpay-Timestamp": "^[0-9]{1,12}$",
    "Wechatpay-Nonce": "^[!-~]{1,1024}$",
    "Wechatpay-Signature": "^[A-Za-z0-9+/]+={0,2}$",
    "Wechatpay-Serial": "^[0-9A-Za-z_]{1,128}$",
}
_SIGNED_BY: Final = {
    Access.GATEWAY: ("X-Signature-Timestamp", "X-Signature"),
    Access.WECHAT: ("Wechatpay-Timestamp", "Wechatpay-Nonce", "Wechatpay-Signature", "Wechatpay-Serial"),
}
_TOKEN_ERRORS: Final = (
    ErrorCode.TOKEN_REQUIRED,
    ErrorCode.TOKEN_INVALID,
    ErrorCode.TOKEN_EXPIRED,
    ErrorCode.FORBIDDEN,
)
_STAFF: Final = (Access.OPERATOR, Access.OWNER_OR_OPERATOR, Access.ANALYST)
_BODY_ERRORS: Final = (
    ErrorCode.INVALID_JSON,
    ErrorCode.VALIDATION_FAILED,
    ErrorCode.REQUEST_TIMEOUT,
    ErrorCode.BODY_TOO_LARGE,
)


def describe(app: web.Application, routes: Iterable[Route], *, version: str) -> dict[str, Any]:
    """Add the files of the documentation page to the application, and return the document of these routes."""
    app.router.add_get("/docs/{file}", ops.docs_file, expect_handler=expect)
    spec = AiohttpApiSpec(
        openapi_version=VERSION,
        title="Gateline",
        version=version,
        info={"description": _ABOUT},
        servers=[{"url": "/"}],
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
    ).spec
    routes = list(routes)
    structs: set[type[Any]] = {ErrorBody, ops.Readiness, uploading.UploadedScan}
    for route in routes:
        structs |= {struct for struct in (route.body, route.signed_body, route.answer) if struct is not None}
    for name, schema in components(structs).items():
        spec.components.schema(name, schema)
    for kind, text in _KINDS.items():
        spec.components.security_scheme(
            kind, {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": text}
        )
    for name, header in _ANSWER_HEADERS.items():
        spec.components.header(name, header)
    for route in routes:
        operation = _operation(route)
        if links := links_from(route, routes):
            operation["responses"][str(route.status)]["links"] = links
        spec.path(path=route.path, operations={route.method.lower(): operation})
    document: dict[str, Any] = spec.to_dict()
    return document


# --- Operations ---------------------------------------------------------------------------------------------


def _operation(route: Route) -> dict[str, Any]:
    summary, _, description = inspect.cleandoc(route.handler.__doc__ or "").partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": " ".join(summary.split()),
        "description": f"{description}\n\nWho: {route.access.value}.".strip(),
        "tags": [route.handler.__module__.rpartition(".")[2]],
        "parameters": _parameters(route),
        "responses": _responses(route),
        "security": [{kind: []} for kind in _MAY.get(route.access, ())],
    }
    struct = route.body or route.signed_body
    if struct is not None:
        content = {"application/json": {"schema": _ref(struct)}}
        operation["requestBody"] = {"required": route.body_required, "content": content}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    parameters = []
    for name in re.findall(r"{(\w+)}", route.path):
        spelled, pattern = _PLACES[name]
        parameters.append(_parameter("path", name, {"type": "string", "pattern": pattern}, spelled=spelled))
    if route.query is not None:
        parameters += [_parameter("query", name, schema) for name, schema in query(route.query).items()]
    headers = _SIGNED_BY.get(route.access, ())
    if ErrorCode.IDEMPOTENCY_KEY_REQUIRED in route.errors:
        headers = ("Idempotency-Key",)
    parameters += [
        _parameter("header", name, {"type": "string", "pattern": _HEADERS[name]}) for name in headers
    ]
    if route.device_cookie:
        parameters.append(_parameter("cookie", device.COOKIE, {"type": "string"}) | {"required": False})
    if ErrorCode.DEADLINE_PASSED in (*route.errors, *route.errors_inside):
        parameters.append(_parameter("header", deadline.HEADER, deadline.SCHEMA) | {"required": False})
    return parameters


def _parameter(where: str, name: str, schema: dict[str, Any], *, spelled: str = "") -> dict[str, Any]:
    described = word(spelled or name)
    parameter: dict[str, Any] = {"in": where, "name": name, "required": where != "query", "schema": schema}
    if described is not None:
        parameter["description"] = described.meaning
        if described.example is not None:
            parameter["example"] = described.example
    return parameter


# --- Answers ------------------------------------------------------------------------------------------------

_ANSWER_HEADERS: Final[dict[str, dict[str, Any]]] = {
    "X-Request-Id": {
        "description": "The caller's own, if it was 8 to 64 letters, digits and dashes; else a new one.",
        "schema": {"type": "string", "example": WORDS["request_id"].example},
    },
    "Retry-After": {
        "description": "Seconds after which to come back.",
        "schema": {"type": "string", "example": RETRY_AFTER_S},
    },
    "WWW-Authenticate": {
        "description": "Which kind of token is wanted.",
        "schema": {"type": "string", "example": "Bearer"},
    },
    "Set-Cookie": {
        "description": "The device, as a login on it may bring it along: `HttpOnly`, `SameSite=Strict`, for 30 days.",
        "schema": {"type": "string", "example": f"{device.COOKIE}=eyJ…; HttpOnly; SameSite=Strict"},
    },
    "Upgrade": {
        "description": "What this address speaks.",
        "schema": {"type": "string", "example": "websocket"},
    },
}


def _responses(route: Route) -> dict[str, Any]:
    responses = _successes(route)
    by_status: dict[int, list[ErrorCode]] = {}
    for code in dict.fromkeys(_errors(route)):
        by_status.setdefault(code.status, []).append(code)
    for status, codes in sorted(by_status.items()):
        if str(status) not in responses:
            responses[str(status)] = _refusal(status, codes)
    return responses


def _successes(route: Route) -> dict[str, Any]:
    if route.path == "/readyz":
        content = {"application/json": {"schema": _ref(ops.Readiness)}}
        return {
            status: _response("Fit to serve, or not, with the reasons.", content) for status in ("200", "503")
        }
    if route.status == HTTPStatus.SWITCHING_PROTOCOLS:
        inside = ", ".join(code.name for code in route.errors_inside)
        return {"101": _response(f"A WebSocket of scans and verdicts. Errors of one scan: {inside}.", {})}
    if route.answer is None:
        media, schema = _TEXT[route.path]
        return {"200": _response(inspect.cleandoc(route.handler.__doc__ or ""), {media: {"schema": schema}})}
    content = {"application/json": {"schema": _ref(route.answer)}}
    if route.path == "/reports/redemptions":
        content["text/csv"] = {"schema": {"type": "string"}}
    described = inspect.cleandoc(route.answer.__doc__ or "")
    if route.errors_inside:
        described += f" Errors of one element: {', '.join(code.name for code in route.errors_inside)}."
    response = _response(described, content)
    if route.device_cookie:
        response["headers"]["Set-Cookie"] = {"$ref": "#/components/headers/Set-Cookie"}
    return {str(route.status): response}


def _refusal(status: int, codes: list[ErrorCode]) -> dict[str, Any]:
    """One status: which codes it may carry, each with an example of its own."""
    schema = {"allOf": [_ref(ErrorBody), {"properties": {"code": {"enum": [code.name for code in codes]}}}]}
    examples = {
        code.name: {
            "summary": "may pass when it is tried again" if code.transient else "final",
            "value": example(code),
        }
        for code in codes
    }
    names = ", ".join(code.name for code in codes)
    response = _response(
        f"{HTTPStatus(status).phrase}: {names}.",
        {"application/json": {"schema": schema, "examples": examples}},
    )
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        response["headers"]["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    if status == HTTPStatus.UPGRADE_REQUIRED:
        response["headers"]["Upgrade"] = {"$ref": "#/components/headers/Upgrade"}
    if status == HTTPStatus.UNAUTHORIZED:
        response["headers"]["WWW-Authenticate"] = {"$ref": "#/components/headers/WWW-Authenticate"}
    return response


def _errors(route: Route) -> list[ErrorCode]:
    errors = list(route.errors)
    if route.access in _MAY:
        errors += _TOKEN_ERRORS
    if route.access in _STAFF:
        errors += [ErrorCode.OPERATOR_DISABLED, ErrorCode.POSTGRES_UNAVAILABLE]
    if route.access in _SIGNED_BY:
        errors.append(ErrorCode.SIGNATURE_INVALID)
    if route.body is not None:
        errors.append(ErrorCode.UNSUPPORTED_MEDIA_TYPE)
    if route.body is not None or route.signed_body is not None:
        errors += _BODY_ERRORS
    if route.query is not None:
        errors.append(ErrorCode.VALIDATION_FAILED)
    return [*errors, ErrorCode.BAD_REQUEST, ErrorCode.INTERNAL]


def _response(description: str, content: dict[str, Any]) -> dict[str, Any]:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
    return {"description": description, "headers": headers, "content": content}


def _ref(struct: type[Any]) -> dict[str, str]:
    return {"$ref": REF.format(name=struct.__name__)}
