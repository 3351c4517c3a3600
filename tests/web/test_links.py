"""Every link of the document, followed by hand: what an answer says leads to a request that is answered as promised."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from server.web.links import LINKS, Link
from server.web.routes import ROUTES, Route
from tests.web.stage import Stage, name


def route_of(operation: str) -> Route:
    (found,) = [route for route in ROUTES if route.handler.__name__ == operation]
    return found


def told(expression: Any, asked: Any, answered: Any) -> Any:
    """The value of a link: a runtime expression, something with such inside, or itself (OpenAPI 3.0.3)."""
    if isinstance(expression, dict):
        return {key: told(its, asked, answered) for key, its in expression.items()}
    if isinstance(expression, list):
        return [told(its, asked, answered) for its in expression]
    if not isinstance(expression, str) or not expression.startswith("$"):
        return expression
    where, _, pointer = expression.partition("#")
    value = {"$request.body": asked, "$response.body": answered}[where]
    for step in pointer.split("/")[1:]:
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


@pytest.mark.parametrize("link", LINKS, ids=lambda link: f"{link.source} -> {link.target}")
async def test_a_link_leads_from_an_answer_to_the_next(stage: Stage, link: Link) -> None:
    source, target = route_of(link.source), route_of(link.target)
    first = await stage.honest(source)
    answer = await stage.send(first)
    assert answer.status == source.status
    await stage.road.flushed()
    operation = stage.document["paths"][source.path][source.method.lower()]
    described = operation["responses"][str(source.status)]["links"][link.target]
    assert described["operationId"] == link.target and described["description"].endswith(".")

    asked = msgspec.json.decode(first.body) if first.body else None
    parameters = told(described.get("parameters", {}), asked, answer.json)
    known = {
        each["name"]: each["in"]
        for each in stage.document["paths"][target.path][target.method.lower()]["parameters"]
    }
    assert set(parameters) <= set(known)
    places = {each: parameters[each] for each in parameters if known[each] == "path"}
    query = {each: parameters[each] for each in parameters if known[each] == "query"}
    ask = await stage.honest(target)
    body = ask.body
    if "requestBody" in described:
        body = msgspec.json.encode(
            msgspec.json.decode(ask.body or b"{}") | told(described["requestBody"], asked, answer.json)
        )
    path = (target.path.format(**places) if places else ask.path) + (f"?{urlencode(query)}" if query else "")
    headers = ask.headers | (stage.signed(target, body) if body is not None else {})
    second = await stage.send(ask, path=path, body=body, headers=headers)
    if link.target == "query_order":  # the gateway is away: it was asked about an order that is there
        assert second.json["code"] == "GATEWAY_UNAVAILABLE"
    else:
        assert second.status == target.status, (name(target), second)
    if link.target == "scan":
        assert second.json["result"] == "success"
    if link.target == "notify":
        assert second.json["result"] == "PAID"
    if link.target == "redemptions":
        assert {each["function"] for each in second.json["redemptions"]} == {"bus"}
