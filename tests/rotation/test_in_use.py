"""Keys that are replaced in a running server: every way by which a key is used follows with the next request."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from aiohttp import ClientSession, WSMsgType

from server.config import Config
from server.dev.gateway import Gateway
from server.dev.serving import serving
from server.domain.qr import QrKeys, issue
from server.telemetry import KEYS
from server.web.auth import Audience, Tokens
from tests.conftest import Serve
from tests.road import PATIENCE_S, Answer, Road
from tests.web.wire import posted, wire

NEW_QR, NEW_JWT, NEW_SECRET = (7, b"q" * 32), ("k7", b"j" * 32), b"w" * 32


def rotated(road: Road, **rings: Any) -> Config:
    """The configuration in use with other rings."""
    return msgspec.structs.replace(road.parts.keyring.config, **rings)


def replace(road: Road, **rings: Any) -> None:
    """As the server does when it has read them."""
    road.parts.keyring.replace(rotated(road, **rings))


async def a_ticket(road: Road, uses: int = 50) -> str:
    """Of a buyer who is known by a token of the first key."""
    product = await road.product({"bus": uses})
    (ticket,) = await road.buy({product: 1})
    code: str = ticket["ticket_code"]
    return code


async def test_a_qr_is_sealed_with_the_new_key_at_once_and_one_of_the_old_passes_until_it_leaves(
    road: Road,
) -> None:
    code = await a_ticket(road)
    (old,) = road.config.qr_keys
    sealed_by_old = [await road.qr(code) for _ in range(2)]

    replace(road, qr_keys=(NEW_QR, old))
    sealed_by_new = await road.qr(code)
    passed = [await road.scan(token, "bus") for token in (sealed_by_new, sealed_by_old[0])]
    replace(road, qr_keys=(NEW_QR,))
    refused = await road.scan(sealed_by_old[1], "bus")
    shown = await road.call(
        "POST", "/qr/decrypt", headers=await road.gate(), json={"qr_token": sealed_by_old[1]}
    )

    assert [each.json["result"] for each in passed] == ["success"] * 2
    assert (refused.json["result"], refused.json["reason"]) == ("reject", "QR_UNKNOWN_KEY")
    assert shown.json["code"] == "QR_UNKNOWN_KEY"


async def test_a_scan_that_is_asked_again_after_its_key_has_left_passes_no_second_time_but_is_not_known_either(
    road: Road,
) -> None:
    """Which is why a key stays in the ring for as long as a scan may be asked again, or uploaded."""
    code = await a_ticket(road)
    token = await road.qr(code)
    (old,) = road.config.qr_keys
    replace(road, qr_keys=(NEW_QR, old))
    first = await road.scan(token, "bus", scan_id="asked-again")
    again = await road.scan(token, "bus", scan_id="asked-again")
    replace(road, qr_keys=(NEW_QR,))
    too_late = await road.scan(token, "bus", scan_id="asked-again")
    assert first.json["result"] == "success" and first.raw == again.raw
    assert (too_late.status, too_late.json["code"]) == (409, "SCAN_ID_CONFLICT")


async def test_a_lane_that_remembers_a_gate_asks_anew_when_the_key_of_its_token_has_left(road: Road) -> None:
    """By one connection and with the very same headers, as a gate sends them."""
    code = await a_ticket(road)
    (old,) = road.config.jwt_keys
    gate = await road.gate()

    async with wire(road.url) as line:

        async def scan() -> Answer:
            qr = issue(QrKeys(dict(road.config.qr_keys)), code, now_ms=_now_ms(), ttl_ms=60_000).token
            body = {"qr_token": qr, "function_code": "bus", "scan_id": uuid4().hex}
            await line.send(posted(body, gate))
            return await line.answer()

        statuses = [(await scan()).status]
        replace(road, jwt_keys=(old, NEW_JWT))
        statuses.append((await scan()).status)
        replace(road, jwt_keys=(NEW_JWT, old))
        statuses.append((await scan()).status)
        replace(road, jwt_keys=(NEW_JWT,))
        gone = await scan()

    assert statuses == [200, 200, 200]
    assert (gone.status, gone.json["code"]) == (401, "TOKEN_INVALID")


async def test_a_socket_whose_tokens_key_has_left_is_closed_like_one_that_ended_and_others_go_on(
    road: Road,
) -> None:
    code = await a_ticket(road)
    (old,) = road.config.jwt_keys
    await road.gate()
    generation = road.parts.directory.current.operators["gina"].generation
    new_token = Tokens((NEW_JWT,)).issue(Audience.GATE, "gina", seconds=60, generation=generation)
    replace(road, jwt_keys=(NEW_JWT, old))
    async with ClientSession(road.url) as session:
        by_old = await session.ws_connect("/venue/stream", headers=await road.gate())
        by_new = await session.ws_connect("/venue/stream", headers={"Authorization": f"Bearer {new_token}"})
        replace(road, jwt_keys=(NEW_JWT,))
        end = await by_old.receive(PATIENCE_S)
        await by_new.send_str(_frame(await _shown(road, code)))
        goes_on = json.loads((await by_new.receive(PATIENCE_S)).data)

    assert (end.type, end.data, end.extra) == (WSMsgType.CLOSE, 4401, "TOKEN_INVALID")
    assert goes_on["result"] == "success"


async def test_a_socket_stays_open_when_a_key_comes_or_another_one_signs(road: Road) -> None:
    code = await a_ticket(road)
    (old,) = road.config.jwt_keys
    async with (
        ClientSession(road.url) as session,
        session.ws_connect("/venue/stream", headers=await road.gate()) as socket,
    ):
        for ring in ((old, NEW_JWT), (NEW_JWT, old)):
            replace(road, jwt_keys=ring)
            await asyncio.sleep(1.2)  # sockets are looked at twice a second
            await socket.send_str(_frame(await _shown(road, code)))
            assert json.loads((await socket.receive(PATIENCE_S)).data)["result"] == "success"


async def test_notifications_are_taken_by_each_secret_of_the_ring_and_by_no_other(road: Road) -> None:
    product = await road.product({"bus": 1})
    (old,) = road.config.gateway_secrets

    async def told(secret: bytes) -> int:
        made = await road.order({product: 1})
        return (await road.notify(made.json["order_id"], made.json["total_fen"], secret=secret)).status

    assert [await told(old), await told(NEW_SECRET)] == [200, 401]
    replace(road, gateway_secrets=(old, NEW_SECRET))
    assert [await told(old), await told(NEW_SECRET)] == [200, 200]
    replace(road, gateway_secrets=(NEW_SECRET,))
    assert [await told(old), await told(NEW_SECRET)] == [401, 200]


async def test_what_we_ask_the_gateway_is_signed_with_the_new_secret_by_requests_and_by_jobs(
    serve: Serve, config: Config
) -> None:
    gateway = Gateway([NEW_SECRET])
    async with serving(gateway.app()) as url:
        road = await serve(gateway_url=url)
        product = await road.product({"bus": 1})
        order_id = (await road.order({product: 1})).json["order_id"]
        asked = [await road.call("POST", f"/orders/{order_id}/query", headers=road.buyer())]
        replace(road, gateway_secrets=(NEW_SECRET, *config.gateway_secrets))
        asked.append(await road.call("POST", f"/orders/{order_id}/query", headers=road.buyer()))
        by_jobs = await road.parts.jobs_paying.provider.query(order_id)

    assert [each.status for each in asked] == [503, 200]
    assert by_jobs == []


async def test_a_ring_that_cannot_be_is_refused_before_anything_is_replaced(road: Road) -> None:
    before = road.parts.keyring.config
    with pytest.raises(ValueError, match="two QR key ids"):
        replace(road, jwt_keys=(NEW_JWT,), qr_keys=((1, b"s" * 32), (2, b"s" * 32)))
    assert road.parts.keyring.config is before
    assert (await road.call("GET", "/my/tickets", headers=road.buyer())).status == 200


async def test_metrics_say_which_keys_are_accepted_and_which_one_signs(road: Road) -> None:
    (old,), another = road.config.jwt_keys, ("k-counted", b"c" * 32)
    replace(road, jwt_keys=(old, another))
    before = _told("jwt", "k-counted")
    replace(road, jwt_keys=(another, old))
    signing = _told("jwt", "k-counted")
    replace(road, jwt_keys=(old,))
    gone = _told("jwt", "k-counted")

    assert (before, signing, gone) == (
        {"accepts": 1.0},
        {"accepts": 1.0, "signs": 1.0},
        {"accepts": 0.0, "signs": 0.0},
    )
    text = (await road.call("GET", "/metrics")).raw.decode()
    assert 'gateline_keys{key="k-counted (' in text


def _told(purpose: str, key_id: str) -> dict[str, float]:
    """use -> its value for this key."""
    return {
        sample.labels["use"]: sample.value
        for metric in KEYS.collect()
        for sample in metric.samples
        if sample.labels["purpose"] == purpose and sample.labels["key"].startswith(f"{key_id} (")
    }


def _now_ms() -> int:
    return int(time.time() * 1000)


def _frame(token: str) -> str:
    return json.dumps({"qr_token": token, "function_code": "bus", "scan_id": uuid4().hex})


async def _shown(road: Road, code: str) -> str:
    """A QR of the server's own present key, without asking as a buyer, whose token may have ended."""
    ring = road.parts.keyring.qr
    assert ring is not None
    return issue(ring, code, now_ms=_now_ms(), ttl_ms=60_000).token
