"""The book of the simulated WeChat (pure): orders, what they may be paid with, payments, refunds. Time comes in.

Where the documentation is silent, the stricter reading is taken, and a comment says so.
"""

from __future__ import annotations

import enum
import secrets
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from server.dev.wechat_keys import WeChatKeys
from server.dev.wechat_people import People
from server.dev.wechat_rules import H5, JSAPI, NATIVE, Refusal, expires_at, refused
from server.domain.payments import CURRENCY
from server.limits import CASHIER_SESSIONS_MAX

LIFE_S: Final = {JSAPI: 7200.0, NATIVE: 7200.0, H5: 300.0}  # of a prepay_id, a code_url, an h5_url
_TICKETS_MAX: Final = 20  # of one order: a client in a loop must not fill the memory; the oldest is forgotten
_BEIJING: Final = timezone(timedelta(hours=8))  # WeChat tells its times so

CLOSED: Final = Refusal(400, "ORDER_CLOSED", "订单已关闭")
PAID: Final = Refusal(400, "INVALID_REQUEST", "该订单已支付")  # API v3 documents no code of its own for it
USED: Final = Refusal(403, "OUT_TRADE_NO_USED", "商户订单号重复")
UNKNOWN: Final = Refusal(404, "ORDER_NOT_EXIST", "订单不存在")
NOT_MERCHANT: Final = Refusal(400, "MCH_NOT_EXISTS", "商户号不存在")
NOT_APP: Final = Refusal(400, "APPID_MCHID_NOT_MATCH", "appid和mch_id不匹配")
# The table has 500 OPENID_MISMATCH too; merchants report this one, with this text.
NOT_OPENID: Final = Refusal(400, "PARAM_ERROR", "appid和openid不匹配")


class TradeState(enum.Enum):
    """State of an order, and what WeChat says of it."""

    NOTPAY = "订单未支付"
    SUCCESS = "支付成功"
    CLOSED = "订单已关闭"
    REFUND = "订单发生过退款，退款详情请查询退款单"


class PayFault(enum.Enum):
    """Why a phone does not pay; the value is the detail of `requestPayment:fail`."""

    NO_SUCH = "prepay_id无效"
    STALE = "该订单已过期，请重新下单"  # what it would be paid with has outlived its time
    EXPIRED = "订单已超过支付截止时间"  # time_expire has passed
    CLOSED = "订单已关闭"
    PAID = "该订单已支付"
    NOT_PAYER = "支付者与下单用户不一致"


@dataclass
class Order:
    """An order of a merchant at WeChat."""

    asked: dict[str, Any]  # the body of the request, as it came
    trade_type: str
    created_at: float
    expires_at: float | None  # time_expire: it stops payment and closes nothing
    openid: str = ""  # JSAPI: who alone may pay; else who has paid
    state: TradeState = TradeState.NOTPAY
    transaction_id: str = ""
    paid_at: float = 0.0
    tickets: deque[str] = field(default_factory=deque)  # what it may be paid with, the newest last

    @property
    def number(self) -> str:
        """out_trade_no."""
        return str(self.asked["out_trade_no"])

    @property
    def appid(self) -> str:
        """The app that it was made for."""
        return str(self.asked["appid"])

    @property
    def total(self) -> int:
        """Amount in fen."""
        return int(self.asked["amount"]["total"])

    @property
    def attach(self) -> str:
        """What the merchant hung on it, empty when nothing."""
        return str(self.asked.get("attach", ""))

    def transaction(self) -> dict[str, Any]:
        """As a query or a notification tells it. What was not paid has no transaction_id, payer or time."""
        told = {
            "appid": self.appid,
            "mchid": self.asked["mchid"],
            "out_trade_no": self.number,
            "trade_state": self.state.name,
            "trade_state_desc": self.state.value,
            "attach": self.attach,
            "promotion_detail": [],
            "amount": {"total": self.total, "currency": CURRENCY, "payer_currency": CURRENCY},
        }
        if self.transaction_id:
            told |= {
                "transaction_id": self.transaction_id,
                "trade_type": self.trade_type,
                "bank_type": "OTHERS",
                "success_time": datetime.fromtimestamp(int(self.paid_at), _BEIJING).isoformat(),
                "payer": {"openid": self.openid},
            }
            told["amount"] |= {"payer_total": self.total}
        return told


class Book:
    """All orders of one merchant. Past the bound the oldest is forgotten."""

    def __init__(self, keys: WeChatKeys, people: People) -> None:
        self._mchid = keys.mchid
        self._apps = keys.apps
        self._people = people
        self._tickets: dict[str, tuple[Order, float]] = {}  # prepay id or code -> order, end of its life
        self._payments = 0
        self.orders: dict[str, Order] = {}  # by out_trade_no, oldest first

    def create(self, trade_type: str, asked: object, now: float) -> str | Refusal:
        """An order, or the same order again: a fresh prepay id (JSAPI, H5) or code (NATIVE) to pay it with.

        Assumed: "the same parameters" are the same JSON value as a whole, so that a changed time_expire or client
        address is refused; and older prepay ids of an unpaid order work on until their own end or its payment.
        """
        if (fault := refused(trade_type, asked, now)) is not None:
            return fault
        assert isinstance(asked, dict)  # noqa: S101  (else it was refused)
        if (fault := self._stranger(trade_type, asked)) is not None:
            return fault
        order = self.orders.get(asked["out_trade_no"])
        if order is None:
            order = self._enter(Order(asked, trade_type, now, expires_at(asked)))
        elif order.state is TradeState.CLOSED:
            return CLOSED
        elif (order.trade_type, order.asked) != (trade_type, asked):
            return USED
        elif order.state is not TradeState.NOTPAY:
            return PAID
        return self._ticket(order, now)

    def query(self, mchid: str, number: str) -> Order | Refusal:
        """The order of this out_trade_no."""
        if mchid != self._mchid:
            return NOT_MERCHANT
        return self.orders.get(number) or UNKNOWN

    def close(self, mchid: str, number: str) -> Order | Refusal:
        """Nobody can pay the order any more. Refused when it was paid, closed before, or never made."""
        order = self.query(mchid, number)
        if isinstance(order, Refusal):
            return order
        if order.state is TradeState.CLOSED:
            return CLOSED
        if order.state is not TradeState.NOTPAY:
            return PAID
        order.state = TradeState.CLOSED
        return order

    def payable(self, ticket: str, now: float) -> Order | PayFault:
        """The order that this prepay id or code still pays."""
        order, end = self._tickets.get(ticket, (None, 0.0))
        if order is None:
            return PayFault.NO_SUCH
        if order.state is TradeState.CLOSED:
            return PayFault.CLOSED
        if order.state is not TradeState.NOTPAY:
            return PayFault.PAID
        if order.expires_at is not None and order.expires_at <= now:
            return PayFault.EXPIRED
        return PayFault.STALE if end <= now else order

    def pay(self, ticket: str, openid: str, now: float) -> Order | PayFault:
        """The payer pays; `openid` is theirs for the order's app."""
        order = self.payable(ticket, now)
        if isinstance(order, PayFault):
            return order
        if order.trade_type == JSAPI and openid != order.openid:
            return PayFault.NOT_PAYER
        self._payments += 1
        date = datetime.fromtimestamp(now, _BEIJING).strftime("%Y%m%d")
        order.state, order.paid_at, order.openid = TradeState.SUCCESS, now, openid
        order.transaction_id = f"4200{secrets.randbelow(10**6):06}{date}{self._payments:010}"
        return order

    def refund(self, number: str) -> bool:
        """Gives the money back, as a person does at the merchant's console; False when it was not paid."""
        order = self.orders.get(number)
        if order is None or order.state is not TradeState.SUCCESS:
            return False
        order.state = TradeState.REFUND
        return True

    def _stranger(self, trade_type: str, asked: dict[str, Any]) -> Refusal | None:
        """Who of the parameters is not who they should be."""
        if asked["mchid"] != self._mchid:
            return NOT_MERCHANT
        if asked["appid"] not in self._apps:
            return NOT_APP
        if trade_type == JSAPI and not self._people.knows(asked["payer"]["openid"], asked["appid"]):
            return NOT_OPENID
        return None

    def _enter(self, order: Order) -> Order:
        if len(self.orders) >= CASHIER_SESSIONS_MAX:
            oldest = self.orders.pop(next(iter(self.orders)))
            for ticket in oldest.tickets:
                del self._tickets[ticket]
        if order.trade_type == JSAPI:
            order.openid = order.asked["payer"]["openid"]
        self.orders[order.number] = order
        return order

    def _ticket(self, order: Order, now: float) -> str:
        if len(order.tickets) >= _TICKETS_MAX:
            del self._tickets[order.tickets.popleft()]
        if order.trade_type == NATIVE:
            ticket = secrets.token_urlsafe(9)[:9]
            while ticket in self._tickets:
                ticket = secrets.token_urlsafe(9)[:9]
        else:
            day = datetime.fromtimestamp(now, _BEIJING).strftime("%d%H%M%S")
            ticket = f"wx{day}{secrets.token_hex(13)}"
        order.tickets.append(ticket)
        self._tickets[ticket] = (order, now + LIFE_S[order.trade_type])
        return ticket
