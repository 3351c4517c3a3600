"""What passes between Gateline and the simulated WeChat, overheard: every secret of it, and what was posted."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest
from aiohttp import web

from server.dev import wechat_seals

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Rubbish = Callable[[web.Request], web.StreamResponse]
_SIGNATURE = re.compile(r'signature="([^"]+)"')
_SECRET = frozenset(
    {
        *("openid", "unionid", "session_key", "access_token", "refresh_token"),
        *("prepay_id", "code_url", "h5_url"),
    }
)


class Eavesdropper:
    """Hears every call to the simulator; what is in `rubbish`, path -> answers, is answered instead of it."""

    def __init__(self) -> None:
        self.heard: defaultdict[str, set[str]] = defaultdict(set)
        self.posted: defaultdict[str, set[bytes]] = defaultdict(set)  # out_trade_no -> path and body
        self.rubbish: defaultdict[str, deque[Rubbish]] = defaultdict(deque)

    def watch(self, app: web.Application) -> web.Application:
        """The same application, overheard."""
        app.middlewares.append(self._hear)
        return app

    @contextlib.contextmanager
    def seals(self) -> Iterator[None]:
        """Notes what the simulator signs and seals, notifications too."""
        signed, encrypted = wechat_seals.signed, wechat_seals.encrypted

        def note_signed(*arguments: Any) -> dict[str, str]:
            headers = signed(*arguments)
            self.heard["signature of WeChat"].add(headers["Wechatpay-Signature"])
            return headers

        def note_encrypted(*arguments: Any) -> dict[str, str]:
            resource = encrypted(*arguments)
            self.heard["ciphertext"].add(resource["ciphertext"])
            return resource

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wechat_seals, "signed", note_signed)
            patch.setattr(wechat_seals, "encrypted", note_encrypted)
            yield

    @web.middleware
    async def _hear(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        body = await request.read()
        self.heard["signature of ours"].update(_SIGNATURE.findall(request.headers.get("Authorization", "")))
        if request.path.startswith("/v3/pay/transactions/") and b'"out_trade_no"' in body:
            number = msgspec.json.decode(body)["out_trade_no"]
            self.posted[number].add(request.path.encode() + b" " + body)
        waiting = self.rubbish[request.path.rpartition("/")[2]]
        response = waiting.popleft()(request) if waiting else await handler(request)
        told = _json(response)
        for name in _SECRET & told.keys():
            self.heard[name].add(str(told[name]))
        if request.path == "/phone/code":
            self.heard["code"].add(told["code"])
        return response


def _json(response: web.StreamResponse) -> dict[str, Any]:
    if isinstance(response, web.Response) and isinstance(response.body, bytes):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            told = msgspec.json.decode(response.body)
            return told if isinstance(told, dict) else {}
    return {}
