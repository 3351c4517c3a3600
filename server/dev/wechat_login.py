"""The login calls of api.weixin.qq.com: a code against an openid, for Mini Programs and for browsers."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from server.dev.wechat_calls import Call, Calls
from server.dev.wechat_faults import CallFault
from server.dev.wechat_keys import WeChatKeys
from server.dev.wechat_people import CodeFault, People

LOGIN: Final = "login"  # name of both calls
_TEXTS: Final = {
    CodeFault.BUSY: "system error",
    CodeFault.BAD_SECRET: "invalid appsecret",
    CodeFault.BAD_GRANT: "invalid grant_type",
    CodeFault.BAD_APPID: "invalid appid",
    CodeFault.BAD_CODE: "invalid code",
    CodeFault.CODE_USED: "code been used",
    CodeFault.TOO_OFTEN: "api minute-quota reach limit  mustslower  retry next minute",
    CodeFault.BLOCKED: "code blocked",
    CodeFault.NO_APPID: "appid missing",
    CodeFault.NO_SECRET: "appsecret missing",
    CodeFault.NO_CODE: "missing code",
}
_WISHED: Final = {
    CallFault.FAIL_BEFORE: CodeFault.BUSY,
    CallFault.LIMITED: CodeFault.TOO_OFTEN,
    CallFault.BLOCKED: CodeFault.BLOCKED,
}


class Login:
    """Exchanges codes. Every answer is 200 with JSON that calls itself text/plain, as the real host's."""

    def __init__(self, keys: WeChatKeys, people: People, calls: Calls, now: Callable[[], float]) -> None:
        self._keys = keys
        self._people = people
        self._calls = calls
        self._now = now

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """The paths of the documentation."""
        router.add_get("/sns/jscode2session", self.mini_program)
        router.add_get("/sns/oauth2/access_token", self.browser)

    async def mini_program(self, request: web.Request) -> web.Response:
        """GET /sns/jscode2session?appid&secret&js_code&grant_type: {openid, session_key, unionid}."""
        appid = self._keys.miniprogram_appid
        user = self._user(request, appid, "js_code")
        if isinstance(user, CodeFault):
            return self._refused(user)
        session_key = base64.b64encode(secrets.token_bytes(16)).decode()
        return self._text({"session_key": session_key, **self._ids(user, appid)})

    async def browser(self, request: web.Request) -> web.Response:
        """GET /sns/oauth2/access_token?appid&secret&code&grant_type: {access_token, openid, scope, ...}."""
        appid = self._keys.appid
        user = self._user(request, appid, "code")
        if isinstance(user, CodeFault):
            return self._refused(user)
        tokens = {f"{kind}_token": f"98_{secrets.token_urlsafe(66)}" for kind in ("access", "refresh")}
        return self._text({**tokens, "expires_in": 7200, "scope": "snsapi_base", **self._ids(user, appid)})

    def _user(self, request: web.Request, appid: str, code_name: str) -> str | CodeFault:
        """Who the code belongs to. Only the app of this kind has codes of this kind."""
        wished = self._calls.told_fault(LOGIN)
        refused = _WISHED.get(wished) if wished is not None else None
        user = self._exchanged(request, appid, code_name) if refused is None else refused
        status = int(user) if isinstance(user, CodeFault) else 0
        self._calls.enter(Call(LOGIN, "", {"appid": request.query.get("appid", "")}, status, wished))
        return user

    def _exchanged(self, request: web.Request, appid: str, code_name: str) -> str | CodeFault:
        asked = request.query
        checks = (
            (bool(asked.get("appid")), CodeFault.NO_APPID),
            (asked.get("appid") in self._keys.apps, CodeFault.BAD_APPID),
            (bool(asked.get("secret")), CodeFault.NO_SECRET),
            (asked.get("secret") == self._keys.apps.get(asked.get("appid", "")), CodeFault.BAD_SECRET),
            (bool(asked.get(code_name)), CodeFault.NO_CODE),
            (asked.get("grant_type") == "authorization_code", CodeFault.BAD_GRANT),
        )
        for holds, fault in checks:
            if not holds:
                return fault
        return self._people.exchange(asked[code_name], appid, self._now())

    def _ids(self, user: str, appid: str) -> dict[str, str]:
        return {"openid": self._people.openid(user, appid), "unionid": self._people.unionid(user)}

    def _refused(self, fault: CodeFault) -> web.Response:
        rid = f"{int(self._now()):x}-{secrets.token_hex(4)}-{secrets.token_hex(4)}"
        return self._text({"errcode": int(fault), "errmsg": f"{_TEXTS[fault]}, rid: {rid}"})

    def _text(self, told: dict[str, Any]) -> web.Response:
        return web.Response(body=msgspec.json.encode(told), content_type="text/plain")
