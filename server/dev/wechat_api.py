"""The five calls of API v3 and the list of certificates, as HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from server.dev import wechat_seals
from server.dev.wechat_book import Book, Order
from server.dev.wechat_calls import Calls
from server.dev.wechat_keys import WeChatKeys
from server.dev.wechat_rules import H5, JSAPI, TRADE_TYPES, Refusal

H5_PATH = "/cgi-bin/mmpayweb-bin/checkmweb"  # of h5_url, as WeChat's own
CODE_URL = "weixin://wxpay/bizpayurl?pr="
_ORDER = "/v3/pay/transactions/out-trade-no/{number}"


class Api:
    """What a merchant's server may ask."""

    def __init__(self, keys: WeChatKeys, book: Book, calls: Calls, now: Callable[[], float]) -> None:
        self._keys = keys
        self._book = book
        self._calls = calls
        self._now = now

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """The paths of the documentation."""
        router.add_post("/v3/pay/transactions/{call:jsapi|native|h5}", self.create)
        router.add_get(_ORDER, self.query, allow_head=False)
        router.add_post(f"{_ORDER}/close", self.close)
        router.add_get("/v3/certificates", self.certificates, allow_head=False)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """POST /v3/pay/transactions/{jsapi,native,h5}: {prepay_id}, {code_url} or {h5_url}."""
        call = request.match_info["call"]
        trade_type = TRADE_TYPES[call]

        def act(asked: Any) -> dict[str, Any] | Refusal:
            ticket = self._book.create(trade_type, asked, self._now())
            if isinstance(ticket, Refusal):
                return ticket
            if trade_type == JSAPI:
                return {"prepay_id": ticket}
            if trade_type == H5:
                return {"h5_url": f"{request.url.origin()}{H5_PATH}?prepay_id={ticket}&package=2150917749"}
            return {"code_url": CODE_URL + ticket}

        return await self._calls.take(request, call, "", act)

    async def query(self, request: web.Request) -> web.StreamResponse:
        """GET .../out-trade-no/{no}?mchid=: the transaction."""
        number = request.match_info["number"]
        mchid = request.query.get("mchid", "")

        def act(_asked: Any) -> dict[str, Any] | Refusal:
            order = self._book.query(mchid, number)
            return order.transaction() if isinstance(order, Order) else order

        return await self._calls.take(request, "query", number, act)

    async def close(self, request: web.Request) -> web.StreamResponse:
        """POST .../out-trade-no/{no}/close with {mchid}: 204."""
        number = request.match_info["number"]

        def act(asked: Any) -> Refusal | None:
            mchid = asked.get("mchid") if isinstance(asked, dict) else None
            if not isinstance(mchid, str):
                return Refusal(400, "PARAM_ERROR", "输入源“/body/mchid”必填性规则校验失败，此字段为必填项")
            order = self._book.close(mchid, number)
            return order if isinstance(order, Refusal) else None

        return await self._calls.take(request, "close", number, act)

    async def certificates(self, request: web.Request) -> web.StreamResponse:
        """GET /v3/certificates: the platform certificates, each encrypted by the APIv3 key."""
        return await self._calls.take(request, "certificates", "", self._certificates)

    def _certificates(self, _asked: Any) -> dict[str, Any]:
        certificate = self._keys.platform_cert
        return {
            "data": [
                {
                    "serial_no": self._keys.platform_serial,
                    "effective_time": certificate.not_valid_before_utc.isoformat(),
                    "expire_time": certificate.not_valid_after_utc.isoformat(),
                    "encrypt_certificate": wechat_seals.encrypted(
                        self._keys.api_v3_key, certificate.public_bytes(Encoding.PEM), "certificate"
                    ),
                }
            ]
        }
