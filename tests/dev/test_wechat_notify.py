"""Notifications: sealed as WeChat seals them, told until they are taken, and each way in which they go wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from typing import Any

import aiohttp
import msgspec
import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from server.dev import wechat_notify, wechat_seals
from server.dev.wechat import WeChat
from server.dev.wechat_faults import Dice, Faults, everything
from server.dev.wechat_keys import WeChatKeys
from tests.dev.wechat_scene import CREATE, FEN, SILENCE, Scene, Told, scene, sealed_by
from tests.road import PATIENCE_S

QUICK = 0.0005  # of WeChat's times: the first retry after 7.5 ms


def opened(keys: WeChatKeys, told: Told) -> dict[str, Any]:
    """The transaction of a notification, by the documentation."""
    resource = json.loads(told.body)["resource"]
    plain = AESGCM(keys.api_v3_key.encode()).decrypt(
        resource["nonce"].encode(),
        base64.b64decode(resource["ciphertext"]),
        resource["associated_data"].encode(),
    )
    transaction: dict[str, Any] = json.loads(plain)
    return transaction


async def bought(stage: Scene, **changes: Any) -> str:
    """An order that was paid: its out_trade_no."""
    body, told = await stage.create(**changes)
    assert await stage.pay(told["prepay_id"]) == "requestPayment:ok"
    return str(body["out_trade_no"])


async def made(stage: Scene) -> str:
    """An order that was not paid: its out_trade_no."""
    return str((await stage.create())[0]["out_trade_no"])


async def test_a_payment_is_told_encrypted_and_signed(stage: Scene) -> None:
    number = await bought(stage, attach="order 7")
    await stage.until(lambda: stage.wechat.still_telling == 0)

    (told,) = stage.told
    envelope = json.loads(told.body)
    assert sealed_by(stage.keys, told.headers, told.body) in (
        stage.keys.public_key_id,
        stage.keys.platform_serial,
    )
    assert told.headers["Wechatpay-Signature-Type"] == "WECHATPAY2-SHA256-RSA2048"
    assert (envelope["event_type"], envelope["resource_type"]) == ("TRANSACTION.SUCCESS", "encrypt-resource")
    assert envelope["resource"]["algorithm"] == "AEAD_AES_256_GCM"
    assert envelope["resource"]["original_type"] == "transaction"
    assert opened(stage.keys, told) == await stage.query(number)
    assert stage.wechat.deliveries[0][:3] == (number, 200, False)


async def test_both_keys_sign_in_turn(stage: Scene) -> None:
    for _ in range(4):
        await bought(stage)
    await stage.until(lambda: len(stage.told) == 4)

    serials = [sealed_by(stage.keys, told.headers, told.body) for told in stage.told]
    assert serials.count(stage.keys.public_key_id) == serials.count(stage.keys.platform_serial) == 2


async def test_it_is_told_again_until_it_is_taken_with_one_id_and_fresh_seals(stage: Scene) -> None:
    stage.answers.extend([500, 401, 302])
    await bought(stage)
    await stage.until(lambda: stage.wechat.still_telling == 0)

    assert [each.status for each in stage.wechat.deliveries] == [500, 401, 302, 200]
    assert len({json.loads(told.body)["id"] for told in stage.told}) == 1
    assert len({told.headers["Wechatpay-Nonce"] for told in stage.told}) == 4
    assert len({json.loads(told.body)["resource"]["nonce"] for told in stage.told}) == 4


async def test_an_answer_of_204_is_enough(stage: Scene) -> None:
    stage.answers.append(204)
    await bought(stage)
    await stage.until(lambda: stage.wechat.still_telling == 0)

    assert [each.status for each in stage.wechat.deliveries] == [204]


async def test_the_schedule_is_wechats_and_ends(keys: WeChatKeys) -> None:
    async with scene(WeChat(keys, time_scale=0)) as stage:
        stage.answers.extend([500] * 100)
        await bought(stage)
        await stage.until(lambda: stage.wechat.still_telling == 0)

        assert len(stage.told) == 16

    minutes = [wait_s / 60 for wait_s in wechat_notify.RETRIES_S]
    assert minutes == [0.25, 0.25, 0.5, 3, 10, 20, 30, 30, 30, 60, 180, 180, 180, 360, 360]


async def test_the_waits_are_scaled(keys: WeChatKeys) -> None:
    async with scene(WeChat(keys, time_scale=0.02)) as stage:
        stage.answers.append(500)
        began = time.monotonic()
        await bought(stage)
        await stage.until(lambda: stage.wechat.still_telling == 0)

        assert 0.3 <= time.monotonic() - began < 10


async def test_a_merchant_who_does_not_answer_in_time_is_told_again(
    keys: WeChatKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wechat_notify, "SIMULATED_ANSWER_S_MAX", 0.2)
    async with scene(WeChat(keys, time_scale=QUICK)) as stage:
        stage.answers.extend([SILENCE, SILENCE])
        began = time.monotonic()
        await bought(stage)
        await stage.until(lambda: len(stage.wechat.deliveries) >= 2)
        assert 0.4 <= time.monotonic() - began < 10

        assert {each.status for each in stage.wechat.deliveries[:2]} == {0}
        await stage.until(lambda: stage.wechat.still_telling == 0)
        assert stage.wechat.deliveries[-1].status == 200


async def test_it_closes_while_it_is_still_telling(keys: WeChatKeys) -> None:
    began = time.monotonic()
    async with scene(WeChat(keys)) as stage:
        stage.answers.append(500)
        await bought(stage)
        await stage.until(lambda: len(stage.told) == 1)
        assert stage.wechat.still_telling == 1

    assert stage.wechat.still_telling == 0
    assert time.monotonic() - began < 10  # the next time would be in a quarter of a minute


async def test_no_more_is_told_at_once_than_the_bound(
    keys: WeChatKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wechat_notify, "CASHIER_SESSIONS_MAX", 2)
    async with scene(WeChat(keys)) as stage:
        stage.answers.extend([500] * 5)
        for _ in range(4):
            await bought(stage)

        assert stage.wechat.still_telling == 2


# Misbehaviour, one kind at a time.


async def told_with(keys: WeChatKeys, faults: Faults, payments: int = 1) -> Scene:
    """A scene in which so many payments were told with these faults."""
    async with scene(WeChat(keys, faults, time_scale=QUICK)) as stage:
        for _ in range(payments):
            await bought(stage)
        await stage.until(lambda: stage.wechat.still_telling == 0)
    return stage


async def test_a_lost_one_is_never_told(keys: WeChatKeys) -> None:
    stage = await told_with(keys, Faults(notify_lost=1))

    assert stage.told == []
    assert [each.state.name for each in stage.wechat.orders().values()] == ["SUCCESS"]


async def test_a_doubled_one_comes_twice_with_one_id(keys: WeChatKeys) -> None:
    stage = await told_with(keys, Faults(notify_twice=1))

    assert len(stage.told) == 2
    assert len({json.loads(told.body)["id"] for told in stage.told}) == 1
    assert all(sealed_by(keys, told.headers, told.body) for told in stage.told)


async def test_a_probe_comes_before_the_true_one_and_does_not_hold(keys: WeChatKeys) -> None:
    stage = await told_with(keys, Faults(notify_signtest=1))

    probe, true = stage.told
    assert probe.headers["Wechatpay-Signature"].startswith("WECHATPAY/SIGNTEST/")
    with pytest.raises((InvalidSignature, ValueError)):
        sealed_by(keys, probe.headers, probe.body)
    assert sealed_by(keys, true.headers, true.body)
    assert [each.wrong for each in stage.wechat.wrong_ones_taken] == [True]  # this merchant takes everything


async def test_a_corrupted_one_differs_by_a_byte_and_does_not_hold(keys: WeChatKeys) -> None:
    stage = await told_with(keys, Faults(notify_corrupted=1), payments=8)

    assert len(stage.told) == 8
    for told in stage.told:
        with pytest.raises(InvalidSignature):
            sealed_by(keys, told.headers, told.body)
        assert opened(keys, told)["trade_state"] == "SUCCESS"
    assert len(stage.wechat.wrong_ones_taken) == 8


async def test_a_late_one_waits_and_comes(keys: WeChatKeys) -> None:
    async with scene(WeChat(keys, Faults(notify_late=1, seed=1), time_scale=0.01)) as stage:
        began = time.monotonic()
        await bought(stage)
        await stage.until(lambda: stage.wechat.still_telling == 0)
        assert time.monotonic() - began > 0.05
        assert len(stage.told) == 1


async def test_a_reordered_one_comes_after_the_next(keys: WeChatKeys) -> None:
    seed = next(  # of which the first payment is held back and the second is not
        seed for seed in range(100) if _held(seed) == [True, False]
    )
    async with scene(WeChat(keys, Faults(notify_reordered=0.5, seed=seed), time_scale=1)) as stage:
        first, second = await bought(stage), await bought(stage)
        await stage.until(lambda: len(stage.told) == 2)

        assert [opened(keys, told)["out_trade_no"] for told in stage.told] == [second, first]


def _held(seed: int) -> list[bool]:
    dice = Dice(Faults(notify_reordered=0.5, seed=seed))
    return [dice.happens("notify_reordered") for _ in range(2)]


async def test_a_reordered_one_that_nothing_follows_comes_all_the_same(keys: WeChatKeys) -> None:
    stage = await told_with(keys, Faults(notify_reordered=1))

    assert len(stage.told) == 1


async def test_with_everything_on_at_once_whoever_is_careful_and_repeats_gets_on(keys: WeChatKeys) -> None:
    faults = msgspec.structs.replace(everything(seed=5), hang_s=0.05)
    async with scene(WeChat(keys, faults, time_scale=QUICK), careful=True) as stage:
        for _ in range(60):
            await _bought_in_the_end(stage)
        async with asyncio.timeout(PATIENCE_S):
            while stage.wechat.still_telling:
                await asyncio.sleep(0.02)

        told = {opened(keys, each)["out_trade_no"] for each in stage.told}
        assert 36 <= len(told) < 60
        assert {each.fault for each in stage.wechat.received} == {None, *faults.calls()}
        assert any(each.wrong for each in stage.wechat.deliveries)
        assert stage.wechat.wrong_ones_taken == []


async def _bought_in_the_end(stage: Scene) -> None:
    """Prepays with the same parameters until an answer is good, and pays."""
    body = stage.asked()
    for _ in range(10):
        with contextlib.suppress(aiohttp.ServerDisconnectedError, InvalidSignature):
            answer = await stage.call("POST", CREATE.format("jsapi"), body)
            if answer.status == 200 and sealed_by(stage.keys, answer.headers, answer.raw):
                assert await stage.pay(answer.json["prepay_id"]) == "requestPayment:ok"
                return
    raise AssertionError("no good answer to ten calls")


# By hand.


async def test_by_hand_any_field_of_the_transaction_is_another(stage: Scene) -> None:
    number = await made(stage)

    delivery = await stage.wechat.notify(
        number, mchid="1900000000", amount={"total": 1}, transaction_id="42", out_trade_no="another"
    )

    (told,) = stage.told
    paid = opened(stage.keys, told)
    assert (delivery.status, delivery.number, delivery.wrong) == (200, "another", False)
    assert (paid["mchid"], paid["transaction_id"], paid["out_trade_no"]) == ("1900000000", "42", "another")
    assert paid["amount"] == {"total": 1, "payer_total": FEN, "currency": "CNY", "payer_currency": "CNY"}
    assert paid["trade_state"] == "SUCCESS"
    assert sealed_by(stage.keys, told.headers, told.body)
    assert stage.wechat.orders()[number].state.name == "NOTPAY"


async def test_by_hand_a_payment_that_happened_is_told_again_as_it_was(stage: Scene) -> None:
    number = await bought(stage)
    await stage.until(lambda: len(stage.told) == 1)

    await stage.wechat.notify(number)

    assert opened(stage.keys, stage.told[1]) == opened(stage.keys, stage.told[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"corrupt": "body"},
        {"corrupt": "signature"},
        {"probe": True},
    ],
    ids=str,
)
async def test_by_hand_a_seal_is_broken(stage: Scene, changes: dict[str, Any]) -> None:
    delivery = await stage.wechat.notify(await made(stage), **changes)

    (told,) = stage.told
    assert delivery.wrong
    with pytest.raises((InvalidSignature, ValueError)):
        sealed_by(stage.keys, told.headers, told.body)
    assert json.loads(told.body)


async def test_by_hand_a_corrupted_body_differs_by_one_byte(
    stage: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wechat_seals, "encrypted", lambda *_: {"ciphertext": "AAAA"})
    monkeypatch.setattr(wechat_notify, "uuid4", lambda: "5f0c")
    number = await made(stage)
    await stage.wechat.notify(number)
    await stage.wechat.notify(number, corrupt="body")

    true, changed = (json.loads(told.body) | {"create_time": ""} for told in stage.told)
    assert (true.pop("id"), changed.pop("id")) == ("5f0c", "0f0c")
    assert true == changed


async def test_by_hand_a_seal_holds_and_is_stale_or_of_a_key_that_nobody_knows_or_hides_nothing(
    stage: Scene,
) -> None:
    number = await made(stage)
    sent = [
        await stage.wechat.notify(number, age_s=301),
        await stage.wechat.notify(number, told_serial="PUB_KEY_ID_42"),
        await stage.wechat.notify(number, api_v3_key="x" * 32),
        await stage.wechat.notify(number, corrupt="ciphertext"),
        await stage.wechat.notify(number, serial=stage.keys.platform_serial, age_s=-200),
    ]

    stale, strange, locked, garbled, good = stage.told
    assert sealed_by(stage.keys, stale.headers, stale.body)
    assert time.time() - int(stale.headers["Wechatpay-Timestamp"]) >= 300
    assert strange.headers["Wechatpay-Serial"] == "PUB_KEY_ID_42"
    for told in (locked, garbled):
        assert sealed_by(stage.keys, told.headers, told.body)
        with pytest.raises(InvalidTag):
            opened(stage.keys, told)
    assert sealed_by(stage.keys, good.headers, good.body) == stage.keys.platform_serial
    assert [each.wrong for each in sent] == [True, True, True, True, False]


async def test_by_hand_only_an_order_that_is_known_is_told(stage: Scene) -> None:
    with pytest.raises(KeyError):
        await stage.wechat.notify("unknown")
