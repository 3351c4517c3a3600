"""What takes payments, composed on one pool of Postgres connections: one for requests, one for the jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from server.config import Config, WeChatAccount
from server.flows.identity import WeChatDoor
from server.flows.lookup import OrderLookup
from server.flows.payment import Payments
from server.flows.settle import Settlement
from server.flows.wechat_news import WeChatNews
from server.flows.wechat_pay import WeChatPay
from server.hosted.gateway import HostedGateway
from server.hot.stock import Stock
from server.hot.throttle import Throttle
from server.limits import GATEWAY_CALL_S_MAX, LOGIN_CONNECTIONS_MAX
from server.store.pool import Database
from server.telemetry import CERTIFICATE_ENDS
from server.wechat.client import WeChatClient
from server.wechat.login import Login
from server.wechat.signing import Signer, Verifier


@dataclass(frozen=True)
class Sessions:
    """Connections to others' hosts: to gateways, and for logins, which anyone may cause."""

    gateways: aiohttp.ClientSession
    logins: aiohttp.ClientSession


@dataclass(frozen=True)
class WeChatParts:
    """The merchant's side of WeChat."""

    pay: WeChatPay
    news: WeChatNews
    door: WeChatDoor


@dataclass(frozen=True)
class Paying:
    """One settlement, and the gateways whose news end in it."""

    lookup: OrderLookup
    settlement: Settlement
    provider: Payments
    wechat: WeChatParts | None


@asynccontextmanager
async def open_sessions() -> AsyncIterator[Sessions]:
    """Sessions that keep no cookies, with a time limit on every call."""
    timeout = aiohttp.ClientTimeout(total=GATEWAY_CALL_S_MAX)
    no_cookies = aiohttp.DummyCookieJar()
    few = aiohttp.TCPConnector(limit=LOGIN_CONNECTIONS_MAX)
    async with (
        aiohttp.ClientSession(timeout=timeout, cookie_jar=no_cookies) as gateways,
        aiohttp.ClientSession(timeout=timeout, cookie_jar=no_cookies, connector=few) as logins,
    ):
        yield Sessions(gateways, logins)


def compose(
    config: Config, database: Database, stock: Stock, sessions: Sessions, throttle: Throttle
) -> Paying:
    """Everything that takes payments, on this pool."""
    lookup = OrderLookup(database, stock)
    settlement = Settlement(lookup)
    hosted = None
    if config.gateway_url:
        hosted = HostedGateway(
            sessions.gateways, config.gateway_url, config.gateway_secrets, public_url=config.public_url
        )
    wechat = None
    if config.wechat is not None:
        wechat = _wechat(config.wechat, sessions, database, lookup, settlement, throttle)
    return Paying(lookup, settlement, Payments(hosted, None if wechat is None else wechat.pay), wechat)


def _wechat(
    account: WeChatAccount,
    sessions: Sessions,
    database: Database,
    lookup: OrderLookup,
    settlement: Settlement,
    throttle: Throttle,
) -> WeChatParts:
    for name, ends_at in account.certificates_end().items():
        CERTIFICATE_ENDS.labels(name).set(ends_at.timestamp())
    verifier = Verifier(account.verifying_keys())
    signer = Signer(account.mchid, f"{account.mch_certificate.serial_number:X}", account.mch_key)
    client = WeChatClient(
        sessions.gateways,
        account.api_urls,
        signer,
        verifier,
        account.mchid,
        public_key_id=account.public_key_id,
    )
    news = WeChatNews(database, settlement, client, verifier, account)
    login = Login(
        sessions.logins,
        account.login_url,
        (account.miniprogram_appid, account.miniprogram_secret),
        (account.appid, account.secret),
    )
    return WeChatParts(
        WeChatPay(database, lookup, client, signer, news, account),
        news,
        WeChatDoor(database, login, throttle),
    )
