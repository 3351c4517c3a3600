"""Every call of the merchant passes here: is it signed, what was it, what befalls it, and how is the answer signed."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web

from server.dev import wechat_seals
from server.dev.wechat_faults import CallFault, Dice, Faults
from server.dev.wechat_keys import WeChatKeys
from server.dev.wechat_rules import Refusal
from server.limits import CASHIER_SESSIONS_MAX, SIMULATED_HOLD_S_MAX

LIMITED: Final = Refusal(429, "FREQUENCY_LIMITED", "频率超限")
BROKEN: Final = Refusal(500, "SYSTEM_ERROR", "系统异常，请稍后重试")
USER_PAYING: Final = Refusal(202, "USER_PAYING", "用户支付中，需要输入密码")  # of 2xx, and yet no success
_BAD_JSON: Final = Refusal(400, "PARAM_ERROR", "输入源不是JSON")
_GATEWAY_PAGE: Final = "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"
_STALE_S: Final = 600.0

Act = Callable[[Any], "dict[str, Any] | Refusal | None"]  # parsed body -> the answer; None is 204


class Call(NamedTuple):
    """A call as it was received. What was asked has no header in it, so no Authorization."""

    name: str
    number: str  # out_trade_no, empty when it has none
    asked: Any  # the parsed body
    status: int  # of our answer; 0 when there was none
    fault: CallFault | None


class Hold(NamedTuple):
    """A pause of one call: WeChat has done what was asked, and does not answer until it is released."""

    accepted: asyncio.Event
    release: asyncio.Event


class Calls:
    """Takes calls in, and remembers the latest."""

    def __init__(self, keys: WeChatKeys, faults: Faults, now: Callable[[], float]) -> None:
        self._keys = keys
        self._hang_s = faults.hang_s
        self._dice = Dice(faults)
        self._now = now
        self._faults: defaultdict[str, deque[CallFault]] = defaultdict(deque)
        self._holds: defaultdict[str, deque[Hold]] = defaultdict(deque)
        self._closing = asyncio.Event()
        self.received: deque[Call] = deque(maxlen=CASHIER_SESSIONS_MAX)

    async def close(self, app: web.Application) -> None:
        """Calls that hang or are held end at once."""
        self._closing.set()

    def fail_next(self, name: str, fault: CallFault) -> None:
        """The next call of this name (and one more for each time this is said) meets this fault."""
        self._faults[name].append(fault)

    def hold_next(self, name: str) -> Hold:
        """The next call of this name waits between being accepted and being answered."""
        hold = Hold(asyncio.Event(), asyncio.Event())
        self._holds[name].append(hold)
        return hold

    def told_fault(self, name: str) -> CallFault | None:
        """The fault that somebody wished upon the next call of this name."""
        wished = self._faults[name]
        return wished.popleft() if wished else None

    def enter(self, call: Call) -> None:
        """Remembers a call."""
        self.received.append(call)

    async def take(self, request: web.Request, name: str, number: str, act: Act) -> web.StreamResponse:
        """One call of API v3 from its signature to the answer's."""
        body = await request.read()
        authorization = request.headers.get("Authorization", "")
        why = wechat_seals.unauthorized(
            self._keys, authorization, request.method, request.raw_path, body, self._now()
        )
        if why is not None:  # not signed: the real host signs nothing before it knows whom it talks to
            self.enter(Call(name, number, None, 401, None))
            return _json(Refusal(401, "SIGN_ERROR", why))
        asked = _parsed(body)
        number = number or (str(asked.get("out_trade_no", "")) if isinstance(asked, dict) else "")
        fault = self.told_fault(name) or self._dice.call(name)
        answer = self._done(asked, fault, act)
        self.enter(Call(name, number, asked, _status(answer, fault), fault))
        if self._holds[name]:
            await self._held(self._holds[name].popleft())
        return await self._answered(request, answer, fault)

    def _done(self, asked: Any, fault: CallFault | None, act: Act) -> dict[str, Any] | Refusal | None:
        if fault is CallFault.LIMITED:
            return LIMITED
        if fault in (CallFault.FAIL_BEFORE, CallFault.DROPPED):
            return BROKEN
        if fault is CallFault.USER_PAYING:
            return USER_PAYING
        return _BAD_JSON if asked is _Unreadable else act(asked)

    async def _held(self, hold: Hold) -> None:
        hold.accepted.set()
        await self.wait(hold.release, SIMULATED_HOLD_S_MAX)

    async def wait(self, event: asyncio.Event, longest_s: float) -> None:
        """Until the event, the end of the simulator, or so many seconds."""
        waiting = [asyncio.ensure_future(each.wait()) for each in (event, self._closing)]
        await asyncio.wait(waiting, timeout=longest_s, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()

    async def _answered(
        self, request: web.Request, answer: dict[str, Any] | Refusal | None, fault: CallFault | None
    ) -> web.Response:
        """The answer with its signature, unless the fault is that there is none."""
        if fault is CallFault.HANG:
            await self.wait(self._closing, self._hang_s)
        if fault in (CallFault.HANG, CallFault.DROPPED):
            return _cut(request)
        if fault is CallFault.FAIL_AFTER:
            return web.Response(status=502, text=_GATEWAY_PAGE, content_type="text/html")
        response = _json(answer)
        if fault is not CallFault.UNSIGNED:
            response.headers.update(self._signature(request, response, fault))
        return response

    def _signature(
        self, request: web.Request, response: web.Response, fault: CallFault | None
    ) -> dict[str, str]:
        """By the WeChat Pay public key when the merchant names it, else by the platform certificate."""
        named = request.headers.get("Wechatpay-Serial", "")
        serial = named if named == self._keys.public_key_id else self._keys.platform_serial
        body = response.body if isinstance(response.body, bytes) else b""
        if fault is CallFault.BAD_SIGNATURE:
            body += b" "
        moment = self._now() - (_STALE_S if fault is CallFault.STALE else 0.0)
        headers = wechat_seals.signed(self._keys, serial, body, moment)
        if fault is CallFault.UNKNOWN_SERIAL:
            unknown = "PUB_KEY_ID_" + "9" * 34 if named else "5D" + "9" * 38
            headers["Wechatpay-Serial"] = unknown
        return headers


class _Unreadable:
    """In place of a body that is no JSON."""


def _parsed(body: bytes) -> Any:
    if not body:
        return None
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return _Unreadable


def _status(answer: dict[str, Any] | Refusal | None, fault: CallFault | None) -> int:
    if fault in (CallFault.HANG, CallFault.DROPPED):
        return 0
    if fault is CallFault.FAIL_AFTER:
        return 502
    if isinstance(answer, Refusal):
        return answer.status
    return 204 if answer is None else 200


def _json(answer: dict[str, Any] | Refusal | None) -> web.Response:
    if answer is None:
        return web.Response(status=204)
    told = {"code": answer.code, "message": answer.message} if isinstance(answer, Refusal) else answer
    return web.Response(
        status=_status(answer, None), body=msgspec.json.encode(told), content_type="application/json"
    )


def _cut(request: web.Request) -> web.Response:
    """Ends the connection under the client's feet."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)  # goes nowhere
