"""What the simulated WeChat refuses in a request for a payment (pure): field by field, before any order is looked at.

Lengths are bytes of UTF-8, as the real host counts them ("字节数 203").
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from server.domain.payments import CURRENCY

JSAPI: Final = "JSAPI"
NATIVE: Final = "NATIVE"
H5: Final = "MWEB"
TRADE_TYPES: Final = {"jsapi": JSAPI, "native": NATIVE, "h5": H5}  # last part of the path -> trade_type

_NUMBER: Final = re.compile(r"[0-9A-Za-z_\-|*]{6,32}")
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_REQUIRED_BYTES_MAX: Final = {
    "appid": 32,
    "mchid": 32,
    "description": 127,
    "out_trade_no": 32,
    "notify_url": 255,
}
_OPTIONAL_BYTES_MAX: Final = {"attach": 128, "time_expire": 64, "goods_tag": 32}
_H5_TYPES: Final = frozenset({"iOS", "Android", "Wap"})


class Refusal(NamedTuple):
    """An error answer: HTTP status, and what its body says."""

    status: int
    code: str
    message: str


def refused(trade_type: str, asked: object, now: float) -> Refusal | None:
    """The first fault of the parameters of a payment, or None."""
    if not isinstance(asked, dict):
        return _param("/body", "不是JSON对象")
    for check in (_texts, _number, _amount, _notify_url, _time_expire):
        if fault := check(asked, now):
            return fault
    if trade_type == JSAPI:
        return _payer(asked)
    return _scene(asked) if trade_type == H5 else None


def expires_at(asked: Mapping[str, Any]) -> float | None:
    """time_expire in unix seconds; only of parameters that were not refused."""
    text = asked.get("time_expire")
    return datetime.fromisoformat(text).timestamp() if text else None


def _param(where: str, what: str) -> Refusal:
    return Refusal(400, "PARAM_ERROR", f"输入源“{where}”{what}")


def _texts(asked: dict[str, Any], _now: float) -> Refusal | None:
    for name, bytes_max in {**_REQUIRED_BYTES_MAX, **_OPTIONAL_BYTES_MAX}.items():
        value = asked.get(name)
        if value is None and name in _OPTIONAL_BYTES_MAX:
            continue
        if value is None or (value == "" and name in _REQUIRED_BYTES_MAX):
            return _param(f"/body/{name}", "必填性规则校验失败，此字段为必填项")
        if not isinstance(value, str):
            return _param(f"/body/{name}", "需要一个 string 类型的 Json 值")
        if (size := len(value.encode(errors="surrogatepass"))) > bytes_max:
            return _param(f"/body/{name}", f"字符串规则校验失败，字节数 {size}，大于最大值 {bytes_max}")
    return None


def _number(asked: dict[str, Any], _now: float) -> Refusal | None:
    if _NUMBER.fullmatch(asked["out_trade_no"]):
        return None
    return _param("/body/out_trade_no", "字符串规则校验失败：6 到 32 个 [0-9A-Za-z_-|*]")


def _amount(asked: dict[str, Any], _now: float) -> Refusal | None:
    amount = asked.get("amount")
    if not isinstance(amount, dict):
        return _param("/body/amount", "必填性规则校验失败，此字段为必填项")
    total = amount.get("total")
    if type(total) is not int:  # True is an int to isinstance
        return _param("/body/amount/total", "需要一个 integer 类型的 Json 值")
    if total < 1:
        return _param("/body/amount/total", f"数值 {total}，小于最小值 1")
    if amount.get("currency", CURRENCY) != CURRENCY:
        return _param("/body/amount/currency", "不是支持的货币类型")
    return None


def _notify_url(asked: dict[str, Any], _now: float) -> Refusal | None:
    """HTTPS without a query. Plain http only to this very machine: the one liberty of a simulator."""
    try:
        url = urlsplit(asked["notify_url"])
        plain_here = url.scheme == "http" and url.hostname in _LOOPBACK
        good = url.hostname and (url.scheme == "https" or plain_here) and url.port != 0
    except ValueError:  # a port or an address in brackets that is none
        good = False
    if not good or set(asked["notify_url"]) & set("?# "):
        return _param("/body/notify_url", "通知地址必须为不带参数的https地址")
    return None


def _time_expire(asked: dict[str, Any], now: float) -> Refusal | None:
    text = asked.get("time_expire")
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text).timestamp() if _RFC3339.fullmatch(text) else None
    except ValueError:
        moment = None
    if moment is None:
        return _param("/body/time_expire", "不是 RFC3339 格式的时间")
    if moment <= now:
        return _param("/body/time_expire", "订单失效时间不能早于当前时间")
    return None


def _payer(asked: dict[str, Any]) -> Refusal | None:
    payer = asked.get("payer")
    openid = payer.get("openid") if isinstance(payer, dict) else None
    if not isinstance(openid, str) or not 1 <= len(openid.encode(errors="surrogatepass")) <= 128:
        return _param("/body/payer/openid", "必填性规则校验失败，此字段为必填项")
    return None


def _scene(asked: dict[str, Any]) -> Refusal | None:
    scene = asked.get("scene_info")
    if not isinstance(scene, dict):
        return _param("/body/scene_info", "必填性规则校验失败，此字段为必填项")
    try:
        ipaddress.ip_address(str(scene.get("payer_client_ip", "")))
    except ValueError:
        return _param("/body/scene_info/payer_client_ip", "不是 IP 地址")
    h5_info = scene.get("h5_info")
    if not isinstance(h5_info, dict) or h5_info.get("type") not in _H5_TYPES:
        return _param("/body/scene_info/h5_info/type", "必填性规则校验失败：iOS, Android, Wap")
    return None
