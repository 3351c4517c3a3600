"""WeChat's own two endpoints: logging in by a code, and what WeChat Pay tells."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from server.domain.errors import ErrorCode, Refusal
from server.limits import NOTIFY_ANSWER_S_MAX, WECHAT_CODE_CHARS_MAX
from server.web import appkeys
from server.web.address import client_network
from server.web.auth import Audience
from server.web.body import decode, read_bytes
from server.web.buyer import BuyerToken
from server.wechat.channels import Environment
from server.wechat.sealed import Envelope


class WeChatLogin(msgspec.Struct, frozen=True):
    """A code of `wx.login` in the Mini Program, or of the browser's authorisation page: good once, for 5 minutes."""

    code: Annotated[str, msgspec.Meta(pattern=rf"^[!-~]{{1,{WECHAT_CODE_CHARS_MAX}}}\Z")]
    environment: Literal["miniprogram", "wechat"] = "miniprogram"


class WeChatNotifyAnswer(msgspec.Struct, frozen=True):
    """Taken: WeChat does not tell it again."""

    code: Literal["SUCCESS"]
    message: str


async def wechat_login(request: web.Request, caller: None, body: WeChatLogin) -> BuyerToken:
    """A buyer's token for a code of WeChat's; also notes who the buyer is in that app, which its payments ask for."""
    door = request.app[appkeys.WECHAT_DOOR]
    buyer_id = await door.enter(body.code, Environment(body.environment), client_network(request))
    seconds = request.app[appkeys.CONFIG].buyer_token_s
    token = request.app[appkeys.TOKENS].issue(Audience.BUYER, buyer_id, seconds=seconds)
    return BuyerToken(token, buyer_id, seconds)


async def wechat_notify(request: web.Request, caller: None, body: None) -> WeChatNotifyAnswer:
    """A signed, sealed notification of WeChat Pay.

    200: it was settled, or there is nothing that telling it again could change (an unknown number, an amount that is
    not the order's: both raise an alert). Anything else: WeChat tells it again.
    """
    news = request.app[appkeys.WECHAT_NEWS]
    raw = await read_bytes(request)
    news.verify(request.headers, raw)
    envelope = decode(raw, Envelope)
    try:
        async with asyncio.timeout(NOTIFY_ANSWER_S_MAX):
            settled = await news.told(envelope)
    except TimeoutError:  # settled or not, it is told again and then answered as it was judged
        raise Refusal(ErrorCode.POSTGRES_UNAVAILABLE) from None
    return WeChatNotifyAnswer("SUCCESS", "NOTHING_TO_SETTLE" if settled is None else settled.value)
