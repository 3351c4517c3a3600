"""Proof from outside: an independent client of WeChat Pay believes the simulator, and the simulator believes it.

Only its base address is redirected. Nothing else of it is changed, and the simulator has no case for it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from wechatpayv3.async_ import AsyncWeChatPay, WeChatPayType

from server.dev.wechat import WeChat
from server.dev.wechat_keys import WeChatKeys
from tests.dev.wechat_scene import FEN, Scene, number, scene

MODES = ["public_key", "certificate"]


def independent(stage: Scene, mode: str) -> AsyncWeChatPay:
    """The client of somebody else, for this merchant, in one of WeChat's two modes."""
    keys = stage.keys
    private = keys.mch_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = keys.pay_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    client = AsyncWeChatPay(
        wechatpay_type=WeChatPayType.MINIPROG,
        mchid=keys.mchid,
        private_key=private,
        cert_serial_no=keys.mch_serial,
        appid=keys.miniprogram_appid,
        apiv3_key=keys.api_v3_key,
        notify_url=stage.notify_url,
        public_key=public if mode == "public_key" else None,
        public_key_id=keys.public_key_id if mode == "public_key" else None,
    )
    client._core._gate_way = stage.url
    return client


@pytest.fixture(params=MODES)
async def outside(
    request: pytest.FixtureRequest, keys: WeChatKeys
) -> AsyncIterator[tuple[Scene, AsyncWeChatPay]]:
    """The simulator that signs notifications as the client expects, and the client."""
    async with (
        scene(WeChat(keys, signs_by=request.param)) as stage,
        independent(stage, request.param) as client,
    ):
        yield stage, client


async def test_it_prepays_in_all_three_ways(outside: tuple[Scene, AsyncWeChatPay]) -> None:
    stage, client = outside
    way: dict[str, Any]
    for way, name in (
        ({"pay_type": WeChatPayType.MINIPROG, "payer": {"openid": stage.openid()}}, "prepay_id"),
        ({"pay_type": WeChatPayType.NATIVE}, "code_url"),
        (
            {
                "pay_type": WeChatPayType.H5,
                "scene_info": {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}},
            },
            "h5_url",
        ),
    ):
        status, told = await client.pay(
            description="渡轮 Ferry", out_trade_no=number(), amount={"total": FEN}, **way
        )
        assert (status, list(json.loads(told))) == (200, [name])


async def test_it_queries_and_closes_and_is_refused_as_wechat_refuses(
    outside: tuple[Scene, AsyncWeChatPay],
) -> None:
    stage, client = outside
    order = number()
    await client.pay("Ferry", order, {"total": FEN}, payer={"openid": stage.openid()})

    status, told = await client.query(out_trade_no=order)
    assert (status, json.loads(told)["trade_state"]) == (200, "NOTPAY")
    status, told = await client.close(order)
    assert (status, told) == (204, b"")
    _, told = await client.query(out_trade_no=order)
    assert json.loads(told)["trade_state"] == "CLOSED"
    status, told = await client.close(order)
    assert (status, json.loads(told)["code"]) == (400, "ORDER_CLOSED")
    status, told = await client.query(out_trade_no=number())
    assert (status, json.loads(told)["code"]) == (404, "ORDER_NOT_EXIST")


async def test_it_verifies_and_opens_the_notification_of_a_payment(
    outside: tuple[Scene, AsyncWeChatPay],
) -> None:
    stage, client = outside
    order = number()
    _, told = await client.pay(
        "Ferry", order, {"total": FEN}, payer={"openid": stage.openid()}, attach="order 7"
    )
    assert await stage.pay(json.loads(told)["prepay_id"]) == "requestPayment:ok"
    await stage.until(lambda: len(stage.told) == 1)

    (letter,) = stage.told
    opened = client.callback(letter.headers, letter.body)
    assert opened["event_type"] == "TRANSACTION.SUCCESS"
    paid = opened["resource"]
    assert (paid["out_trade_no"], paid["trade_state"], paid["attach"]) == (order, "SUCCESS", "order 7")
    assert (paid["amount"]["total"], paid["payer"]["openid"]) == (FEN, stage.openid())
    _, told = await client.query(out_trade_no=order)
    assert json.loads(told) == paid
    changed = letter.body.replace(b'"id":"', b'"id":"0', 1)
    assert client.callback(letter.headers, changed) is None


async def test_it_does_not_believe_an_answer_with_a_wrong_signature(
    outside: tuple[Scene, AsyncWeChatPay],
) -> None:
    stage, client = outside
    stage.wechat.fail_next("native", "bad_signature")

    with pytest.raises(Exception, match="failed to verify the signature"):
        await client.pay("Ferry", number(), {"total": FEN}, pay_type=WeChatPayType.NATIVE)


async def test_the_signature_of_its_launch_is_accepted_by_the_phone(
    outside: tuple[Scene, AsyncWeChatPay],
) -> None:
    stage, client = outside
    _, told = await client.pay("Ferry", number(), {"total": FEN}, payer={"openid": stage.openid()})
    lines = [
        stage.keys.miniprogram_appid,
        "1700000000",
        "5K8264ILTKCH16CQ",
        f"prepay_id={json.loads(told)['prepay_id']}",
    ]
    payload = dict(zip(("appId", "timeStamp", "nonceStr", "package"), lines, strict=True))

    _, told = await stage.phone(
        "pay", user="ann", payPayload={**payload, "signType": "RSA", "paySign": client.sign(lines)}
    )

    assert told == {"errMsg": "requestPayment:ok"}
