"""The OpenAPI 3.0.3 document, made from the route table and the very structs that decode and encode."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp_apispec import AiohttpApiSpec

from server.domain.errors import ErrorCode
from server.web import ops
from server.web.errors import ErrorBody
from server.web.routes import Access, Route

VERSION: Final = "3.0.3"
_REF: Final = "#/components/schemas/{name}"
_TEXT_PATHS: Final = {
    "/metrics": "text/plain",
    "/openapi/openapi.json": "application/json",
    "/docs": "text/html",
}
_AUTH_ERRORS: Final = (
    ErrorCode.TOKEN_REQUIRED,
    ErrorCode.TOKEN_INVALID,
    ErrorCode.TOKEN_EXPIRED,
    ErrorCode.FORBIDDEN,
)
_STAFF: Final = (Access.OPERATOR, Access.OWNER_OR_OPERATOR, Access.ANALYST)
_BODY_ERRORS: Final = (
    ErrorCode.BAD_REQUEST,
    ErrorCode.INVALID_JSON,
    ErrorCode.VALIDATION_FAILED,
    ErrorCode.REQUEST_TIMEOUT,
    ErrorCode.BODY_TOO_LARGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
)


def describe(app: web.Application, routes: Iterable[Route], *, version: str) -> dict[str, Any]:
    """Add the files of the documentation page to the application, and return the document of these routes."""
    app.router.add_get("/docs/{file}", ops.docs_file)
    spec = AiohttpApiSpec(
        openapi_version=VERSION,
        title="Gateline",
        version=version,
        info={"description": "Sells packages of entitlements, issues tickets once, redeems them at gates."},
    )
    routes = list(routes)
    structs: set[type[Any]] = {ErrorBody, ops.Readiness}
    for route in routes:
        structs |= {struct for struct in (route.body, route.signed_body, route.answer) if struct is not None}
    _, schemas = msgspec.json.schema_components(sorted(structs, key=lambda s: s.__name__), ref_template=_REF)
    for name, schema in sorted(schemas.items()):
        spec.spec.components.schema(name, _as_openapi(schema))
    spec.spec.components.security_scheme(
        "bearer", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    )
    for route in routes:
        spec.spec.path(path=route.path, operations={route.method.lower(): _operation(route)})
    document: dict[str, Any] = spec.swagger_dict()
    return document


def _operation(route: Route) -> dict[str, Any]:
    summary, _, description = inspect.cleandoc(route.handler.__doc__ or "").partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": " ".join(summary.split()),
        "description": (description + f"\n\nWho: {route.access.value}.").strip(),
        "tags": [route.handler.__module__.rpartition(".")[2]],
        "parameters": _parameters(route),
        "responses": _responses(route),
    }
    if route.access not in (Access.ALL, Access.GATEWAY):
        operation["security"] = [{"bearer": []}]
    body = _body(route)
    if body is not None:
        operation["requestBody"] = body
    return operation


def _body(route: Route) -> dict[str, Any] | None:
    struct = route.body or route.signed_body
    if struct is None:
        return None
    schema = {"$ref": _REF.format(name=struct.__name__)}
    return {"required": route.body_required, "content": {"application/json": {"schema": schema}}}


def _parameters(route: Route) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"in": "path", "name": name, "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    if route.query is not None:
        _, schemas = msgspec.json.schema_components([route.query], ref_template=_REF)
        parameters += [
            {"in": "query", "name": name, "required": False, "schema": _as_parameter(schema)}
            for name, schema in schemas[route.query.__name__]["properties"].items()
        ]
    if ErrorCode.IDEMPOTENCY_KEY_REQUIRED in route.errors:
        key = {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$"}
        parameters.append({"in": "header", "name": "Idempotency-Key", "required": True, "schema": key})
    if route.access is Access.GATEWAY:
        parameters += [
            {"in": "header", "name": name, "required": True, "schema": {"type": "string"}}
            for name in ("X-Signature-Timestamp", "X-Signature")
        ]
    return parameters


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    if route.path == "/readyz":
        for fit in ("200", "503"):
            responses[fit] = _json_response("Fit or not, with reasons.", ops.Readiness.__name__)
    elif route.answer is None:
        media = _TEXT_PATHS[route.path]
        content = {"type": "object"} if media.endswith("json") else {"type": "string"}
        responses["200"] = {"description": "As named.", "content": {media: {"schema": content}}}
    else:
        responses[str(route.status)] = _json_response("Done.", route.answer.__name__)
    if route.path == "/reports/redemptions":
        responses["200"]["content"]["text/csv"] = {"schema": {"type": "string"}}
    by_status: dict[int, list[str]] = {}
    for code in _errors(route):
        by_status.setdefault(code.status, []).append(code.name)
    for status, names in sorted(by_status.items()):
        if str(status) not in responses:
            description = f"{HTTPStatus(status).phrase}: {', '.join(dict.fromkeys(names))}."
            responses[str(status)] = _json_response(description, ErrorBody.__name__)
    return responses


def _errors(route: Route) -> list[ErrorCode]:
    errors = list(route.errors)
    if route.access not in (Access.ALL, Access.GATEWAY):
        errors += _AUTH_ERRORS
    if route.access in _STAFF:
        errors += [ErrorCode.OPERATOR_DISABLED, ErrorCode.POSTGRES_UNAVAILABLE]
    if route.access is Access.GATEWAY:
        errors += [ErrorCode.SIGNATURE_INVALID, *_BODY_ERRORS]
    if route.body is not None:
        errors += _BODY_ERRORS
    if route.query is not None:
        errors.append(ErrorCode.VALIDATION_FAILED)
    return [*errors, ErrorCode.BAD_REQUEST, ErrorCode.INTERNAL]


def _json_response(description: str, name: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": _REF.format(name=name)}}},
    }


def _as_parameter(schema: Any) -> Any:
    """A query value that may be left out is not one that may be null."""
    converted = _as_openapi(schema)
    converted.pop("nullable", None)
    if converted.get("default", 0) is None:
        del converted["default"]
    if "enum" in converted:
        converted["enum"] = [value for value in converted["enum"] if value is not None]
    return converted


def _as_openapi(schema: Any) -> Any:
    """JSON Schema 2020-12, as msgspec writes it, in the dialect of OpenAPI 3.0.

    There, null is no type but a mark beside one, and an enumeration that allows null lists it too.
    """
    if isinstance(schema, list):
        return [_as_openapi(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    converted = {key: _as_openapi(value) for key, value in schema.items() if key != "title"}
    if "pattern" in converted:  # Python's `$` also stands before a last newline: our patterns end with \Z
        converted["pattern"] = converted["pattern"].replace(r"\Z", "$")
    choices = converted.pop("anyOf", None)
    if choices is not None:
        rest = [choice for choice in choices if choice.get("type") != "null"]
        nullable = len(rest) < len(choices)
        if len(rest) == 1 and "$ref" not in rest[0]:
            converted.update(rest[0])
        elif len(rest) == 1:
            converted["allOf"] = rest
        else:
            converted["anyOf"] = rest
        if nullable:
            converted["nullable"] = True
    if None in converted.get("enum", ()):
        converted["nullable"] = True
        converted.setdefault("type", "string")
    elif "enum" in converted and "type" not in converted:
        converted["type"] = "string"
    return converted
