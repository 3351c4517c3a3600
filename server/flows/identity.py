"""Logging buyers in by WeChat: a code becomes an identity in one app, and that a buyer."""

from __future__ import annotations

from typing import Final

from server.domain.errors import ErrorCode, Refusal
from server.domain.ids import new_order_id
from server.hot.throttle import Throttle
from server.limits import WECHAT_LOGINS_MAX
from server.store import identities
from server.store.pool import Database
from server.wechat.channels import Environment
from server.wechat.login import Login

_PREFIX: Final = "wx:"


class WeChatDoor:
    """Lets buyers in."""

    def __init__(self, db: Database, login: Login, throttle: Throttle) -> None:
        self._db = db
        self._login = login
        self._throttle = throttle
        self._waiting = 0

    async def enter(self, code: str, environment: Environment, address: str) -> str:
        """Who this is, from a code of the Mini Program or of the WeChat browser: the buyer's id, new or known.

        Raises Refusal: CHANNEL_NOT_OFFERED (no such app), WECHAT_CODE_INVALID, WECHAT_LOGIN_REFUSED,
        WECHAT_UNAVAILABLE, OVERLOADED, POSTGRES_UNAVAILABLE (the code is spent then); TOO_MANY_ATTEMPTS when too many
        codes from this address were invalid.
        """
        attempt = await self._throttle.wechat_code(address)
        try:
            buyer_id = await self._exchange(code, environment)
        except Refusal as refusal:
            if refusal.code is not ErrorCode.WECHAT_CODE_INVALID:
                await attempt.take_back()
            raise
        await attempt.take_back()
        return buyer_id

    async def _exchange(self, code: str, environment: Environment) -> str:
        exchange = self._login.miniprogram if environment is Environment.MINIPROGRAM else self._login.browser
        if self._waiting >= WECHAT_LOGINS_MAX:
            raise Refusal(ErrorCode.OVERLOADED)
        self._waiting += 1
        try:
            who = await exchange(code)
        finally:
            self._waiting -= 1
        async with self._db.transaction() as connection:
            return await identities.buyer_of(
                connection, who.appid, who.openid, who.unionid, _PREFIX + new_order_id()
            )
