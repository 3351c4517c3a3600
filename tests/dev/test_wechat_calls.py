"""API v3 over HTTP: who is let in, how answers are signed, and each way in which a call goes wrong."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509 import load_pem_x509_certificate

from server.dev.wechat import WeChat
from server.dev.wechat_faults import Faults
from server.dev.wechat_keys import WeChatKeys
from tests.dev.wechat_scene import CREATE, ORDER, Scene, number, scene, sealed_by
from tests.road import PATIENCE_S

PATH = CREATE.format("native")


def _ago(seconds: float) -> str:
    return str(int(time.time() - seconds))


UNAUTHORIZED: list[tuple[str, dict[str, Any]]] = [
    ("another merchant", {"mchid": "1900000000"}),
    ("another certificate", {"serial_no": "5D" * 20}),
    ("a timestamp of six minutes ago", {"seconds_ago": 360}),
    ("a timestamp of six minutes ahead", {"seconds_ago": -360}),
    ("a timestamp that is none", {"timestamp": "today"}),
    ("a signature of another path", {"signed_path": CREATE.format("jsapi")}),
    ("a signature that is none", {"signature": "AAAA"}),
    ("a signature that is no base64", {"signature": "*"}),
]


@pytest.mark.parametrize("changes", [row[1] for row in UNAUTHORIZED], ids=[row[0] for row in UNAUTHORIZED])
async def test_a_request_that_is_not_the_merchants_is_refused_unsigned(
    stage: Scene, changes: dict[str, Any]
) -> None:
    changes = dict(changes)
    if "seconds_ago" in changes:  # counted now: what was collected first may be run minutes later
        changes["timestamp"] = _ago(changes.pop("seconds_ago"))
    answer = await stage.call("POST", PATH, stage.asked(), **changes)

    assert answer.status == 401
    assert answer.json["code"] == "SIGN_ERROR"
    assert sealed_by(stage.keys, answer.headers, answer.raw) == ""
    assert stage.wechat.orders() == {}
    assert [(call.name, call.status) for call in stage.wechat.received] == [("native", 401)]


async def test_a_request_without_authorization_or_with_a_changed_body_is_refused(stage: Scene) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer me"},
        {"Authorization": stage.authorization("POST", PATH, b"{}")},
    ):
        async with stage.session.post(stage.url + PATH, data=b"{ }", headers=headers) as answer:
            assert answer.status == 401


async def test_the_signature_covers_the_query(stage: Scene) -> None:
    body, _ = await stage.create()
    path = ORDER.format(body["out_trade_no"])
    asked = f"{path}?mchid={stage.keys.mchid}"

    assert (await stage.call("GET", asked)).status == 200
    assert (await stage.call("GET", asked, signed_path=path)).status == 401
    assert (await stage.call("GET", path)).status == 400  # without mchid


@pytest.mark.parametrize("public_key", [True, False])
async def test_every_answer_is_signed_by_the_key_that_the_merchant_names(
    stage: Scene, public_key: bool
) -> None:
    keys = stage.keys
    expected = keys.public_key_id if public_key else keys.platform_serial
    body = stage.asked()
    path = ORDER.format(body["out_trade_no"])
    for method, target, sent, status in (
        ("POST", PATH, body, 200),
        ("POST", PATH, body | {"description": "Another"}, 403),
        ("POST", PATH, [], 400),
        ("GET", f"{path}?mchid={keys.mchid}", None, 200),
        ("POST", f"{path}/close", {"mchid": keys.mchid}, 204),
        ("POST", f"{path}/close", {}, 400),
        ("GET", "/v3/certificates", None, 200),
    ):
        answer = await stage.call(method, target, sent, public_key=public_key)
        raw = answer.raw
        assert (answer.status, bool(raw)) == (status, status != 204)
        assert sealed_by(keys, answer.headers, raw) == expected
        assert abs(time.time() - int(answer.headers["Wechatpay-Timestamp"])) < 60


async def test_a_number_with_every_legal_character_is_found_again(stage: Scene) -> None:
    await stage.create("native", out_trade_no="aB3_-|*")

    assert (await stage.query("aB3_-|*"))["out_trade_no"] == "aB3_-|*"
    assert (await stage.query("aB3_-%7C%2A"))["out_trade_no"] == "aB3_-|*"


async def test_a_body_that_is_no_json_is_refused_signed(stage: Scene) -> None:
    raw = b'{"appid": '
    headers = {"Authorization": stage.authorization("POST", PATH, raw)}
    async with stage.session.post(stage.url + PATH, data=raw, headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "PARAM_ERROR")
        assert sealed_by(stage.keys, answer.headers, await answer.read()) == stage.keys.platform_serial


async def test_the_platform_certificate_comes_encrypted_by_the_api_v3_key(stage: Scene) -> None:
    answer = await stage.call("GET", "/v3/certificates")
    (told,) = answer.json["data"]
    sealed = told["encrypt_certificate"]

    plain = AESGCM(stage.keys.api_v3_key.encode()).decrypt(
        sealed["nonce"].encode(), base64.b64decode(sealed["ciphertext"]), sealed["associated_data"].encode()
    )

    assert load_pem_x509_certificate(plain) == stage.keys.platform_cert
    assert int(told["serial_no"], 16) == stage.keys.platform_cert.serial_number
    assert len(sealed["nonce"]) == 12


@pytest.mark.parametrize(
    ("fault", "status", "code", "done"),
    [
        ("fail_before", 500, "SYSTEM_ERROR", False),
        ("limited", 429, "FREQUENCY_LIMITED", False),
        ("fail_after", 502, None, True),
    ],
)
async def test_a_call_fails_before_or_after_it_was_done(
    stage: Scene, fault: str, status: int, code: str | None, done: bool
) -> None:
    stage.wechat.fail_next("native", fault)
    body = stage.asked()

    answer = await stage.call("POST", PATH, body)

    assert answer.status == status
    if code:
        assert answer.json["code"] == code
        assert sealed_by(stage.keys, answer.headers, answer.raw)
    else:
        assert answer.headers["Content-Type"].startswith("text/html")
    assert (body["out_trade_no"] in stage.wechat.orders()) is done
    assert (await stage.call("POST", PATH, body)).status == 200


@pytest.mark.parametrize(("fault", "done"), [("hang", True), ("dropped", False)])
async def test_a_call_without_an_answer_was_done_when_it_hung_and_not_when_it_was_dropped(
    keys: WeChatKeys, fault: str, done: bool
) -> None:
    hang_s = 0.3 if done else 10.0
    async with scene(WeChat(keys, Faults(hang_s=hang_s))) as stage:
        stage.wechat.fail_next("native", fault)
        body = stage.asked()
        began = time.monotonic()

        with pytest.raises(aiohttp.ServerDisconnectedError):
            await stage.call("POST", PATH, body)

        assert (time.monotonic() - began >= hang_s) is done
        assert (body["out_trade_no"] in stage.wechat.orders()) is done
        assert stage.wechat.received[-1].status == 0


async def test_the_simulator_closes_at_once_while_a_call_hangs(keys: WeChatKeys) -> None:
    began = time.monotonic()
    async with aiohttp.ClientSession() as session:  # the merchant still waits when the simulator goes
        async with scene(WeChat(keys)) as stage:
            stage.session = session
            stage.wechat.fail_next("native", "hang")
            hanging = asyncio.create_task(stage.call("POST", PATH, stage.asked()))
            await stage.until(lambda: bool(stage.wechat.received))
        with pytest.raises(aiohttp.ClientError):
            await hanging

    assert time.monotonic() - began < 10  # it would hang for 15


async def test_an_answer_may_be_badly_signed_stale_unknown_or_bare(stage: Scene) -> None:
    for fault in ("bad_signature", "stale", "unknown_serial", "unsigned"):
        stage.wechat.fail_next("native", fault)
    body = stage.asked()

    bad, stale, unknown, bare = [await stage.call("POST", PATH, body) for _ in range(4)]

    with pytest.raises(InvalidSignature):
        sealed_by(stage.keys, bad.headers, bad.raw)
    assert sealed_by(stage.keys, stale.headers, stale.raw)
    assert time.time() - int(stale.headers["Wechatpay-Timestamp"]) > 300
    assert unknown.headers["Wechatpay-Serial"] not in (stage.keys.public_key_id, stage.keys.platform_serial)
    assert "Wechatpay-Signature" not in bare.headers
    assert [answer.status for answer in (bad, stale, unknown, bare)] == [200] * 4


async def test_a_fault_befalls_one_call_of_its_name_alone(stage: Scene) -> None:
    stage.wechat.fail_next("close", "fail_before")
    body, _ = await stage.create()
    path = ORDER.format(body["out_trade_no"])

    statuses = [
        (await stage.call("POST", f"{path}/close", {"mchid": stage.keys.mchid})).status for _ in range(2)
    ]

    assert statuses == [500, 204]
    with pytest.raises(ValueError, match="not a valid CallFault"):
        stage.wechat.fail_next("close", "explode")


async def test_a_close_while_the_buyer_types_the_password_is_answered_202_and_closes_nothing(
    stage: Scene,
) -> None:
    stage.wechat.fail_next("close", "user_paying")
    body, made = await stage.create()
    close = f"{ORDER.format(body['out_trade_no'])}/close"

    told = await stage.call("POST", close, {"mchid": stage.keys.mchid})

    assert (told.status, told.json["code"]) == (202, "USER_PAYING")
    assert sealed_by(stage.keys, told.headers, told.raw) == stage.keys.public_key_id
    assert stage.wechat.received[-1].status == 202
    assert (await stage.query(body["out_trade_no"]))["trade_state"] == "NOTPAY"
    assert await stage.pay(made["prepay_id"]) == "requestPayment:ok"


async def test_a_held_call_was_accepted_and_answers_when_it_is_released(stage: Scene) -> None:
    hold = stage.wechat.hold_next("jsapi")
    body = stage.asked()
    call = asyncio.create_task(stage.call("POST", CREATE.format("jsapi"), body))

    await asyncio.wait_for(hold.accepted.wait(), PATIENCE_S)
    assert body["out_trade_no"] in stage.wechat.orders()
    await asyncio.sleep(0.05)
    assert not call.done()
    hold.release.set()

    assert (await call).status == 200


async def test_the_calls_are_remembered_without_their_headers(stage: Scene) -> None:
    body, _ = await stage.create()
    await stage.query(body["out_trade_no"])

    assert [(call.name, call.number, call.status) for call in stage.wechat.received] == [
        ("jsapi", body["out_trade_no"], 200),
        ("query", body["out_trade_no"], 200),
    ]
    assert stage.wechat.received[0].asked == body
    assert "WECHATPAY2" not in repr(stage.wechat.received)


@pytest.fixture
async def moody(keys: WeChatKeys) -> AsyncIterator[Scene]:
    """Half of the calls are limited, by a seed."""
    async with scene(WeChat(keys, Faults(call_limited=0.5, seed=7))) as running:
        yield running


async def test_rates_befall_calls_in_the_same_order_for_the_same_seed(moody: Scene, keys: WeChatKeys) -> None:
    first = [(await moody.call("POST", PATH, moody.asked())).status for _ in range(30)]
    async with scene(WeChat(keys, Faults(call_limited=0.5, seed=7))) as again:
        await again.call("GET", f"{ORDER.format(number())}?mchid={keys.mchid}")  # other calls change nothing
        second = [(await again.call("POST", PATH, again.asked())).status for _ in range(30)]

    assert first == second
    assert {200, 429} == set(first)
    assert 5 < first.count(429) < 25
