"""Schemathesis walks the road by the document alone: one answer leads to the next request, by the document's links.

The other half of `test_fuzz.py`, where each operation is asked for itself. Each step has the token of its kind, and
what a gateway tells is signed on its way out, as the gateway would.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import requests
import schemathesis
from aiohttp import ClientSession
from aiohttp.test_utils import unused_port
from redis.asyncio import Redis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from server import config as configuration
from server.app import open_parts
from server.config import Config
from server.dev.serving import serving
from server.dev.wechat import WeChat
from server.dev.wechat_keys import WeChatKeys
from server.hot.backlog import Backlog
from server.web.links import LINKS
from tests.fuzz.scene import FollowedRoad
from tests.web.process import gateline
from tests.web.test_fuzz import SEED, Signed, by_kind, failures, gateway

ROADS, STEPS = 12, 10  # of each kind of road
KINDS_OF_ROADS = (
    [
        "catalog",
        "create_order",
        "get_order",
        "pay_order",
        "query_order",
        "cancel_order",
        "notify",
        "my_orders",
    ],
    ["my_tickets", "show_qr", "ticket_info", "decrypt"],
    ["show_qr", "scan", "redemptions", "my_tickets"],
)


class Bearer(requests.auth.AuthBase):
    """Shows a token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def walk(
    document: dict[str, Any], address: str, tokens: dict[str, str], config: Config, operations: list[str]
) -> tuple[Counter[tuple[str, str, int]], list[str]]:
    """How often each link was followed, with which status at its end; and every answer that must not be."""
    generation = {
        "max-examples": ROADS,
        "deterministic": True,
        "no-shrink": True,
        "database": "none",
        "mode": "positive",
    }
    settings = SchemathesisConfig.from_dict(
        {
            "base-url": address,
            "workers": 1,
            "seed": SEED,
            "continue-on-failure": True,
            "suppress-health-check": ["all"],
            "generation": generation,
            "phases": {
                "enabled": False,
                "stateful": {"enabled": True, "max-steps": STEPS, "inference": {"algorithms": []}},
            },
        }
    )
    schema = schemathesis.openapi.from_dict(document, config=settings).include(operation_id=operations)
    schema.auth.set_from_requests(Signed(config)).apply_to(path="/payments/notify")
    for kind, its in by_kind(document).items():
        if kind:
            schema.auth.set_from_requests(Bearer(tokens[kind])).apply_to(operation_id=its)
    followed: Counter[tuple[str, str, int]] = Counter()
    told = []
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            told += failures(event)
            followed.update(_steps(event.recorder))
        elif isinstance(event, events.NonFatalError):
            told.append(f"{event.label}: {event.value!r}")
        elif isinstance(event, events.FatalError):
            told.append(repr(event.exception))
    return followed, told


def _steps(recorder: Any) -> list[tuple[str, str, int]]:
    """Of one road: from which operation to which it went, and how that was answered."""
    found = []
    for case_id, node in recorder.cases.items():
        if (
            node.parent_id is None
            or node.transition is None
            or recorder.interactions[case_id].response is None
        ):
            continue
        parent = recorder.cases[node.parent_id].value.operation
        found.append(
            (
                parent.definition.raw["operationId"],
                node.value.operation.definition.raw["operationId"],
                recorder.interactions[case_id].response.status_code,
            )
        )
    return found


async def _forget_how_often(redis: Redis) -> None:
    """All roads show the one ticket: more often than a ticket may be shown, which is tested elsewhere."""
    while True:
        if names := await redis.keys("{limits}*"):
            await redis.delete(*names)
        await asyncio.sleep(0.1)


async def test_every_link_leads_on_and_no_road_ends_in_a_failure(
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
            road = FollowedRoad(session, config, parts, backlog, url=process.address)
            await road.until_ready()
            await road.venue("pier-1", ["bus"])
            headers = {"buyer": road.buyer(), "operator": await road.gate(), "analyst": await road.analyst()}
            tokens = {kind: each["Authorization"].removeprefix("Bearer ") for kind, each in headers.items()}
            product = await road.product({"bus": 50}, sellable=100_000)
            await road.buy({product: 1})
            document = (await road.call("GET", "/openapi/openapi.json")).json
            document["components"]["schemas"]["OrderItem"]["properties"]["product_id"]["enum"] = [product]
            followed: Counter[tuple[str, str, int]] = Counter()
            told = []
            forgetting = asyncio.create_task(_forget_how_often(parts.redis))
            for operations in KINDS_OF_ROADS:
                found = await asyncio.to_thread(walk, document, process.address, tokens, config, operations)
                followed, told = followed + found[0], told + found[1]
            forgetting.cancel()
    assert not told, "\n\n".join(told)
    went = {(source, target) for source, target, _ in followed}
    assert went == {(link.source, link.target) for link in LINKS}, followed
    arrived = {(source, target) for source, target, status in followed if status < 300}
    # The others may be refused on the way: what was cancelled is not paid, a report takes no window of 2,000 years.
    assert arrived >= {
        ("catalog", "create_order"), ("create_order", "get_order"), ("create_order", "notify"),
        ("create_order", "cancel_order"), ("my_tickets", "show_qr"), ("show_qr", "decrypt"), ("show_qr", "scan"),
    }, followed  # fmt: skip
    assert not [event for event in process.events if event["event"] == "request_failed"]
