"""After hours: everything fails that can, with secrets in hand, so that the logs are at their most talkative."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web
from yarl import URL

from server.dev import wechat_seals
from server.dev.wechat_faults import CallFault
from tests.payment.eavesdrop import Rubbish
from tests.payment.market import Market
from tests.payment.people import WAYS

WHO = "buyer-0"


async def everything_fails(market: Market) -> None:
    """WeChat answers rubbish, its logins fail, its notifications lie, and Postgres refuses what is written."""
    product = (await market.road.call("GET", "/catalog")).json["products"][0]["id"]
    await _rubbish_prepays(market, product)
    await _rubbish_logins(market)
    number = await _order(market, product, "native")
    await _rubbish_queries(market, number)
    await _lying_notifications(market, number)
    await _refusing_postgres(market, product)
    _say_junk(market)


async def _order(market: Market, product: int, way: str) -> str:
    """The number of an order at WeChat."""
    made = await market.shop.order(product, user=WHO, **WAYS[way])
    order_id = made.json.get("order_id", "")
    numbers = [number for number, seen in market.wechat.orders().items() if seen.attach == order_id]
    return numbers[-1] if numbers else ""


async def _rubbish_prepays(market: Market, product: int) -> None:
    for way, call in (("bridge", "jsapi"), ("jsapi", "jsapi"), ("h5", "h5")):
        for answer in _rubbish(market):
            market.heard.rubbish[call].append(answer)
            await _order(market, product, way)


async def _rubbish_queries(market: Market, number: str) -> None:
    order_id = market.wechat.orders()[number].attach
    for answer in _rubbish(market):
        market.heard.rubbish[number].append(answer)
        await market.shop.query(order_id, user=WHO)


def _rubbish(market: Market) -> list[Rubbish]:
    """Answers that hold who pays, and what was sent, where nobody looks for it."""
    openid = market.wechat.openid(WHO, market.wechat.keys.miniprogram_appid)
    payer = {"payer": {"openid": openid}, "openid": openid}
    wrong: dict[str, Any] = {"prepay_id": payer, "code_url": payer, "h5_url": payer, **payer}

    def refusal(request: web.Request) -> dict[str, Any]:
        return {
            "code": "PARAM_ERROR",
            "message": f"openid {openid}",
            "detail": {"sent": request.headers["Authorization"]},
        }

    def signed(status: int, tell: Callable[[web.Request], Any]) -> Rubbish:
        def answer(request: web.Request) -> web.Response:
            body = msgspec.json.encode(tell(request))
            keys = market.wechat.keys
            headers = wechat_seals.signed(keys, keys.public_key_id, body, time.time())
            return web.Response(status=status, body=body, headers=headers, content_type="application/json")

        return answer

    def plain(status: int, headers: dict[str, str] | None = None) -> Rubbish:
        return lambda request: web.Response(
            status=status, text=f"{openid} {request.headers['Authorization']}", headers=headers
        )

    return [
        signed(200, lambda request: wrong),
        signed(200, lambda request: openid),
        signed(400, refusal),
        signed(403, refusal),
        plain(400),
        plain(500),
        plain(
            200, {"Wechatpay-Serial": openid, "Wechatpay-Timestamp": openid, "Wechatpay-Signature": openid}
        ),
        plain(302, {"Location": f"http://127.0.0.1:9/{openid}"}),
        _cut,
    ]


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


async def _rubbish_logins(market: Market) -> None:
    keys = market.wechat.keys
    openid = market.wechat.openid(WHO, keys.miniprogram_appid)

    def told(**answer: Any) -> Rubbish:
        return lambda request: web.Response(body=msgspec.json.encode(answer), content_type="text/plain")

    def echo(status: int, **headers: str) -> Rubbish:
        return lambda request: web.Response(status=status, text=request.path_qs, headers=headers)

    answers = [
        told(errcode=openid, errmsg=f"{openid} {keys.secret}"),
        told(openid=f"{openid} ", session_key="c2Vzc2lvbl9rZXkgb2YgYSBsb2dpbg=="),
        told(openid=[openid], unionid=openid, access_token="98_access-token-of-a-login"),
        told(errcode=40125, errmsg=f"invalid appsecret {keys.secret} {keys.miniprogram_secret}"),
        told(errcode=99999, errmsg=f"rid of {openid}"),
        echo(200),
        echo(500),
        echo(302, Location=f"http://127.0.0.1:9/?secret={keys.secret}"),
        _cut,
    ]
    for environment, call in (("miniprogram", "jscode2session"), ("wechat", "access_token")):
        for answer in answers:
            market.heard.rubbish[call].append(answer)
            assert (await market.shop.log_in(WHO, environment)).status >= 400
        for fault in (CallFault.FAIL_BEFORE, CallFault.LIMITED, CallFault.BLOCKED):
            market.wechat.fail_next("login", fault)
            await market.shop.log_in(WHO, environment)
        used = {"code": await market.shop.code(WHO, environment), "environment": environment}
        for status in (200, 401):
            answer = await market.road.call("POST", "/auth/wechat/login", json=used)
            assert answer.status == status, answer


async def _lying_notifications(market: Market, number: str) -> None:
    """Signed ones that cannot be true or opened, and forged ones."""
    for lie in (
        {"amount": {"total": 1}},
        {"mchid": "1900000001"},
        {"out_trade_no": "of-somebody-else"},
        {"api_v3_key": "another key of thirty-two letters"[:32]},
        {"payer": {"openid": None}},
        {"event_type": "REFUND.SUCCESS"},
        {"corrupt": "ciphertext"},
        {"corrupt": "signature"},
        {"probe": True},
        {"age_s": 900},
        {"told_serial": "PUB_KEY_ID_unheard-of"},
    ):
        await market.wechat.notify(number, **lie)


async def _refusing_postgres(market: Market, product: int) -> None:
    """Rows with an openid in them are refused, and Postgres says which; a table is gone while jobs work."""
    stranger = {"code": await market.shop.code("a stranger", "wechat"), "environment": "wechat"}
    async with _refused(market, "wechat_identities", "openid = ''"):
        answer = await market.road.call("POST", "/auth/wechat/login", json=stranger)
    assert answer.status == 500, answer
    async with _refused(market, "payment_attempts", "request = ''"):
        answer = await market.shop.order(product, user=WHO, **WAYS["jsapi"])
    assert answer.status == 500, answer
    await market.pg.execute("ALTER TABLE payment_attempts RENAME TO payment_attempts_away")
    try:
        answer = await market.shop.order(product, user=WHO, **WAYS["jsapi"])
        await asyncio.sleep(1.5)  # the job that closes meets it too
    finally:
        await market.pg.execute("ALTER TABLE payment_attempts_away RENAME TO payment_attempts")
    assert answer.status == 500, answer


@asynccontextmanager
async def _refused(market: Market, table: str, rule: str) -> AsyncIterator[None]:
    """New rows must be so, and none is."""
    await market.pg.execute(f"ALTER TABLE {table} ADD CONSTRAINT nobody CHECK ({rule}) NOT VALID")
    try:
        yield
    finally:
        await market.pg.execute(f"ALTER TABLE {table} DROP CONSTRAINT nobody")


def _say_junk(market: Market) -> None:
    """What is no HTTP, from a client that sends its secrets with it."""
    address = URL(market.road.url)
    assert address.host is not None and address.port is not None
    (token, *_) = market.road.handed_out["token"]
    signature = next(iter(market.heard.heard["signature of WeChat"]))
    for secret in (f"Authorization: Bearer {token}", f"Wechatpay-Signature: {signature}"):
        for junk in ("\x00", "x" * 9_000):
            with contextlib.closing(socket.create_connection((address.host, address.port))) as connection:
                connection.sendall(f"GET /orders HTTP/1.1\r\nHost: x\r\n{secret}{junk}\r\n\r\n".encode())
                assert b" 400 " in connection.recv(1_000)
