"""The OpenAPI document as a judge: what it allows to be sent, and whether an answer is one that it promises."""

from __future__ import annotations

import copy
import re
from typing import Any

from jsonschema import Draft4Validator, FormatChecker

from server.web.routes import Route

FORMATS = FormatChecker()


@FORMATS.checks("date-time")
def _is_time(value: object) -> bool:
    """RFC 3339 with an offset; independent of the server's own reader."""
    from datetime import datetime

    if not isinstance(value, str):
        return True
    try:
        return datetime.fromisoformat(value).tzinfo is not None and "T" in value.upper()
    except ValueError:
        return False


def plain(schema: Any) -> Any:
    """A schema of OpenAPI 3.0 in plain JSON Schema: `nullable` is one more type there."""
    if isinstance(schema, list):
        return [plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    converted = {key: plain(value) for key, value in schema.items() if key != "nullable"}
    if isinstance(converted.get("pattern"), str):  # ECMA 262: `$` is the very end, not before a last newline
        converted["pattern"] = re.sub(r"\$$", r"\\Z", converted["pattern"])
    if schema.get("nullable"):
        return {"anyOf": [converted, {"type": "null"}]}
    return converted


class Document:
    """The document of a running server."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.raw = document
        self._components = plain(copy.deepcopy(document["components"]))

    def operation(self, route: Route) -> dict[str, Any]:
        """What the document says of a route."""
        found: dict[str, Any] = self.raw["paths"][route.path][route.method.lower()]
        return found

    def request_schema(self, route: Route) -> dict[str, Any]:
        """The schema of a route's JSON body."""
        found: dict[str, Any] = self.operation(route)["requestBody"]["content"]["application/json"]["schema"]
        return found

    def query(self, route: Route) -> dict[str, Any]:
        """Parameter -> schema."""
        parameters = self.operation(route)["parameters"]
        return {each["name"]: each["schema"] for each in parameters if each["in"] == "query"}

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema itself, where it is only named."""
        if "$ref" in schema:
            found: dict[str, Any] = self.raw["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            return found
        return schema

    def fields(self, schema: dict[str, Any]) -> list[str]:
        """The names that an object may have."""
        return list(self.resolve(schema)["properties"])

    def required(self, schema: dict[str, Any]) -> list[str]:
        """The names that an object must have."""
        return list(self.resolve(schema).get("required", []))

    def faults(self, schema: dict[str, Any], value: Any) -> list[str]:
        """What is wrong with a value according to a schema."""
        whole = {**plain(schema), "components": self._components}
        if "$ref" in whole:  # siblings of a $ref do not count
            whole = {"allOf": [{"$ref": whole["$ref"]}], "components": self._components}
        errors = Draft4Validator(whole, format_checker=FORMATS).iter_errors(value)
        return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]

    def accepts(self, schema: dict[str, Any], value: Any) -> bool:
        """Whether the document allows the value."""
        return not self.faults(schema, value)

    def accepts_text(self, schema: dict[str, Any], text: str) -> bool:
        """The same for a value of a query, which is always text."""
        if schema.get("type") == "integer":
            return text.isascii() and text.lstrip("-").isdigit() and self.accepts(schema, int(text[:4_000]))
        return self.accepts(schema, text)
