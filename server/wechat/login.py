"""Logging in by WeChat: a code that the client got becomes the openid of that user in that app.

A code works once and for five minutes, so an exchange is sent again only after -1, WeChat's word that it was too busy
to do it. After silence, or an answer that cannot be read, the code may be spent: sent again, it would be called used,
and the caller would believe that it had been stolen. The client asks WeChat for a new one, which costs a tap at most.

The address holds the app's secret and the code, and the answer a session_key or an access_token. None of them is kept,
and what is raised here neither names nor chains what does. Source: developers.weixin.qq.com, code2Session and
snsAccessToken.
"""

from __future__ import annotations

import asyncio
import enum
import random
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Final

import aiohttp
import msgspec
import structlog
from yarl import URL

from server import telemetry
from server.domain.errors import ErrorCode, Refusal
from server.limits import (
    RETRY_S_MIN,
    WECHAT_CODE_CHARS_MAX,
    WECHAT_SENDINGS_MAX,
    WECHAT_TOTAL_S_MAX,
)
from server.wechat.faults import Unknown
from server.wechat.sealed import NOT_JSON
from server.wechat.sending import send

_log: Final = structlog.get_logger(__name__)
_jitter: Final = random.SystemRandom()
_CODE: Final = re.compile(rf"[!-~]{{1,{WECHAT_CODE_CHARS_MAX}}}")


class _Outcome(enum.Enum):
    """What became of an exchange."""

    OK = "OK"
    CODE_INVALID = "CODE_INVALID"
    REFUSED = "REFUSED"
    VISITOR = "VISITOR"  # who looks at a page without having logged in to it gets an account for that view
    BUSY = "BUSY"  # not done, says WeChat: the code is still good
    MISCONFIGURED = "MISCONFIGURED"
    OTHER = "OTHER"  # a rate limit, or a code of an error that is not known here
    UNREADABLE = "UNREADABLE"
    NETWORK = "NETWORK"
    TIMEOUT = "TIMEOUT"


_ERRCODES: Final = {
    _Outcome.BUSY: frozenset({-1}),
    _Outcome.CODE_INVALID: frozenset(
        {
            40029,  # not a code of this app, or older than five minutes
            40163,  # was used
            41008,  # missing
            42003,  # older than five minutes
        }
    ),
    _Outcome.REFUSED: frozenset(
        {
            40226,  # a user whom WeChat holds for a risk
            50002,  # a user whose account is frozen or gone
        }
    ),
    _Outcome.MISCONFIGURED: frozenset(
        {
            40001,  # the secret is not this app's
            40002,  # grant_type
            40013,  # appid
            40125,  # secret
            40164,  # this server's address is not on the app's list
            40243,  # the secret is frozen
            41002,  # no appid
            41004,  # no secret
            48001,  # the app may not call this
            48004,  # the app was barred from it
        }
    ),
}
_REFUSALS: Final = {
    _Outcome.CODE_INVALID: ErrorCode.WECHAT_CODE_INVALID,
    _Outcome.REFUSED: ErrorCode.WECHAT_LOGIN_REFUSED,
    _Outcome.VISITOR: ErrorCode.WECHAT_LOGIN_REFUSED,
}


class Identity(msgspec.Struct, frozen=True):
    """A user as one app knows them; the unionid is the same in all apps of one owner, where there is one."""

    appid: str
    openid: str
    unionid: str | None

    def __repr__(self) -> str:
        """Without the ids: a struct that is printed by mistake must not bring them into a log."""
        return f"Identity({self.appid!r}, ...)"


class _Answer(msgspec.Struct):
    """Of either call; what else it holds is not even decoded."""

    errcode: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)] = 0
    openid: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{0,128}\Z")] = ""
    unionid: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{0,128}\Z")] | None = None
    is_snapshotuser: int = 0


_answer: Final = msgspec.json.Decoder(_Answer)


class Login:
    """Exchanges codes at `url`, for a Mini Program and for the WeChat browser.

    Each is (appid, secret), with an empty appid where there is no such app.

    Every exchange raises Refusal: CHANNEL_NOT_OFFERED (no such app here), WECHAT_CODE_INVALID, WECHAT_LOGIN_REFUSED,
    WECHAT_UNAVAILABLE; the last one with an alert when WeChat does not take our appid or secret.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        miniprogram: tuple[str, str],
        browser: tuple[str, str],
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._url = url
        self._miniprogram = miniprogram
        self._browser = browser
        self._pause = pause

    async def miniprogram(self, code: str) -> Identity:
        """Who `wx.login` gave this code to."""
        appid, secret = self._miniprogram
        return await self._exchange("jscode2session", appid, code, {"secret": secret, "js_code": code})

    async def browser(self, code: str) -> Identity:
        """Who the page of authorisation gave this code to; not a visitor, whose account is made up for one view."""
        appid, secret = self._browser
        return await self._exchange("oauth2/access_token", appid, code, {"secret": secret, "code": code})

    async def _exchange(self, call: str, appid: str, code: str, asked: dict[str, str]) -> Identity:
        if not appid:
            raise Refusal(ErrorCode.CHANNEL_NOT_OFFERED)
        if not _CODE.fullmatch(code):
            raise Refusal(ErrorCode.WECHAT_CODE_INVALID)
        query = {"appid": appid, **asked, "grant_type": "authorization_code"}
        told, outcome = await self._ask(call, URL(f"{self._url}/sns/{call}").with_query(query))
        if outcome is _Outcome.OK:
            return Identity(appid, told.openid, told.unionid or None)
        if outcome is _Outcome.MISCONFIGURED:
            telemetry.alert("WECHAT_LOGIN_MISCONFIGURED", appid=appid, errcode=told.errcode)
        _log.info("wechat_login_failed", call=call, outcome=outcome.name, errcode=told.errcode)
        raise Refusal(_REFUSALS.get(outcome, ErrorCode.WECHAT_UNAVAILABLE))

    async def _ask(self, call: str, url: URL) -> tuple[_Answer, _Outcome]:
        """Send until WeChat is not too busy, or neither time nor sendings are left."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + WECHAT_TOTAL_S_MAX
        sending = 0
        while True:
            sending += 1
            told, outcome = await self._ask_once(url, seconds=deadline - clock())
            telemetry.WECHAT_CALLS.labels(call, outcome.name).inc()
            wait_s = RETRY_S_MIN * 4 ** (sending - 1) * _jitter.uniform(0.5, 1.0)
            last = sending == WECHAT_SENDINGS_MAX or clock() + wait_s >= deadline
            if last or outcome is not _Outcome.BUSY:
                return told, outcome
            await self._pause(wait_s)

    async def _ask_once(self, url: URL, *, seconds: float) -> tuple[_Answer, _Outcome]:
        """The answer is text/plain with JSON in it; its type is not looked at."""
        try:
            answer = await send(self._session, "GET", url, seconds=seconds)
            told = _answer.decode(answer.raw or b"")
        except Unknown as fault:
            return _Answer(), _Outcome[fault.code]
        except NOT_JSON:
            return _Answer(), _Outcome.UNREADABLE
        return told, _outcome(told) if answer.status == HTTPStatus.OK else _Outcome.UNREADABLE


def _outcome(told: _Answer) -> _Outcome:
    if told.errcode:
        return next(
            (outcome for outcome, codes in _ERRCODES.items() if told.errcode in codes), _Outcome.OTHER
        )
    if told.is_snapshotuser:
        return _Outcome.VISITOR
    return _Outcome.OK if told.openid else _Outcome.UNREADABLE
