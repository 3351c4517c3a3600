"""Every channel on the whole road: ordered, launched on a phone, paid, told, settled."""

from __future__ import annotations

import pytest

from tests.conftest import Audit
from tests.payment.shop import PAYS, WAYS, Shop

FIELDS: dict[str, set[str]] = {
    "MINIPROGRAM_BRIDGE": {"appId", "timeStamp", "nonceStr", "package", "signType", "paySign", "orderNo"},
    "WECHAT_JSAPI": {"appId", "timeStamp", "nonceStr", "package", "signType", "paySign"},
    "WECHAT_NATIVE": {"codeUrl", "qrImage"},
    "WECHAT_H5": {"h5Url"},
}


@pytest.mark.parametrize("channel", WAYS)
async def test_an_order_is_paid_and_its_ticket_issued_by_the_notification(
    channel: str, shop: Shop, audit: Audit
) -> None:
    product = await shop.road.product()
    made = await shop.order(product, **WAYS[channel])
    assert (made.status, made.json["channel"]) == (201, channel), made
    assert set(made.json["payPayload"]) == FIELDS[channel]

    assert await shop.pay(made) in PAYS

    await shop.until_status(made.json["order_id"], "PAID")
    tickets = await shop.road.call("GET", "/my/tickets", headers=await shop.headers("wang"))
    assert [ticket["order_id"] for ticket in tickets.json["tickets"]] == [made.json["order_id"]]
    await audit(shop.road)
