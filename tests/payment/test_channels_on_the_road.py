"""Every channel on the whole road: ordered, launched on a phone, paid, told, settled."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Audit, eventually
from tests.payment.shop import AT_A_DESKTOP, BRIDGE, IN_MINIPROGRAM, IN_WECHAT, ON_A_PHONE, Shop

WAYS: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "MINIPROGRAM_BRIDGE": (
        IN_MINIPROGRAM,
        BRIDGE,
        {"appId", "timeStamp", "nonceStr", "package", "signType", "paySign", "orderNo"},
    ),
    "WECHAT_JSAPI": (
        IN_WECHAT,
        {},
        {"appId", "timeStamp", "nonceStr", "package", "signType", "paySign"},
    ),
    "WECHAT_NATIVE": (AT_A_DESKTOP, {}, {"codeUrl", "qrImage"}),
    "WECHAT_H5": (ON_A_PHONE, {}, {"h5Url"}),
}


@pytest.mark.parametrize("channel", WAYS)
async def test_an_order_is_paid_and_its_ticket_issued_by_the_notification(
    channel: str, shop: Shop, audit: Audit
) -> None:
    agent, context, fields = WAYS[channel]
    product = await shop.road.product()
    made = await shop.order(product, agent=agent, context=context)
    assert (made.status, made.json["channel"]) == (201, channel), made
    assert set(made.json["payPayload"]) == fields

    assert await shop.pay(made) in ("requestPayment:ok", "get_brand_wcpay_request:ok", "ok"), made

    async def paid() -> bool:
        return await shop.status(made.json["order_id"]) == "PAID"

    await eventually(paid)
    tickets = await shop.road.call("GET", "/my/tickets", headers=await shop.headers("wang"))
    assert [ticket["order_id"] for ticket in tickets.json["tickets"]] == [made.json["order_id"]]
    await audit(shop.road)
