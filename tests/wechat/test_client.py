"""The client of WeChat Pay against hosts that answer well, badly, forged, or not at all."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import socket
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest
from aiohttp import ClientSession, web
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from wechatpayv3.utils import rsa_verify

from server.domain.payments import Channel
from server.wechat import client as client_module
from server.wechat import sending
from server.wechat.client import Rejected, Retryable, Unknown, WeChatClient, WeChatError
from server.wechat.sealed import Amount, TradeState
from tests.wechat.host import (
    Asked,
    Host,
    Reply,
    breaks_off,
    ends_early,
    hangs,
    is_no_gzip,
    open_host,
    refuses,
    says,
    speaks_no_http,
)
from tests.wechat.merchant import (
    MCHID,
    MERCHANT_SERIAL,
    NOW_S,
    NUMBER,
    OPENID,
    PAID_AT,
    PUBLIC_KEY_ID,
    key,
    signer,
    transaction,
    verifier,
)

PREPAY_ID = "wx26112221580621e9b071c00d9e093b0000"
REQUEST = json.dumps({"out_trade_no": NUMBER, "描述": "渡轮 票", "payer": {"openid": OPENID}}).encode()
JSAPI = Channel.WECHAT_JSAPI
GOOD = says(200, {"prepay_id": PREPAY_ID})


class Scene:
    """A main host and a backup, what they were asked, and a client of both whose pauses take no time."""

    def __init__(self, session: ClientSession, main: Host, backup: Host) -> None:
        self.session, self.main, self.backup = session, main, backup
        self.asked: list[Asked] = main.asked
        self.pauses: list[float] = []
        numbers = count()
        self.client = self.new(nonce=lambda: f"nonce{next(numbers)}")

    def new(self, **changes: Any) -> WeChatClient:
        options: dict[str, Any] = {
            "now": lambda: NOW_S + 0.9,
            "pause": self.pause,
            **changes,
        }
        urls = options.pop("urls", (self.main.url, self.backup.url))
        verifying = options.pop("verifier", None) or verifier(asked_for=PUBLIC_KEY_ID)
        return WeChatClient(self.session, urls, signer(), verifying, MCHID, **options)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def both(self, *replies: Reply) -> None:
        """The replies in the order of the sendings, which go to the two hosts in turn; the last one for ever."""
        self.main.will(*replies[::2])
        self.backup.will(*(replies[1::2] or replies[-1:]))

    async def fails(self, *replies: Reply, call: Callable[[], Awaitable[Any]] | None = None) -> WeChatError:
        """The fault of a call (of a prepay) to which the hosts reply so."""
        self.both(*replies)
        self.asked.clear()
        with pytest.raises(WeChatError) as fault:
            await (call() if call else self.client.prepay(JSAPI, REQUEST))
        return fault.value


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    asked: list[Asked] = []
    async with (
        open_host("main", asked) as main,
        open_host("backup", asked) as backup,
        ClientSession() as session,
    ):
        yield Scene(session, main, backup)


def authorized(asked: Asked) -> dict[str, str]:
    """The fields of the Authorization header of a request; its signature must be of what was really sent."""
    scheme, _, rest = asked.headers["Authorization"].partition(" ")
    assert scheme == "WECHATPAY2-SHA256-RSA2048"
    fields = dict(re.findall(r'([a-z_]+)="([^"]*)"', rest))
    line = f"{asked.method}\n{asked.path}\n{fields['timestamp']}"
    public = key("merchant").public_key()
    assert rsa_verify(line, fields["nonce_str"], asked.raw.decode(), fields["signature"], public)
    return fields


def counted(call: str, outcome: str) -> float:
    labels = {"call": call, "outcome": outcome}
    return REGISTRY.get_sample_value("gateline_wechat_calls_total", labels) or 0.0


# --- What is sent -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "kind", "told"),
    [
        (Channel.MINIPROGRAM_BRIDGE, "jsapi", {"prepay_id": PREPAY_ID}),
        (Channel.WECHAT_JSAPI, "jsapi", {"prepay_id": PREPAY_ID}),
        (Channel.WECHAT_NATIVE, "native", {"code_url": "weixin://wxpay/bizpayurl/up?pr=NwY5Mz9&groupid=00"}),
        (
            Channel.WECHAT_H5,
            "h5",
            {"h5_url": "https://wx.tenpay.com/cgi-bin/mmpayweb-bin/checkmweb?prepay_id=wx1"},
        ),
    ],
)
async def test_a_prepay_posts_the_very_bytes_that_it_signs(
    scene: Scene, channel: Channel, kind: str, told: dict[str, str]
) -> None:
    scene.main.will(says(200, {**told, "something_new": [1]}))

    assert await scene.client.prepay(channel, REQUEST) == next(iter(told.values()))

    (asked,) = scene.asked
    assert (asked.host, asked.method, asked.path) == ("main", "POST", f"/v3/pay/transactions/{kind}")
    assert asked.raw == REQUEST
    fields = authorized(asked)
    assert (fields["mchid"], fields["serial_no"]) == (MCHID, MERCHANT_SERIAL)
    assert (fields["timestamp"], fields["nonce_str"]) == (str(NOW_S), "nonce0")
    assert {
        name: asked.headers[name] for name in ("Accept", "Content-Type", "Wechatpay-Serial", "User-Agent")
    } == {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "Wechatpay-Serial": PUBLIC_KEY_ID,
        "User-Agent": "gateline",
    }


@pytest.mark.parametrize("number", [NUMBER, "a|b*c_d-E", "1/2?x=%41 "])
async def test_a_query_signs_its_path_as_it_goes_over_the_wire(scene: Scene, number: str) -> None:
    scene.main.will(refuses(404, "ORDER_NOT_EXIST"))

    assert await scene.client.query(number) is None

    (asked,) = scene.asked
    assert asked.method == "GET" and asked.raw == b"" and "Content-Type" not in asked.headers
    path, _, query = asked.path.partition("?")
    assert query == f"mchid={MCHID}"
    assert re.fullmatch(r"/v3/pay/transactions/out-trade-no/[0-9A-Za-z_%.-]+", path)
    authorized(asked)


async def test_a_close_posts_the_merchant_and_takes_an_empty_answer(scene: Scene) -> None:
    scene.main.will(says(204))

    await scene.client.close(NUMBER)

    (asked,) = scene.asked
    assert (asked.method, asked.path) == ("POST", f"/v3/pay/transactions/out-trade-no/{NUMBER}/close")
    assert json.loads(asked.raw) == {"mchid": MCHID}
    authorized(asked)


async def test_without_the_public_key_mode_no_serial_is_named_and_nonces_are_fresh(scene: Scene) -> None:
    scene.main.will(GOOD)
    client = scene.new(verifier=verifier())

    for _ in range(3):
        await client.prepay(JSAPI, REQUEST)

    assert all("Wechatpay-Serial" not in asked.headers for asked in scene.asked)
    nonces = {authorized(asked)["nonce_str"] for asked in scene.asked}
    assert len(nonces) == 3 and all(re.fullmatch(r"[0-9A-Za-z]{16,32}", nonce) for nonce in nonces)


async def test_a_channel_that_is_not_wechats_is_a_mistake_of_ours(scene: Scene) -> None:
    with pytest.raises(KeyError):
        await scene.client.prepay(Channel.HOSTED, REQUEST)
    assert scene.asked == []


# --- What is believed ---------------------------------------------------------------------------------------


async def test_a_query_tells_the_transaction(scene: Scene) -> None:
    scene.main.will(says(200, transaction()))

    told = await scene.client.query(NUMBER)

    assert told is not None
    assert (told.trade_state, told.amount, told.success_time) == (
        TradeState.SUCCESS,
        Amount(total=2900),
        PAID_AT,
    )


@pytest.mark.parametrize("code", ["ORDER_NOT_EXIST", "ORDERNOTEXIST"])
async def test_only_a_signed_404_says_that_there_is_no_such_order(scene: Scene, code: str) -> None:
    async def query() -> Any:
        return await scene.client.query(NUMBER)

    scene.main.will(refuses(404, code))
    assert await query() is None

    fault = await scene.fails(refuses(404, code, sign=False), call=query)
    assert (type(fault), fault.code) == (Unknown, "UNVERIFIED")
    assert type(await scene.fails(refuses(401, code, sign=False), call=query)) is Rejected
    assert type(await scene.fails(refuses(500, code, sign=False), call=query)) is Retryable
    assert type(await scene.fails(refuses(400, code), call=query)) is Rejected


@pytest.mark.parametrize(
    "told",
    [
        transaction(out_trade_no=NUMBER[:-1]),
        transaction(out_trade_no=NUMBER.lower()),
        transaction(mchid="1900000108"),
        transaction(amount={"total": "2900"}),
        transaction(trade_state="GONE"),
        transaction(success_time=None),
        {},
        [],
    ],
    ids=range(8),
)
async def test_a_query_believes_no_answer_about_another_order_or_without_what_matters(
    scene: Scene, told: Any
) -> None:
    fault = await scene.fails(says(200, told), call=lambda: scene.client.query(NUMBER))

    assert (type(fault), fault.code, fault.status) == (Unknown, "UNREADABLE", 200)
    assert len(scene.asked) == 1


UNBELIEVABLE = {
    "unsigned": says(200, {"prepay_id": PREPAY_ID}, sign=False),
    "another's key": says(200, {"prepay_id": PREPAY_ID}, whose="stranger"),
    "unknown serial": says(200, {"prepay_id": PREPAY_ID}, serial="4F"),
    "old": says(200, {"prepay_id": PREPAY_ID}, now_s=NOW_S - 300),
    "from the future": says(200, {"prepay_id": PREPAY_ID}, now_s=NOW_S + 300),
    "unsigned 204": says(204, sign=False),
}


@pytest.mark.parametrize("name", UNBELIEVABLE)
async def test_a_success_that_wechat_did_not_sign_is_unknown_and_not_repeated(
    scene: Scene, name: str
) -> None:
    before = counted("jsapi", "UNVERIFIED")

    fault = await scene.fails(UNBELIEVABLE[name])

    assert (type(fault), fault.code) == (Unknown, "UNVERIFIED")
    assert len(scene.asked) == 1 and scene.pauses == []
    assert counted("jsapi", "UNVERIFIED") == before + 1


async def test_a_body_that_was_changed_on_the_way_is_unknown(scene: Scene) -> None:
    async def changed(request: web.Request) -> web.StreamResponse:
        answer = await GOOD(request)
        assert isinstance(answer, web.Response) and isinstance(answer.body, bytes)
        answer.body = answer.body.replace(b"wx2", b"wx3")
        return answer

    fault = await scene.fails(changed)

    assert (type(fault), fault.code) == (Unknown, "UNVERIFIED")


@pytest.mark.parametrize(
    ("channel", "told"),
    [
        (JSAPI, {}),
        (JSAPI, {"code_url": "weixin://x"}),
        (JSAPI, {"prepay_id": ""}),
        (JSAPI, {"prepay_id": 7}),
        (JSAPI, {"prepay_id": None}),
        (JSAPI, {"prepay_id": "w" * 65}),
        (JSAPI, {"prepay_id": "wx\n1"}),
        (JSAPI, {"prepay_id": "票"}),
        (JSAPI, b"\xff"),
        (JSAPI, b"{"),
        (Channel.WECHAT_NATIVE, {"code_url": "weixin://" + "x" * 512}),
        (Channel.WECHAT_NATIVE, {"code_url": "weixin://x y"}),
        (Channel.WECHAT_H5, {"h5_url": "javascript:alert(1)"}),
        (Channel.WECHAT_H5, {"h5_url": "https://" + "x" * 600}),
        (Channel.WECHAT_H5, {"h5_url": "https://x/\"<'\n"}),
    ],
    ids=str,
)
async def test_a_field_that_is_too_long_or_of_another_kind_is_unknown(
    scene: Scene, channel: Channel, told: Any
) -> None:
    raw = told if isinstance(told, bytes) else json.dumps(told).encode()
    reply = says(200, raw) if raw.isascii() else _signed_anyhow(raw)

    fault = await scene.fails(reply, call=lambda: scene.client.prepay(channel, REQUEST))

    assert (type(fault), fault.code, fault.status) == (Unknown, "UNREADABLE", 200)
    assert len(scene.asked) == 1


def _signed_anyhow(raw: bytes) -> Reply:
    """Bytes that are no text, under a good signature: the independent client could not make one."""
    message = f"{NOW_S}\nn\n".encode() + raw + b"\n"
    headers = {
        "Wechatpay-Timestamp": str(NOW_S),
        "Wechatpay-Nonce": "n",
        "Wechatpay-Signature": base64.b64encode(key("wechat").sign(message, PKCS1v15(), SHA256())).decode(),
        "Wechatpay-Serial": PUBLIC_KEY_ID,
    }

    async def reply(request: web.Request) -> web.StreamResponse:
        return web.Response(body=raw, headers=headers)

    return reply


async def test_an_answer_longer_than_any_of_the_api_is_not_read_to_its_end(scene: Scene) -> None:
    long = {"prepay_id": PREPAY_ID, "x": "x" * 70_000}

    assert type(await scene.fails(says(200, long))) is Unknown
    assert len(scene.asked) == 1
    assert type(await scene.fails(says(403, {"code": "NO_AUTH", "message": "x" * 70_000}))) is Unknown
    assert type(await scene.fails(says(502, b"x" * 70_000))) is Retryable


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("sign", [True, False])
async def test_a_redirection_is_not_followed(scene: Scene, status: int, sign: bool) -> None:
    redirect = says(status, {"x": 1}, sign=sign)

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        answer = await redirect(request)
        answer.headers["Location"] = scene.backup.url + "/elsewhere"
        return answer

    fault = await scene.fails(elsewhere)

    assert (type(fault), fault.status) == (Unknown, status)
    assert [asked.host for asked in scene.asked] == ["main"]


# --- What is sent again -------------------------------------------------------------------------------------

PASSING = {
    "busy": refuses(500, "SYSTEM_ERROR"),
    "busy, unsigned": refuses(500, "SYSTEMERROR", sign=False),
    "bank": refuses(500, "BANK_ERROR"),
    "too often": refuses(429, "FREQUENCY_LIMITED"),
    "too often, from the edge": says(429, b"<html>slow down</html>", sign=False),
    "bad gateway": says(502, b"<html>", sign=False),
    "breaks off": breaks_off,
    "ends early": ends_early,
    "no HTTP": speaks_no_http,
    "no gzip": is_no_gzip,
}


@pytest.mark.parametrize("name", PASSING)
async def test_a_passing_fault_is_sent_again_as_the_same_bytes_freshly_signed(
    scene: Scene, name: str
) -> None:
    scene.both(PASSING[name], PASSING[name], GOOD)

    assert await scene.client.prepay(JSAPI, REQUEST) == PREPAY_ID

    assert [asked.host for asked in scene.asked] == ["main", "backup", "main"]
    assert {asked.raw for asked in scene.asked} == {REQUEST}
    assert {asked.path for asked in scene.asked} == {"/v3/pay/transactions/jsapi"}
    assert [authorized(asked)["nonce_str"] for asked in scene.asked] == ["nonce0", "nonce1", "nonce2"]
    first, second = scene.pauses
    assert 0.05 <= first <= 0.1 and 0.2 <= second <= 0.4


CALLS: dict[str, Callable[[WeChatClient], Awaitable[Any]]] = {
    "prepay": lambda client: client.prepay(JSAPI, REQUEST),
    "query": lambda client: client.query(NUMBER),
    "close": lambda client: client.close(NUMBER),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", PASSING)
async def test_after_three_sendings_it_says_what_is_left(scene: Scene, name: str, call: str) -> None:
    fault = await scene.fails(PASSING[name], call=lambda: CALLS[call](scene.client))

    assert len(scene.asked) == 3 and len(scene.pauses) == 2
    assert len({authorized(asked)["nonce_str"] for asked in scene.asked}) == 3
    silent = PASSING[name] in (breaks_off, ends_early, speaks_no_http, is_no_gzip)
    assert type(fault) is (Unknown if silent else Retryable)
    assert (fault.code == "NETWORK", fault.status == 0) == (silent, silent)


async def test_the_last_answer_decides_what_is_left(scene: Scene) -> None:
    busy = refuses(500, "SYSTEM_ERROR")
    assert type(await scene.fails(busy, busy, breaks_off)) is Unknown
    assert type(await scene.fails(breaks_off, breaks_off, busy)) is Retryable
    assert type(await scene.fails(breaks_off, refuses(403, "NO_AUTH"))) is Rejected
    assert len(scene.asked) == 2


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "PARAM_ERROR"),
        (401, "SIGN_ERROR"),
        (403, "OUT_TRADE_NO_USED"),
        (403, "BRANDNEW"),
        (500, "OPENID_MISMATCH"),
        (500, "INVALIDTRANSACTIONID"),
    ],
)
async def test_a_clear_no_is_not_asked_for_twice(scene: Scene, status: int, code: str) -> None:
    fault = await scene.fails(refuses(status, code))

    assert type(fault) is Rejected and fault.status == status
    assert len(scene.asked) == 1 and scene.pauses == []


async def test_a_main_host_that_is_away_leaves_time_for_the_backup(scene: Scene) -> None:
    scene.backup.will(GOOD)
    client = scene.new(urls=("http://127.0.0.1:9", scene.backup.url))

    assert await client.prepay(JSAPI, REQUEST) == PREPAY_ID
    assert [asked.host for asked in scene.asked] == ["backup"]


async def test_a_main_host_that_takes_no_connection_leaves_time_for_the_backup(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "WECHAT_CONNECT_S_MAX", 0.5)
    scene.backup.will(GOOD)
    began = time.monotonic()

    with ExitStack() as sockets:
        listening = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):  # nobody takes them: once the queue is full, a connection is left waiting
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        client = scene.new(urls=(f"http://127.0.0.1:{listening.getsockname()[1]}", scene.backup.url))
        assert await client.prepay(JSAPI, REQUEST) == PREPAY_ID

    assert time.monotonic() - began < 4
    assert [asked.host for asked in scene.asked] == ["backup"]


async def test_with_one_host_that_one_is_asked_again(scene: Scene) -> None:
    scene.main.will(PASSING["busy"], PASSING["busy"], GOOD)

    assert await scene.new(urls=(scene.main.url,)).prepay(JSAPI, REQUEST) == PREPAY_ID
    assert [asked.host for asked in scene.asked] == ["main"] * 3


async def test_no_answer_in_time_is_unknown_after_three_sendings(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "GATEWAY_CALL_S_MAX", 0.4)
    before = counted("close", "TIMEOUT")

    fault = await scene.fails(hangs, call=lambda: scene.client.close(NUMBER))

    assert (type(fault), fault.code, fault.status) == (Unknown, "TIMEOUT", 0)
    assert len(scene.asked) == 3
    assert counted("close", "TIMEOUT") == before + 3


async def test_an_answer_that_comes_drop_by_drop_is_not_waited_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drips(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b" ")
            await asyncio.sleep(0.02)
        return response

    monkeypatch.setattr(sending, "GATEWAY_CALL_S_MAX", 0.1)

    assert (await scene.fails(drips)).code == "TIMEOUT"


async def test_all_sendings_together_keep_within_the_total(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "WECHAT_TOTAL_S_MAX", 1.0)
    scene.both(PASSING["busy"], hangs)
    began = time.monotonic()

    with pytest.raises(Unknown) as failed:
        await scene.client.prepay(JSAPI, REQUEST)
    fault = failed.value

    assert 0.9 < time.monotonic() - began < 4  # of each alone it would be 5, and there would be a third
    assert (type(fault), len(scene.asked)) == (Unknown, 2)


async def test_one_sending_keeps_within_the_total_too(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "WECHAT_TOTAL_S_MAX", 0.5)
    began = time.monotonic()

    fault = await scene.fails(hangs)

    assert time.monotonic() - began < 4
    assert (fault.code, len(scene.asked)) == ("TIMEOUT", 1)


async def test_a_pause_that_took_longer_than_it_should_leaves_no_sending_without_a_bound(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def oversleeps(seconds: float) -> None:
        await asyncio.sleep(0.7)

    monkeypatch.setattr(client_module, "WECHAT_TOTAL_S_MAX", 0.5)
    scene.both(PASSING["busy"], hangs)
    began = time.monotonic()

    with pytest.raises(Unknown):
        await scene.new(pause=oversleeps).prepay(JSAPI, REQUEST)

    assert time.monotonic() - began < 4


async def test_a_pause_that_does_not_fit_any_more_is_not_begun(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "RETRY_S_MIN", 60.0)

    fault = await scene.fails(PASSING["bad gateway"])

    assert (type(fault), len(scene.asked), scene.pauses) == (Retryable, 1, [])


async def test_a_caller_who_gives_up_ends_the_call(scene: Scene) -> None:
    scene.main.will(hangs)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await scene.client.prepay(JSAPI, REQUEST)

    assert len(scene.asked) == 1


# --- What is seen of it -------------------------------------------------------------------------------------


async def test_every_sending_is_counted_by_its_call_and_outcome(scene: Scene) -> None:
    keys = [
        ("native", "OK"),
        ("native", "SYSTEM_ERROR"),
        ("native", "NETWORK"),
        ("query", "ORDER_NOT_EXIST"),
        ("query", "OTHER"),
    ]
    before = [counted(*key) for key in keys]
    scene.both(refuses(500, "SYSTEMERROR"), breaks_off, says(200, {"code_url": "weixin://x"}))
    await scene.client.prepay(Channel.WECHAT_NATIVE, REQUEST)
    scene.both(refuses(404, "ORDERNOTEXIST"))
    await scene.client.query(NUMBER)
    await scene.fails(refuses(403, "BRANDNEW"), call=lambda: scene.client.query(NUMBER))

    assert [counted(*key) - was for key, was in zip(keys, before, strict=True)] == [1, 1, 1, 1, 1]
    assert counted("query", "BRANDNEW") == 0


FAILING = {
    **UNBELIEVABLE,
    **PASSING,
    "a no": says(400, {"code": "PARAM_ERROR", "message": f"{OPENID} {NUMBER}", "detail": {"value": OPENID}}),
    "unreadable": says(200, {"prepay_id": OPENID * 10, "out_trade_no": NUMBER}),
    "hangs": hangs,
}


@pytest.mark.parametrize("name", FAILING)
async def test_nothing_that_was_sent_or_came_is_in_a_fault_or_a_log(
    scene: Scene, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sending, "GATEWAY_CALL_S_MAX", 0.4)
    caplog.set_level(logging.DEBUG, logger="aiohttp")

    with capture_logs() as logs:
        fault = await scene.fails(FAILING[name], call=lambda: scene.client.prepay(JSAPI, REQUEST))
        await scene.fails(FAILING[name], call=lambda: scene.client.query(NUMBER))

    assert logs
    assert fault.__context__ is None and fault.__cause__ is None
    seen = "".join(traceback.format_exception(fault)) + repr(fault) + repr(logs) + caplog.text
    signature = authorized(scene.asked[0])["signature"]
    for secret in (
        OPENID,
        NUMBER,
        REQUEST.decode(),
        PREPAY_ID,
        signature,
        MERCHANT_SERIAL,
        "mchid=",
        scene.main.url,
    ):
        assert secret not in seen, secret
