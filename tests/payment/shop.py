"""A shop that is paid by WeChat: the server, the simulated WeChat, and the people who buy."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from aiohttp import ClientSession

from server.dev.wechat import WeChat
from tests.conftest import eventually
from tests.road import Answer, Road

BRIDGE = {
    "environmentType": "miniprogram",
    "miniProgramBridgeSupported": True,
    "miniProgramBridgeVersion": "1.4.0",
}
IN_MINIPROGRAM = "Mozilla/5.0 (iPhone) MicroMessenger/8.0.50 miniProgram"
IN_WECHAT = "Mozilla/5.0 (Linux; Android 14) MicroMessenger/8.0.50"
ON_A_PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5) Mobile Safari"
AT_A_DESKTOP = "Mozilla/5.0 (X11; Linux x86_64)"
# Channel -> what leads to it: agent and client context.
WAYS: dict[str, dict[str, Any]] = {
    "MINIPROGRAM_BRIDGE": {"agent": IN_MINIPROGRAM, "context": BRIDGE},
    "WECHAT_JSAPI": {"agent": IN_WECHAT},
    "WECHAT_NATIVE": {"agent": AT_A_DESKTOP},
    "WECHAT_H5": {"agent": ON_A_PHONE},
}
PAYS = ("requestPayment:ok", "get_brand_wcpay_request:ok", "ok")
GONE = "requestPayment:fail 订单已关闭"  # what the phone says of a number that was closed


def launch(offer: Answer) -> str:
    """What launches it at WeChat, without the signature around it."""
    payload = offer.json["payPayload"]
    told: str = payload.get("package") or payload.get("codeUrl") or payload["h5Url"]
    return told


class Shop:
    """One server, `road`, and its WeChat. People are named; each has a token once they log in."""

    def __init__(self, road: Road, wechat: WeChat, url: str, phone: ClientSession) -> None:
        self.road = road
        self.wechat = wechat
        self.url = url
        self._phone = phone
        self._tokens: dict[str, str] = {}

    def at(self, road: Road) -> Shop:
        """The same shop, by another of its servers."""
        other = Shop(road, self.wechat, self.url, self._phone)
        other._tokens = self._tokens
        return other

    # --- people ------------------------------------------------------------------------------------------------

    async def code(self, user: str, environment: str = "miniprogram") -> str:
        """A fresh code of wx.login or of the authorisation page."""
        keys = self.wechat.keys
        appid = keys.miniprogram_appid if environment == "miniprogram" else keys.appid
        async with self._phone.post(f"{self.url}/phone/code", json={"user": user, "appid": appid}) as answer:
            assert answer.status == 200, await answer.text()
            code: str = (await answer.json())["code"]
            return code

    async def log_in(self, user: str, environment: str = "miniprogram") -> Answer:
        """By a code of WeChat's."""
        answer = await self.road.call(
            "POST",
            "/auth/wechat/login",
            json={"code": await self.code(user, environment), "environment": environment},
        )
        if answer.status == 200:
            self._tokens[user] = answer.json["token"]
        return answer

    async def headers(self, user: str, agent: str = AT_A_DESKTOP) -> dict[str, str]:
        """Of a person who is logged in, when first asked for, from both apps."""
        if user not in self._tokens:
            for environment in ("wechat", "miniprogram"):
                answer = await self.log_in(user, environment)
                assert answer.status == 200, answer
        return {"Authorization": f"Bearer {self._tokens[user]}", "User-Agent": agent}

    # --- buying ------------------------------------------------------------------------------------------------

    async def order(
        self,
        product: int,
        *,
        user: str = "wang",
        agent: str = AT_A_DESKTOP,
        context: dict[str, Any] | None = None,
        key: str | None = None,
        **body: Any,
    ) -> Answer:
        """Order one unit, or `items`."""
        return await self.road.call(
            "POST",
            "/orders",
            headers=await self.headers(user, agent) | {"Idempotency-Key": key or uuid4().hex},
            json={"items": [{"product_id": product, "qty": 1}], "clientContext": context or {}} | body,
        )

    async def resume(
        self,
        order_id: str,
        *,
        user: str = "wang",
        agent: str = AT_A_DESKTOP,
        context: dict[str, Any] | None = None,
        **body: Any,
    ) -> Answer:
        """Ask for a payment again, perhaps another one."""
        return await self.road.call(
            "POST",
            f"/orders/{order_id}/pay",
            headers=await self.headers(user, agent),
            json={"clientContext": context or {}} | body,
        )

    async def query(self, order_id: str, *, user: str = "wang") -> Answer:
        """Ask whether it is paid."""
        return await self.road.call("POST", f"/orders/{order_id}/query", headers=await self.headers(user))

    async def cancel(self, order_id: str, *, user: str = "wang") -> Answer:
        """Give the order up."""
        return await self.road.call("POST", f"/orders/{order_id}/cancel", headers=await self.headers(user))

    async def status(self, order_id: str, *, user: str = "wang") -> str:
        """As the buyer reads it."""
        answer = await self.road.call("GET", f"/orders/{order_id}", headers=await self.headers(user))
        told: str = answer.json["status"]
        return told

    async def until_status(self, order_id: str, status: str, *, user: str = "wang") -> None:
        """Wait until the buyer reads this."""

        async def told() -> bool:
            return await self.status(order_id, user=user) == status

        await eventually(told)

    async def pay(self, offer: Answer, *, user: str = "wang", outcome: str = "SUCCESS") -> str:
        """Launch a payment on the person's phone; what WeChat's dialog says of it."""
        payload = offer.json["payPayload"]
        asked: dict[str, Any] = {"payPayload": payload}
        if offer.json["channel"] == "WECHAT_NATIVE":
            asked = {"code_url": payload["codeUrl"]}
        elif offer.json["channel"] == "WECHAT_H5":
            asked = {"h5_url": payload["h5Url"]}
        async with self._phone.post(
            f"{self.url}/phone/pay", json={"user": user, "outcome": outcome} | asked
        ) as answer:
            told: dict[str, Any] = await answer.json()
            return str(told.get("errMsg", told))

    def number(self, order_id: str) -> str:
        """The newest number of the order at WeChat."""
        return [number for number, seen in self.wechat.orders().items() if seen.attach == order_id][-1]

    def state(self, number: str) -> str:
        """Of a number at WeChat."""
        return self.wechat.orders()[number].state.name
