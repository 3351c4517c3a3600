"""From structs to schemas: JSON Schema 2020-12, as msgspec writes it, in the dialect of OpenAPI 3.0.3.

There, null is no type but a mark beside one, an enumeration that allows null lists it too, and what stands beside a
reference is not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from server.web.glossary import word

REF: Final = "#/components/schemas/{name}"


def either(*names: str | None) -> dict[str, Any]:
    """A schema, of the newer dialect, of what is one of these structs, by name; None: or anything else."""
    return {"anyOf": [{} if name is None else {"$ref": REF.format(name=name)} for name in names]}


def components(structs: Iterable[type[Any]]) -> dict[str, Any]:
    """The schemas of these structs, and of all that they are made of, by name."""
    ordered = sorted(structs, key=lambda struct: struct.__name__)
    _, schemas = msgspec.json.schema_components(ordered, ref_template=REF)
    return {name: _struct(name, schema) for name, schema in sorted(schemas.items())}


def query(struct: type[Any]) -> dict[str, Any]:
    """Parameter -> schema, for a struct that is read from the query string."""
    _, schemas = msgspec.json.schema_components([struct], ref_template=REF)
    return {
        name: _parameter(convert(schema)) for name, schema in schemas[struct.__name__]["properties"].items()
    }


def _struct(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    converted: dict[str, Any] = convert(schema)
    for field, its in converted.get("properties", {}).items():
        described = word(field, name)
        if described is None:
            continue
        if "$ref" in its:
            its["allOf"] = [{"$ref": its.pop("$ref")}]
        its["description"] = described.meaning
        if described.example is not None:
            its["example"] = described.example
    return converted


def _parameter(schema: dict[str, Any]) -> dict[str, Any]:
    """A value that may be left out is not one that may be null."""
    schema.pop("nullable", None)
    if "enum" in schema:
        schema["enum"] = [value for value in schema["enum"] if value is not None]
    return schema


def convert(schema: Any) -> Any:
    """A schema of the newer dialect in the older one."""
    if isinstance(schema, list):
        return [convert(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    converted: dict[str, Any] = {
        # A field may be called as a keyword is: names of properties are not looked at.
        key: {name: convert(its) for name, its in value.items()} if key == "properties" else convert(value)
        for key, value in schema.items()
        if key != "title"
    }
    if converted.get("required") == []:
        del converted["required"]
    if isinstance(converted.get("default", 0), dict | None):  # "nothing": says nothing to a reader
        del converted["default"]
    if "pattern" in converted:  # Python's `$` also stands before a last newline: our patterns end with \Z
        converted["pattern"] = converted["pattern"].replace(r"\Z", "$")
    _merge_choices(converted)
    if "enum" in converted:
        if None in converted["enum"]:
            converted["nullable"] = True
        elif converted.get("nullable"):
            converted["enum"].append(None)
        converted.setdefault("type", "string")
    return converted


def _merge_choices(converted: dict[str, Any]) -> None:
    """`A or null` is A, marked as nullable."""
    choices = converted.pop("anyOf", None)
    if choices is None:
        return
    rest = [choice for choice in choices if choice.get("type") != "null"]
    if len(rest) == 1 and "$ref" not in rest[0]:
        converted.update(rest[0])
    elif len(rest) == 1:
        converted["allOf"] = rest
    else:
        converted["anyOf"] = rest
    if len(rest) < len(choices):
        converted["nullable"] = True
