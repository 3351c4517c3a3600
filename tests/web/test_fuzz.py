"""Schemathesis against a real process: whatever the document allows or forbids, no answer is outside of it.

Every operation is asked with a token that may ask it, by examples, by boundary values and at random, with data that the
document allows and with data that it forbids. Once more, with orders, tickets and QR tokens that exist.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import requests
import schemathesis
from aiohttp import ClientSession, web
from aiohttp.test_utils import unused_port
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from server import config as configuration
from server.app import open_parts
from server.config import Config
from server.dev.serving import serving
from server.dev.wechat import WeChat
from server.dev.wechat_keys import WeChatKeys
from server.hosted import signing
from server.hot.backlog import Backlog
from tests.conftest import eventually
from tests.road import Road
from tests.web.process import gateline

EXAMPLES = 12  # of each operation in each phase: some 12 s in all; ten times as many find nothing more
SEED = 7
# What no schema can say: refused although every single value is allowed.
BEYOND_SCHEMAS = frozenset(
    {
        "UPGRADE_REQUIRED",  # an address that speaks WebSocket
        "INVALID_RANGE",
        "INVALID_CURSOR",
        "SOLD_OUT",
        "QR_MALFORMED",
        "QR_TAMPERED",
        "QR_EXPIRED",
        "QR_UNKNOWN_KEY",
        "MINI_PROGRAM_BRIDGE_REQUIRED",
    }
)


def faults(
    document: dict[str, Any], address: str, headers: dict[str, str], operations: list[str], **generation: Any
) -> tuple[Counter[str], list[str]]:
    """Asks these operations in every way; how often each was asked, and every answer that must not be."""
    config = SchemathesisConfig.from_dict(
        {
            "base-url": address,
            "headers": headers,
            "workers": 1,
            "seed": SEED,
            "continue-on-failure": True,
            "suppress-health-check": ["all"],
            "generation": {
                "max-examples": EXAMPLES,
                "deterministic": True,
                "no-shrink": True,
                "database": "none",
                **generation,
            },
            "phases": {"stateful": {"enabled": False}},
        }
    )
    schema = schemathesis.openapi.from_dict(document, config=config).include(operation_id=operations)
    asked: Counter[str] = Counter()
    told = []
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            asked[event.label or ""] += len(event.recorder.cases)
            told += failures(event)
        elif isinstance(event, events.NonFatalError):
            told.append(f"{event.label}: {event.value!r}")
        elif isinstance(event, events.FatalError):
            told.append(repr(event.exception))
    return asked, told


def failures(event: events.ScenarioFinished) -> list[str]:
    recorder = event.recorder
    told = []
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is None:
                continue
            response = recorder.interactions[case_id].response
            body = response.content.decode("utf-8", "replace") if response is not None else ""
            if check.name == "positive_data_acceptance" and _beyond_schemas(body):
                continue
            if "Got more than 2048 bytes" in body:  # an address that is refused before anything reads it
                continue
            if '"code":"DEADLINE_PASSED"' in body:  # what a client gets who waits for a millisecond
                continue
            curl = recorder.cases[case_id].value.as_curl_command()
            told.append(
                f"{event.label}: {check.name}: {check.failure_info.failure}\n{curl[:800]}\n{body[:400]}"
            )
    return told


def _beyond_schemas(body: str) -> bool:
    return any(f'"code":"{code}"' in body for code in BEYOND_SCHEMAS) or any(
        told in body for told in ("An order takes 1 to 20", "`paid_at` must be from 2000 to 9998")
    )


class Signed(requests.auth.AuthBase):
    """Signs what is sent, as the gateway would."""

    def __init__(self, config: Config) -> None:
        self._secrets = config.gateway_secrets

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        raw = body.encode() if isinstance(body, str) else body
        request.headers.update(signing.headers(self._secrets, raw, int(time.time())))
        return request


def notify(document: dict[str, Any], address: str, config: Config) -> Counter[int]:
    """Notifications that are truly signed, whatever they say; how often each status came."""
    schema = schemathesis.openapi.from_dict(document)
    operation = schema["/payments/notify"]["POST"]
    statuses: Counter[int] = Counter()
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @seed(SEED)
        @settings(
            max_examples=3 * EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def tell(case: schemathesis.Case) -> None:
            response = case.call(base_url=address, auth=Signed(config))
            statuses[response.status_code] += 1
            case.validate_response(response, excluded_checks=[schemathesis.checks.positive_data_acceptance])

        tell()
    return statuses


@asynccontextmanager
async def gateway() -> AsyncIterator[str]:
    """A payment gateway that knows of no payment; its address."""

    async def no_payment(request: web.Request) -> web.Response:
        return web.Response(status=404)

    app = web.Application()
    app.router.add_get("/transactions/{order_id}", no_payment)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def by_kind(document: dict[str, Any]) -> dict[str, list[str]]:
    """Kind of token ("": none) -> the operations that it may ask, each under one kind."""
    found: dict[str, list[str]] = {}
    for methods in document["paths"].values():
        for operation in methods.values():
            kind = next((kind for need in operation["security"] for kind in need), "")
            found.setdefault(kind, []).append(operation["operationId"])
    return found


def with_what_there_is(document: dict[str, Any], orders: list[str], ticket: str, tokens: list[str]) -> Any:
    """The document, narrowed to things that exist: only for data that it allows."""
    narrow = copy.deepcopy(document)
    for path in narrow["paths"].values():
        for operation in path.values():
            for parameter in operation["parameters"]:
                if parameter["name"] in ("order_id", "code"):
                    known = orders if parameter["name"] == "order_id" else [ticket]
                    parameter["schema"], parameter["example"] = {"type": "string", "enum": known}, known[0]
    schemas = narrow["components"]["schemas"]
    schemas["OrderItem"]["properties"]["product_id"]["maximum"] = 2
    for struct in ("ScanRequest", "UploadedScan", "DecryptRequest"):
        its = schemas[struct]["properties"]
        its["qr_token"] = {"type": "string", "enum": tokens}
        if struct != "DecryptRequest":
            its["function_code"] = {"type": "string", "enum": ["bus", "ferry", "museum"]}
            its["venue_code"] = {"type": "string", "enum": ["pier-1", "museum", "nowhere"]}
    return narrow


@pytest.mark.timeout(300)  # a minute beside others
async def test_no_answer_is_a_failure_or_outside_of_what_the_document_promises(
    environment: dict[str, str], wechat_keys: WeChatKeys
) -> None:
    async with gateway() as gateway_url, serving(WeChat(wechat_keys).app()) as wechat_url:
        environment |= {"GATELINE_LOG_LEVEL": "warning", "GATELINE_GATEWAY_URL": gateway_url}
        environment |= wechat_keys.environment(wechat_url) | {"GATELINE_PORT": str(unused_port())}
        config = configuration.load(environment)
        async with (
            gateline(environment, "--with-jobs") as process,
            open_parts(config) as parts,
            ClientSession(base_url=process.address) as session,
        ):
            backlog = Backlog(
                parts.streams, parts.epochs, parts.stream_names, entries_max=10**9, memory_mb_max=0
            )
            road = Road(session, config, parts, backlog, url=process.address)
            tokens, orders, ticket = await _set_the_scene(road)
            document = (await road.call("GET", "/openapi/openapi.json")).json
            asked: Counter[str] = Counter()
            told = []
            for kind, operations in by_kind(document).items():
                counted, found = await asyncio.to_thread(
                    faults, document, process.address, tokens[kind], operations
                )
                asked, told = asked + counted, told + found
            qr_tokens = [await road.qr(ticket) for _ in range(3)]
            real = with_what_there_is(document, orders, ticket, qr_tokens)
            for kind in ("buyer", "operator"):
                counted, found = await asyncio.to_thread(
                    faults, real, process.address, tokens[kind], by_kind(document)[kind], mode="positive"
                )
                asked, told = asked + counted, told + found
            statuses = await asyncio.to_thread(notify, document, process.address, config)
    assert not told, "\n\n".join(told)
    assert len(asked) == sum(len(methods) for methods in document["paths"].values())
    assert min(asked.values()) >= 10 and asked["POST /venue/scan"] > 50, asked
    assert set(statuses) >= {400, 404} and max(statuses) < 500, statuses
    assert not [event for event in process.events if event["event"] == "request_failed"]


async def _set_the_scene(road: Road) -> tuple[dict[str, dict[str, str]], list[str], str]:
    """(kind -> headers, orders of the buyer, a ticket of theirs)"""
    await road.until_ready()
    await road.venue("pier-1", ["bus"])
    tokens = {"buyer": road.buyer(), "operator": await road.gate(), "analyst": await road.analyst(), "": {}}
    products = [
        await road.product({"bus": 50}, sellable=100_000),
        await road.product({"ferry": 1}, sellable=1, price_fen=0),
    ]

    async def followed() -> bool:
        shown = (await road.call("GET", "/catalog")).json["products"]
        return {each["id"] for each in shown} >= set(products)

    await eventually(followed)
    (ticket,) = await road.buy({products[0]: 1})
    orders = [ticket["order_id"], *[(await road.order({products[0]: 1})).json["order_id"] for _ in range(3)]]
    return tokens, orders, ticket["ticket_code"]
