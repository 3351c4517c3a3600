"""The OpenAPI document: valid, complete, true to what the server does, and readable; and its page."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import msgspec
import pytest
from multidict import CIMultiDict
from openapi_spec_validator import OpenAPIV30SpecValidator

from server.app import build_app
from server.domain.errors import ErrorCode
from server.web import appkeys
from server.web.glossary import WORDS
from server.web.routes import ROUTES, Route
from tests.road import Answer
from tests.web.document import Document
from tests.web.stage import SECURED, Stage, may_call, name


@pytest.fixture
def document(stage: Stage) -> Document:
    return Document(stage.document)


# --- The document itself ------------------------------------------------------------------------------------


async def test_the_document_is_valid_openapi_3_0_3(stage: Stage) -> None:
    answer = await stage.road.call("GET", "/openapi/openapi.json")
    assert answer.status == 200
    assert answer.json["openapi"] == "3.0.3"
    assert list(OpenAPIV30SpecValidator(answer.json).iter_errors()) == []


def test_it_names_every_route_and_no_other(document: Document) -> None:
    described = {
        (method.upper(), path) for path, methods in document.raw["paths"].items() for method in methods
    }
    assert described == {(route.method, route.path) for route in ROUTES}


@pytest.mark.parametrize("kind", ["demo", "guest"])
async def test_where_this_login_is_off_it_is_neither_there_nor_described(stage: Stage, kind: str) -> None:
    path = f"/auth/{kind}/login"
    config = msgspec.structs.replace(stage.road.config, **{f"{kind}_login": False})
    app = build_app(dataclasses.replace(stage.road.parts, config=config))
    assert path in stage.document["paths"]
    assert path not in msgspec.json.decode(app[appkeys.OPENAPI])["paths"]
    assert path not in [resource.canonical for resource in app.router.resources()]


def test_every_operation_says_what_it_does_for_whom_and_with_which_token(document: Document) -> None:
    ids = []
    for route in ROUTES:
        operation = document.operation(route)
        ids.append(operation["operationId"])
        assert operation["summary"].endswith(".") and len(operation["summary"]) < 120, route.path
        assert f"Who: {route.access.value}." in operation["description"]
        assert operation["tags"] and set(operation["tags"]) <= {tag["name"] for tag in document.raw["tags"]}
        schemes = {scheme for need in operation["security"] for scheme in need}
        kinds = may_call(route) if route in SECURED else set()
        assert schemes == {"operator" if kind == "gate" else kind for kind in kinds}, route.path
    assert len(set(ids)) == len(ids)
    assert set(document.raw["components"]["securitySchemes"]) == {"buyer", "operator", "analyst"}


def test_every_field_and_parameter_has_its_word_and_no_word_is_left_over(document: Document) -> None:
    used: set[str] = set()

    def look_up(field: str, struct: str = "") -> None:
        own = f"{struct}.{field}"
        used.add(own if own in WORDS else field)
        assert own in WORDS or field in WORDS, f"add a word for {own} to the glossary"

    for struct, schema in document.raw["components"]["schemas"].items():
        assert schema["description"], struct
        for field, its in schema["properties"].items():
            look_up(field, struct)
            assert its["description"], (struct, field)
    for route in ROUTES:
        for parameter in document.operation(route)["parameters"]:
            assert parameter["description"], (route.path, parameter)
            if parameter["in"] != "path":
                look_up(parameter["name"])
    assert set(WORDS) - used == set()


def test_every_example_is_one_that_the_document_allows(document: Document) -> None:
    for struct, schema in document.raw["components"]["schemas"].items():
        for field, its in schema["properties"].items():
            if "example" in its:
                assert document.faults(its, its["example"]) == [], (struct, field)
    for route in ROUTES:
        operation = document.operation(route)
        for parameter in operation["parameters"]:
            if "example" in parameter:
                assert document.faults(parameter["schema"], parameter["example"]) == [], parameter
        for response in operation["responses"].values():
            for content in response["content"].values():
                for example in content.get("examples", {}).values():
                    assert document.faults(content["schema"], example["value"]) == [], example


def test_every_code_is_listed_where_it_can_come_with_its_own_status(document: Document) -> None:
    listed = set()
    for route in ROUTES:
        responses = document.operation(route)["responses"]
        for status, response in responses.items():
            for example in response["content"].get("application/json", {}).get("examples", {}):
                assert ErrorCode[example].status == int(status)
                listed.add(example)
        for code in route.errors_inside:
            assert code.name in responses[str(route.status)]["description"], (route.path, code)
            listed.add(code.name)
        for code in route.errors:
            assert code.name in responses[str(code.status)]["description"], (route.path, code)
    # What belongs to no route: nothing is there, or it takes another method.
    assert {code.name for code in ErrorCode} - listed == {"NOT_FOUND", "METHOD_NOT_ALLOWED"}


def test_what_may_be_tried_again_says_after_how_long(document: Document) -> None:
    for route in ROUTES:
        for status, response in document.operation(route)["responses"].items():
            if "examples" in response["content"].get("application/json", {}):
                assert ("Retry-After" in response["headers"]) == (status in ("429", "503"))
                assert ("WWW-Authenticate" in response["headers"]) == (status == "401")
            assert "X-Request-Id" in response["headers"]


def test_nothing_in_it_is_of_a_dialect_that_3_0_does_not_know(document: Document) -> None:
    def walk(node: Any, place: str) -> None:
        if isinstance(node, list):
            for each in node:
                walk(each, place)
        if not isinstance(node, dict):
            return
        assert not {"const", "$defs", "prefixItems", "if", "examples"} & set(node), place
        assert node.get("type") != "null" and not isinstance(node.get("type"), list), place
        assert "$ref" not in node or len(node) == 1, place  # siblings of a reference are not read
        assert r"\Z" not in str(node.get("pattern", "")), place
        for key, each in node.items():
            if key == "properties":
                for field, its in each.items():
                    walk(its, f"{place}.{field}")
            elif key != "example":
                walk(each, place)

    for struct, schema in document.raw["components"]["schemas"].items():
        walk(schema, struct)


def test_times_say_that_they_are_times(document: Document) -> None:
    for struct, schema in document.raw["components"]["schemas"].items():
        for field, its in schema["properties"].items():
            timely = field.endswith("_at") or field in (
                "ts",
                "from",
                "to",
                "hour",
                "valid_from",
                "valid_until",
            )
            assert timely == (its.get("format") == "date-time"), (struct, field)


# --- What the server really answers -------------------------------------------------------------------------


def matches(document: Document, route: Route, answer: Answer) -> None:
    """Holds an answer against what the document says of the route: status, type, headers, every field."""
    response = document.operation(route)["responses"].get(str(answer.status))
    assert response is not None, (name(route), answer)
    headers = CIMultiDict(answer.headers)
    media = headers["Content-Type"].partition(";")[0]
    assert media in response["content"], (name(route), headers)
    assert set(response["headers"]) <= {header for header in response["headers"] if header in headers}
    if media == "application/json":
        faults = document.faults(response["content"][media]["schema"], answer.json)
        assert faults == [], (name(route), answer)


async def test_every_answer_of_the_road_is_one_that_the_document_promises(
    stage: Stage, document: Document
) -> None:
    by_path = {(route.method, route.path): route for route in ROUTES}
    seen: list[tuple[str, int]] = []
    call = stage.road.call

    async def checked(method: str, path: Any, **options: Any) -> Answer:
        answer = await call(method, path, **options)
        plain = str(path).partition("?")[0]
        found = [r for (m, p), r in by_path.items() if m == method and re.fullmatch(_shape(p), plain)]
        route = min(found, key=lambda route: route.path.count("{"))
        matches(document, route, answer)
        seen.append((name(route), answer.status))
        return answer

    stage.road.call = checked  # type: ignore[method-assign]
    try:
        await _walk(stage)
    finally:
        stage.road.call = call  # type: ignore[method-assign]
    successes = {route for route, status in seen if status < 300 or status == 426}
    assert successes == {name(route) for route in ROUTES} - {"POST /orders/{order_id}/query"}
    assert {status for _, status in seen} >= {200, 201, 400, 401, 403, 404, 409, 413, 415, 422, 503}


def _shape(path: str) -> str:
    return re.sub(r"{\w+}", "[^/]+", path)


async def _walk(stage: Stage) -> None:
    """Every route with success, and every kind of refusal that can be had here."""
    road = stage.road
    for route in ROUTES:
        for kind in sorted(may_call(route)):
            if not route.path.endswith(("/cancel", "/query")):
                await stage.send(await stage.honest(route, kind))
        if route in SECURED:
            await stage.send(await stage.honest(route, "nobody"))
            await stage.send(await stage.honest(route, min({"buyer", "gate", "analyst"} - may_call(route))))
    ann, gate, analyst = road.buyer(), await road.gate(), await road.analyst()
    await _sell(stage, ann)
    await _redeem(stage, gate)
    for query in (
        "?format=csv",
        "?limit=1",
        "?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "?cursor=x",
        "?limit=0",
    ):
        await road.call("GET", f"/reports/redemptions{query}", headers=analyst)
    await road.call("GET", "/reports/summary?from=x", headers=analyst)
    await road.call("GET", "/my/orders?limit=2", headers=ann)


async def _sell(stage: Stage, ann: dict[str, str]) -> None:
    road = stage.road
    free = await road.product({"bus": 1}, price_fen=0)
    scarce = await road.product({"bus": 1}, sellable=1)
    window = await road.product({"bus": 1}, valid_days=3)
    await road.order({free: 1})
    await road.order({scarce: 2})
    await road.order({10_000: 1})
    await road.order({scarce: 1}, idempotency_key="same")
    await road.order({free: 1}, idempotency_key="same")
    await road.buy({window: 2})
    for path, options in (
        ("/orders", {"json": {}}),
        ("/orders", {"json": {"items": []}, "headers": {"Idempotency-Key": "k"}}),
        ("/orders", {"data": b"{", "headers": {"Idempotency-Key": "k", "Content-Type": "application/json"}}),
        ("/orders", {"data": b"{}", "headers": {"Content-Type": "text/plain"}}),
        ("/orders", {"data": b" " * 70_000, "headers": {"Content-Type": "application/json"}}),
    ):
        await road.call("POST", path, **{**options, "headers": {**ann, **options.get("headers", {})}})
    order_id = (await road.order({window: 1})).json["order_id"]
    await road.notify(order_id, 1)
    await road.notify("0" * 26, 1)
    await road.notify(order_id, 1000, secret=b"x" * 32)
    await road.call("POST", f"/orders/{order_id}/query", headers=ann)  # the gateway is away
    await road.call("POST", f"/orders/{order_id}/cancel", headers=ann)
    await road.call("POST", f"/orders/{order_id}/pay", headers=ann)
    await road.call("GET", f"/orders/{'0' * 26}", headers=ann)
    await road.notify(order_id, 1000)  # too late
    paid = (await road.call("GET", "/my/tickets", headers=ann)).json["tickets"][0]["order_id"]
    await road.call("POST", f"/orders/{paid}/cancel", headers=ann)


async def _redeem(stage: Stage, gate: dict[str, str]) -> None:
    road = stage.road
    token = await road.qr(stage.ticket)
    for function, more in (
        ("bus", {"scan_id": "first", "venue_code": "pier-1", "terminal_device_id": "gate-7"}),
        ("bus", {}),
        ("museum", {}),
        ("bus", {"venue_code": "nowhere"}),
        ("ferry", {"scan_id": "first"}),
    ):
        await road.scan(token, function, **more)
    for junk in ("x", "A" * 87, token.replace("A", "B", 1)):
        await road.scan(junk, "bus")
        await road.call("POST", "/qr/decrypt", headers=gate, json={"qr_token": junk})
    for image in ("svg", "png", "gif"):
        await road.call("POST", f"/qr/{stage.ticket}?image={image}", headers=road.buyer())
    await road.call("POST", f"/qr/{'0' * 16}", headers=road.buyer())
    await road.call("GET", f"/qr/{'0' * 16}/info", headers=gate)
    wrong = {"username": "gina", "password": "wrong"}
    await road.call("POST", "/operators/login", json=wrong)


# --- The page -----------------------------------------------------------------------------------------------


async def test_the_page_is_served_with_all_that_it_needs_and_from_nowhere_else(stage: Stage) -> None:
    page = await stage.road.call("GET", "/docs")
    assert page.status == 200
    headers = CIMultiDict(page.headers)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    html = page.raw.decode()
    asked = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert len(asked) >= 4 and all(each.startswith("/") for each in asked)
    for path in asked:
        answer = await stage.road.call("GET", path)
        assert answer.status == 200 and len(answer.raw) > 100, path
        assert CIMultiDict(answer.headers)["X-Content-Type-Options"] == "nosniff"
    assert "<script>" not in html and "onload" not in html  # the policy would not run it
    script = (await stage.road.call("GET", "/docs/docs.js")).raw.decode()
    assert '"/openapi/openapi.json"' in script and "validatorUrl: null" in script
    policy = headers["Content-Security-Policy"]
    assert "connect-src 'self'" in policy and "http" not in policy


async def test_the_files_of_the_page_have_the_types_that_a_browser_insists_on(stage: Stage) -> None:
    for file, media in (
        ("docs.js", "javascript"),
        ("swagger-ui-bundle.js", "javascript"),
        ("swagger-ui.css", "text/css"),
        ("favicon-32x32.png", "image/png"),
    ):
        headers = CIMultiDict((await stage.road.call("GET", f"/docs/{file}")).headers)
        assert headers["Content-Type"].partition(";")[0].endswith(media)  # text/ or application/javascript
