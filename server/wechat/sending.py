"""One request to WeChat and its answer, bounded in time and size: sent once, and never led elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from yarl import URL

from server.limits import BODY_BYTES_MAX, GATEWAY_CALL_S_MAX, WECHAT_CONNECT_S_MAX
from server.wechat.faults import NETWORK, TIMEOUT, Unknown

_SECONDS_MIN = 0.05  # aiohttp takes nought, or less, for no bound at all


class Answer(NamedTuple):
    """What came; `raw` None: longer than anything that WeChat says."""

    status: int
    headers: Mapping[str, str]
    raw: bytes | None


async def send(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> Answer:
    """Send once and wait 5 seconds at most, or fewer. Raises Unknown when no answer comes, without the address."""
    try:
        async with session.request(
            method,
            url,
            data=body or None,
            headers={"User-Agent": "gateline", **(headers or {})},
            timeout=aiohttp.ClientTimeout(
                total=min(GATEWAY_CALL_S_MAX, max(seconds, _SECONDS_MIN)), sock_connect=WECHAT_CONNECT_S_MAX
            ),
            allow_redirects=False,
            middlewares=(_only_once,),
        ) as answer:
            return Answer(answer.status, answer.headers, await _body(answer))
    except TimeoutError:
        why = TIMEOUT
    except aiohttp.ClientError:
        why = NETWORK
    raise Unknown(why, 0)  # out here, so that what names the address does not hang on it


async def _only_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a GET again by itself: not freshly signed, or with a code that is spent."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        pass
    raise aiohttp.ClientConnectionError  # not one of those after which it would


async def _body(answer: aiohttp.ClientResponse) -> bytes | None:
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            return None
    return bytes(body)
