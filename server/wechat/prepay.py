"""What is posted to prepay an order: JSON whose bytes are kept, so that it is posted again exactly so.

Source: wechat pay's API v3, "JSAPI/Native/H5 prepay"; WeChat refuses other parameters under a number that was used.
"""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import Any, Final

import msgspec

from server.domain.orders import Order
from server.domain.payments import CURRENCY, Channel

_DESCRIPTION_BYTES_MAX: Final = 127
_CHINA: Final = timezone(timedelta(hours=8))  # WeChat's own examples; any offset is legal


def prepay_request(
    order: Order,
    channel: Channel,
    out_trade_no: str,
    *,
    mchid: str,
    appid: str,
    openid: str,
    client_ip: str,
    notify_url: str,
) -> str:
    """The JSON of one attempt: the same for the same arguments. Not every channel uses `openid` or `client_ip`."""
    asked: dict[str, Any] = {
        "appid": appid,
        "mchid": mchid,
        "description": _description(order),
        "out_trade_no": out_trade_no,
        "time_expire": order.expires_at.astimezone(_CHINA).isoformat(timespec="seconds"),
        "attach": order.order_id,
        "notify_url": notify_url,
        "amount": {"total": order.total_fen, "currency": CURRENCY},
    }
    if channel in (Channel.MINIPROGRAM_BRIDGE, Channel.WECHAT_JSAPI):
        asked["payer"] = {"openid": openid}
    if channel is Channel.WECHAT_H5:
        asked["scene_info"] = {"payer_client_ip": client_ip, "h5_info": {"type": "Wap"}}
    return msgspec.json.encode(asked).decode()


def _description(order: Order) -> str:
    """What the buyer reads in WeChat, within its 127 bytes."""
    text = ", ".join(f"{line.terms.name} ×{line.qty}" for line in order.lines)
    return text.encode()[:_DESCRIPTION_BYTES_MAX].decode("utf-8", "ignore")
