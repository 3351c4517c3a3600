"""The demo's walk, paid by WeChat: over the Mini Program's bridge, and by the code that a desktop shows."""

from __future__ import annotations

from typing import Any, Final
from uuid import uuid4

from server.dev.walk import Answer, Walk, yuan

_WEB_VIEW: Final = "Mozilla/5.0 (iPhone) MicroMessenger/8.0.50 miniProgram"
_SHELL: Final = {
    "environmentType": "miniprogram",
    "miniProgramBridgeSupported": True,
    "miniProgramBridgeVersion": "1.4.0",
}


async def pay_by_wechat(walk: Walk, product: dict[str, Any], phone: str, appid: str) -> None:
    """Two orders of one buyer, each paid on the simulated phone at `phone`; `appid`: of the Mini Program."""
    user = f"walker-{uuid4().hex[:8]}"
    walk.note("A buyer in WeChat's Mini Program: a code of wx.login becomes a token.")
    buyer = await _log_in(walk, phone, user, appid)
    await _order(
        walk, buyer, product, {"environmentType": "none"}, _WEB_VIEW,
        lambda a: f"{a.json['code']}, from {a.json['minBridgeVersion']} on: nothing was made",
        lambda a: a.status == 400 and a.json["code"] == "MINI_PROGRAM_BRIDGE_REQUIRED" and a.json["requiresUpgrade"],
    )  # fmt: skip
    bridge = await _order(walk, buyer, product, _SHELL, _WEB_VIEW, _offered, _by("MINIPROGRAM_BRIDGE"))
    await _pay(walk, phone, {"user": user, "payPayload": bridge.json["payPayload"]}, "wx.requestPayment")
    await _paid(walk, buyer, bridge.json["order_id"])

    walk.note("The same buyer at a desktop: the page shows WeChat's code, and the phone scans it.")
    native = await _order(
        walk, buyer, product, {}, "Mozilla/5.0 (X11; Linux)", _offered, _by("WECHAT_NATIVE")
    )
    await _pay(
        walk, phone, {"user": user, "code_url": native.json["payPayload"]["codeUrl"]}, "scans the code"
    )
    await _paid(walk, buyer, native.json["order_id"])


async def _log_in(walk: Walk, phone: str, user: str, appid: str) -> dict[str, str]:
    made = await walk.step(
        "phone", "POST", f"{phone}/phone/code",
        lambda a: f"code {a.json['code'][:6]}…, good once",
        lambda a: a.status == 200,
        about="wx.login",
        json={"user": user, "appid": appid},
    )  # fmt: skip
    login = await walk.step(
        "buyer", "POST", "/auth/wechat/login",
        lambda a: f"a token for {a.json['buyer_id'][:12]}…",
        lambda a: a.status == 200,
        json={"code": made.json["code"]},
    )  # fmt: skip
    return {"Authorization": f"Bearer {login.json['token']}"}


async def _order(
    walk: Walk,
    buyer: dict[str, str],
    product: dict[str, Any],
    context: dict[str, Any],
    agent: str,
    tell: Any,
    holds: Any,
) -> Answer:
    return await walk.step(
        "buyer", "POST", "/orders", tell, holds, about="in a Mini Program" if agent is _WEB_VIEW else "at a desktop",
        headers=buyer | {"Idempotency-Key": uuid4().hex, "User-Agent": agent},
        json={"items": [{"product_id": product["id"], "qty": 1}], "clientContext": context},
    )  # fmt: skip


def _offered(answer: Answer) -> str:
    return f"{answer.json['status']}, {yuan(answer.json['total_fen'])}, pay by {answer.json['channel']}"


def _by(channel: str) -> Any:
    return lambda a: a.status == 201 and a.json["channel"] == channel


async def _pay(walk: Walk, phone: str, asked: dict[str, Any], about: str) -> None:
    await walk.step(
        "phone", "POST", f"{phone}/phone/pay",
        lambda a: f"{a.json['errMsg']}: which proves nothing yet",
        lambda a: a.status == 200 and a.json["errMsg"].endswith(":ok"),
        about=about,
        json=asked,
    )  # fmt: skip


async def _paid(walk: Walk, buyer: dict[str, str], order_id: str) -> None:
    await walk.step(
        "buyer", "POST", f"/orders/{order_id}/query",
        lambda a: f"{a.json['status']} (asked WeChat, settled once)",
        lambda a: a.status == 200 and a.json["status"] == "PAID",
        headers=buyer,
    )  # fmt: skip
