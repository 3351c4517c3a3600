"""Payment: what a provider is asked for, what it tells, and what settlement makes of it (pure)."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol

import msgspec

from server.domain.orders import Order, OrderStatus

CURRENCY = "CNY"


class Channel(enum.Enum):
    """How the client launches a payment; each has its own payPayload."""

    HOSTED = "HOSTED"  # {payUrl}: the gateway's own cashier page
    FREE = "FREE"  # {}: nothing to pay
    MINIPROGRAM_BRIDGE = "MINIPROGRAM_BRIDGE"  # what wx.requestPayment takes, and orderNo
    WECHAT_JSAPI = "WECHAT_JSAPI"  # what getBrandWCPayRequest takes
    WECHAT_NATIVE = "WECHAT_NATIVE"  # {codeUrl, qrImage}
    WECHAT_H5 = "WECHAT_H5"  # {h5Url}


Version = Annotated[str, msgspec.Meta(max_length=64)]


class ClientContext(msgspec.Struct, frozen=True, rename="camel"):
    """What the client says of itself; spelled as WeChat spells it. Never proof of anything."""

    environment_type: Literal["miniprogram", "wechat", "none"] | None = None
    mini_program_bridge_supported: bool | None = None
    mini_program_bridge_version: Version | None = None
    shell_version: Version | None = None


class Gateway(enum.Enum):
    """Who takes the money. A buyer may choose where the installation offers both."""

    HOSTED = "hosted"
    WECHAT = "wechat"


class Payer(msgspec.Struct, frozen=True):
    """Who is about to pay, from where: all that channel rules may look at."""

    buyer_id: str
    user_agent: str
    context: ClientContext
    client_ip: str = ""
    gateway: Gateway | None = None  # the buyer's choice, if any


class Prepared(msgspec.Struct, frozen=True):
    """A payment that the client can launch."""

    channel: Channel
    pay_payload: dict[str, Any]


class PaymentNews(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider says of one payment, by a verified notification or by an answer to our query."""

    gateway: str
    gateway_txn_id: str
    order_id: str
    success: bool
    amount_fen: int
    currency: str
    paid_at: datetime
    out_trade_no: str | None = None  # the payment attempt, where the gateway has such numbers
    given_back: bool = False  # somebody refunded it at the gateway before we heard of it
    payee_is_us: bool = True  # the money went to our account, by our app


class PaymentProvider(Protocol):
    """The seam: every way of paying is one implementation of this."""

    def select(self, payer: Payer) -> Channel:
        """The channel for this payer. Raises Refusal when none is allowed; nothing has been made yet then."""
        ...

    async def prepare(self, order: Order, channel: Channel, payer: Payer) -> Prepared:
        """Prepare payment of a payable order.

        Raises Refusal: GATEWAY_UNAVAILABLE; ORDER_NOT_PAYABLE when the order ended or was paid meanwhile.
        """
        ...

    async def query(self, order_id: str) -> list[PaymentNews]:
        """Ask for finished payments of the order, none or several. Raises Refusal(GATEWAY_UNAVAILABLE)."""
        ...


class Settled(enum.Enum):
    """What became of a payment; every value is final but PENDING."""

    PAID = "PAID"  # the order is paid by this transaction (now, or when it was told first)
    REFUND_REQUIRED = "REFUND_REQUIRED"  # the money came for an order that had ended, or was paid already
    PENDING = "PENDING"  # a failed attempt, or no payment yet: the order stays payable
    AMOUNT_MISMATCH = "AMOUNT_MISMATCH"
    PAYEE_MISMATCH = "PAYEE_MISMATCH"  # paid to another merchant, or by another app than we asked for
    TRANSACTION_CONFLICT = "TRANSACTION_CONFLICT"  # this transaction belongs to another order


class KnownPayment(msgspec.Struct, frozen=True):
    """A row of `payments` with the transaction that is being told."""

    order_id: str
    applied: bool


def judge(order: Order, news: PaymentNews, known: KnownPayment | None) -> Settled:
    """What settlement does with this news; the order's row is locked and `known` is the transaction's row, if any.

    A transaction is judged once: the second telling finds `known` and gets the first result again.
    """
    if known is not None and known.order_id != order.order_id:
        return Settled.TRANSACTION_CONFLICT
    if not news.success:
        return Settled.PENDING
    if not news.payee_is_us:
        return Settled.PAYEE_MISMATCH
    if news.amount_fen != order.total_fen or news.currency != CURRENCY:
        return Settled.AMOUNT_MISMATCH
    if known is not None:
        return Settled.PAID if known.applied else Settled.REFUND_REQUIRED
    if order.status is OrderStatus.PENDING_PAYMENT and not news.given_back:
        return Settled.PAID
    return Settled.REFUND_REQUIRED
