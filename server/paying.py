"""What takes payments, composed on one pool of Postgres connections: one for requests, one for the jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from server.config import Config
from server.flows.identity import WeChatDoor
from server.flows.lookup import OrderLookup
from server.flows.payment import Payments
from server.flows.settle import Settlement
from server.flows.wechat_news import WeChatNews
from server.flows.wechat_pay import WeChatPay
from server.hosted.gateway import HostedGateway
from server.hot.stock import Stock
from server.hot.throttle import Throttle
from server.keyring import Keyring
from server.limits import GATEWAY_CALL_S_MAX, LOGIN_CONNECTIONS_MAX
from server.store.pool import Database
from server.wechat.client import WeChatClient
from server.wechat.login import Login
from server.wechat.merchant import MerchantKeys


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
    config: Config,
    keyring: Keyring,
    database: Database,
    stock: Stock,
    sessions: Sessions,
    throttle: Throttle,
) -> Paying:
    """Everything that takes payments, on this pool."""
    lookup = OrderLookup(database, stock)
    settlement = Settlement(lookup)
    hosted = None
    if config.gateway_url:
        hosted = HostedGateway(
            sessions.gateways, config.gateway_url, keyring.gateway, public_url=config.public_url
        )
    wechat = None
    if keyring.merchant is not None:
        wechat = _wechat(keyring.merchant, sessions, database, lookup, settlement, throttle)
    return Paying(lookup, settlement, Payments(hosted, None if wechat is None else wechat.pay), wechat)


def _wechat(
    keys: MerchantKeys,
    sessions: Sessions,
    database: Database,
    lookup: OrderLookup,
    settlement: Settlement,
    throttle: Throttle,
) -> WeChatParts:
    account = keys.account
    client = WeChatClient(sessions.gateways, account.api_urls, keys.signer, keys.verifier, account.mchid)
    news = WeChatNews(database, settlement, client, keys.verifier, keys.api_v3, account)
    login = Login(
        sessions.logins,
        account.login_url,
        (account.miniprogram_appid, account.miniprogram_secret),
        (account.appid, account.secret),
    )
    pay = WeChatPay(database, lookup, client, keys.signer, news, account, throttle)
    return WeChatParts(pay, news, WeChatDoor(database, login, throttle))
