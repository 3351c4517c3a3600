"""A host that answers as it is told to, and remembers what it was asked: for answers that no good WeChat gives."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict

from tests.wechat.merchant import signed


class Asked(NamedTuple):
    """One request as it came: the path as it was spelt on the wire, and the raw body."""

    host: str
    method: str
    path: str
    headers: CIMultiDict[str]
    raw: bytes


Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Host:
    """Gives its replies one after the other, the last one for ever."""

    def __init__(self, name: str, asked: list[Asked]) -> None:
        self._name = name
        self._replies: deque[Reply] = deque()
        self.asked = asked
        self.url = ""

    def will(self, *replies: Reply) -> None:
        """What it answers from now on."""
        self._replies = deque(replies)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(
            self._name, request.method, request.raw_path, CIMultiDict(request.headers), await request.read()
        )
        self.asked.append(asked)
        reply = self._replies.popleft() if len(self._replies) > 1 else self._replies[0]
        return await reply(request)


@asynccontextmanager
async def open_host(name: str, asked: list[Asked]) -> AsyncIterator[Host]:
    """A host that listens on loopback."""
    host = Host(name, asked)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", host.answer)
    server = TestServer(app)
    await server.start_server(access_log=None)  # what it was asked is in `asked`
    host.url = str(server.make_url("")).rstrip("/")
    try:
        yield host
    finally:
        await server.close()


def says(status: int, body: Any = None, *, sign: bool = True, **how: Any) -> Reply:
    """An answer with this JSON (or these bytes), signed; `how` as in `signed`."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    headers = signed(raw, **how) if sign else {}

    async def reply(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=raw or None, headers=headers, content_type="application/json")

    return reply


def refuses(status: int, code: str, *, sign: bool = True) -> Reply:
    """An answer of the API that is no success."""
    return says(status, {"code": code, "message": "为什么"}, sign=sign)


async def hangs(request: web.Request) -> web.StreamResponse:
    """No answer at all, for longer than a test lasts."""
    await asyncio.sleep(30)
    raise AssertionError("the client waited half a minute")


async def breaks_off(request: web.Request) -> web.StreamResponse:
    """The connection ends before the answer begins."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def ends_early(request: web.Request) -> web.StreamResponse:
    """The connection ends in the middle of the answer's body."""
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b'{"prepay_id":')
    assert request.transport is not None
    request.transport.close()
    return response


async def speaks_no_http(request: web.Request) -> web.StreamResponse:
    """What comes is not HTTP."""
    assert request.transport is not None
    request.transport.write(b"220 smtp.example ESMTP oUpF8uMuAJO_M2pxb1Q9zNjWeS6o\r\n\r\n")  # type: ignore[attr-defined]
    request.transport.close()
    return web.Response()


async def is_no_gzip(request: web.Request) -> web.StreamResponse:
    """A body that says to be packed, and is not."""
    return web.Response(body=b"not packed", headers={"Content-Encoding": "gzip", "Content-Length": "10"})
