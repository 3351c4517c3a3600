"""The simulated phone: a person with WeChat in hand, as JSON for programs and as pages for people."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec
from aiohttp import web

from server.dev import page, wechat_seals
from server.dev.wechat_api import CODE_URL, H5_PATH
from server.dev.wechat_book import Book, Order, PayFault, TradeState
from server.dev.wechat_keys import WeChatKeys
from server.dev.wechat_people import People
from server.dev.wechat_rules import H5, JSAPI, NATIVE

Outcome = Literal["SUCCESS", "FAIL", "CANCEL"]
_PASSER_BY: Final = "passer-by"  # who pays on a page that needs no login
_OUTCOMES: Final = {"SUCCESS": "ok", "FAIL": "fail 余额不足", "CANCEL": "fail cancel"}
_HEADING: Final = "WeChat simulator · 微信"
_BUTTONS: Final = """<form method="post" action="/phone/pay"><input type="hidden" name="ticket" value="{ticket}">
<button name="outcome" value="SUCCESS">Pay · 支付</button>
<button class="no" name="outcome" value="CANCEL">Cancel · 取消</button></form>"""
_SMALL_PRINT: Final = "<p><small>No money moves here: this page stands in for WeChat.</small></p>"


class _Code(msgspec.Struct, frozen=True):
    user: str
    appid: str


class _Payment(msgspec.Struct, frozen=True):
    user: str
    pay_payload: dict[str, Any] | None = msgspec.field(default=None, name="payPayload")
    code_url: str | None = None
    h5_url: str | None = None
    outcome: Outcome = "SUCCESS"


class _Refund(msgspec.Struct, frozen=True):
    out_trade_no: str


class Phone:
    """What a person does: open an app, pay, have money given back."""

    def __init__(
        self,
        keys: WeChatKeys,
        book: Book,
        people: People,
        *,
        paid: Callable[[Order], None],
        now: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._book = book
        self._people = people
        self._paid = paid
        self._now = now

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """/phone is ours alone; the path of an h5_url is WeChat's."""
        router.add_get("/phone", self.orders)
        router.add_post("/phone/code", self.code)
        router.add_post("/phone/pay", self.pay)
        router.add_post("/phone/refund", self.refund)
        router.add_get(H5_PATH, self.cashier)

    async def code(self, request: web.Request) -> web.Response:
        """POST {user, appid}: {code} for logging in, as wx.login or the redirect of a web login gives it."""
        asked = await _body(request, _Code)
        if asked.appid not in self._keys.apps:
            raise web.HTTPBadRequest(text="appid is not one of the merchant's")
        return web.json_response({"code": self._people.code(asked.user, asked.appid, self._now())})

    async def pay(self, request: web.Request) -> web.Response:
        """POST {user, one of payPayload, code_url, h5_url, outcome?}: {errMsg} as wx.requestPayment reports it.

        A browser's form {ticket, outcome} pays in the name of whom the order is for, and comes back to the list.
        """
        if request.content_type != "application/json":
            return await self._pay_form(request)
        asked = await _body(request, _Payment)
        ways = [asked.pay_payload, asked.code_url, asked.h5_url]
        if sum(way is not None for way in ways) != 1:
            raise web.HTTPBadRequest(text="one of payPayload, code_url and h5_url")
        ticket = self._ticket(asked)
        told = ticket if ticket.startswith("fail") else self.pay_ticket(ticket, asked.user, asked.outcome)
        return web.json_response({"errMsg": f"requestPayment:{told}"})

    def pay_ticket(self, ticket: str, user: str | None, outcome: Outcome) -> str:
        """Pays with a prepay id or a code: "ok", "fail cancel" or "fail <detail>". No user: whoever may pay."""
        order = self._book.payable(ticket, self._now())
        if isinstance(order, Order) and outcome == "SUCCESS":
            whose = self._people.openid(_PASSER_BY if user is None else user, order.appid)
            if user is None and order.trade_type == JSAPI:
                whose = order.openid
            order = self._book.pay(ticket, whose, self._now())
            if isinstance(order, Order):
                self._paid(order)
        if isinstance(order, PayFault):
            return f"fail {order.value}"
        return _OUTCOMES[outcome]

    async def refund(self, request: web.Request) -> web.Response:
        """POST {out_trade_no}: the money goes back, as by the merchant's console; 409 when it was not paid."""
        if not self._book.refund((await _body(request, _Refund)).out_trade_no):
            raise web.HTTPConflict(text="not paid, or given back already")
        return web.json_response({"trade_state": TradeState.REFUND.name})

    async def orders(self, request: web.Request) -> web.Response:
        """The open orders, the newest first, each with its buttons."""
        now = self._now()
        listed = []
        for order in reversed(self._book.orders.values()):
            if isinstance(self._book.payable(order.tickets[-1], now), Order):
                what = f"<p>{html.escape(order.asked['description'])} · {order.trade_type}</p>"
                buttons = _BUTTONS.format(ticket=order.tickets[-1])
                listed.append(f"<section>{page.order(order.total, order.number)}{what}{buttons}</section>")
        return page.page("Phone", _HEADING, "".join(listed) or "<p>Nothing to pay · 无待付款</p>")

    async def cashier(self, request: web.Request) -> web.Response:
        """The page that h5_url leads to."""
        ticket = request.query.get("prepay_id", "")
        order = self._book.payable(ticket, self._now())
        if isinstance(order, PayFault):
            return page.page("Pay", _HEADING, f"<p><strong>{order.value}</strong></p>")
        if order.trade_type != H5:
            raise web.HTTPNotFound
        buttons = _BUTTONS.format(ticket=html.escape(ticket)) + _SMALL_PRINT
        return page.page("Pay", _HEADING, page.order(order.total, order.number) + buttons)

    async def _pay_form(self, request: web.Request) -> web.Response:
        form = await request.post()
        outcome = str(form.get("outcome", ""))
        if outcome not in _OUTCOMES:
            raise web.HTTPBadRequest(text="outcome is SUCCESS, FAIL or CANCEL")
        told = self.pay_ticket(str(form.get("ticket", "")), None, outcome)  # type: ignore[arg-type]  # was looked at
        text = "Paid · 已支付" if told == "ok" else html.escape(told)
        again = '<p><a href="/phone">Orders · 订单</a></p>'
        return page.page("Paid", _HEADING, f"<p><strong>{text}</strong></p>{again}")

    def _ticket(self, asked: _Payment) -> str:
        """What is paid with, by what the merchant handed out; or "fail ..."."""
        if asked.pay_payload is not None:
            return self._launched(asked.pay_payload)
        if asked.code_url is not None:
            head, _, ticket = asked.code_url.partition(CODE_URL)
            return self._of_type(ticket, NATIVE) if not head else "fail 二维码无效"
        tickets = parse_qs(urlsplit(asked.h5_url or "").query).get("prepay_id", [""])
        return self._of_type(tickets[0], H5)

    def _launched(self, payload: dict[str, Any]) -> str:
        """A launch over the bridge or in the WeChat browser: WeChat believes the merchant's signature alone."""
        if not isinstance(payload.get("timeStamp"), str) or not payload["timeStamp"].isdigit():
            return "fail parameter error: timeStamp should be String"
        if payload.get("signType") != "RSA":
            return "fail parameter error: signType"
        if len(str(payload.get("nonceStr", ""))) > 32 or not wechat_seals.launch_holds(self._keys, payload):
            return "fail 支付验证签名失败"
        ticket = str(payload["package"]).removeprefix("prepay_id=")
        found = self._of_type(ticket, JSAPI)
        order = self._book.payable(found, self._now())
        if isinstance(order, Order) and order.appid != payload["appId"]:
            return "fail appid和prepay_id不匹配"
        return found

    def _of_type(self, ticket: str, trade_type: str) -> str:
        order = self._book.payable(ticket, self._now())
        wrong = isinstance(order, Order) and order.trade_type != trade_type
        return f"fail {PayFault.NO_SUCH.value}" if wrong else ticket


async def _body(request: web.Request, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.DecodeError as fault:
        raise web.HTTPBadRequest(text=str(fault)) from fault
