"""What a buyer may ask: the catalog and orders."""

from __future__ import annotations

from secrets import token_hex
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from server.domain.errors import ErrorCode, Refusal
from server.domain.ids import ORDER_ID_CHARS
from server.domain.orders import Order, WantedLine
from server.domain.payments import ClientContext, Gateway, Payer
from server.flows.checkout import Offer
from server.limits import (
    GUEST_ID_BYTES,
    GUEST_TOKEN_S,
    IDEMPOTENCY_KEY_CHARS_MAX,
    ORDER_LINES_MAX,
    ORDER_UNITS_MAX,
    ORDERS_PAGE_MAX,
)
from server.web import appkeys
from server.web.address import client_address, client_network
from server.web.auth import Audience, Caller
from server.web.body import Time, order_id
from server.web.deadline import left_s

_IDEMPOTENCY_KEY = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-")
_LAST_ID = "Z" * ORDER_ID_CHARS  # after every ULID
OrderState = Literal["PENDING_PAYMENT", "PAID", "CANCELLED", "EXPIRED", "REFUND_REQUIRED"]
Id = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class CatalogFunction(msgspec.Struct, frozen=True):
    """One part of a package: so many uses of one function."""

    function_code: str
    label: str
    quantity: int


class CatalogProduct(msgspec.Struct, frozen=True):
    """A package for sale."""

    id: int
    sku: str
    name: str
    price_fen: int
    status: Literal["ACTIVE", "INACTIVE"]
    sale_start_at: Time | None
    sale_end_at: Time | None
    available: int
    functions: list[CatalogFunction]


class CatalogAnswer(msgspec.Struct, frozen=True):
    """What there is to buy."""

    products: list[CatalogProduct]


class ClientAnswer(msgspec.Struct, frozen=True):
    """What this installation offers to buyers."""

    demo_login: bool
    guest_login: bool
    gateways: list[Literal["hosted", "wechat"]]
    wechat_appid: str | None


class DemoLogin(msgspec.Struct, frozen=True):
    """Any name: the same name is the same buyer."""

    buyer: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,32}\Z")] = "demo"


class BuyerToken(msgspec.Struct, frozen=True):
    """A buyer's token, and for how long."""

    token: str
    buyer_id: str
    expires_in_s: int


class OrderItem(msgspec.Struct, frozen=True):
    """So many units of one product."""

    product_id: Id
    qty: Annotated[int, msgspec.Meta(ge=1, le=ORDER_UNITS_MAX)]


class OrderRequest(msgspec.Struct, frozen=True):
    """What a buyer wants, and what their client can do."""

    items: Annotated[list[OrderItem], msgspec.Meta(min_length=1, max_length=ORDER_LINES_MAX)]
    clientContext: ClientContext = ClientContext()
    gateway: Literal["hosted", "wechat"] | None = None


class PayRequest(msgspec.Struct, frozen=True):
    """What the client can do now; an absent body is an empty one."""

    clientContext: ClientContext = ClientContext()
    gateway: Literal["hosted", "wechat"] | None = None


class OfferAnswer(msgspec.Struct, frozen=True):
    """An order, and the way to pay it: null once there is nothing to pay any more."""

    order_id: str
    status: OrderState
    total_fen: int
    expires_at: Time
    channel: str | None
    payPayload: dict[str, Any] | None


class OrderLineAnswer(msgspec.Struct, frozen=True):
    """One product of an order, at the price and under the name of its day."""

    product_id: int
    name: str
    qty: int
    unit_price_fen: int


class OrderAnswer(msgspec.Struct, frozen=True):
    """An order as it stands."""

    order_id: str
    status: OrderState
    total_fen: int
    created_at: Time
    expires_at: Time
    items: list[OrderLineAnswer]


class OrdersQuery(msgspec.Struct, frozen=True):
    """`cursor`: the `next_cursor` of the page before."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=ORDERS_PAGE_MAX)] = 20
    cursor: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-HJKMNP-TV-Z]{26}\Z")] | None = None


class OrdersAnswer(msgspec.Struct, frozen=True):
    """A page of orders."""

    orders: list[OrderAnswer]
    next_cursor: str | None


async def catalog(request: web.Request, caller: None, body: None) -> CatalogAnswer:
    """Products with what is in each package and what is left."""
    return CatalogAnswer(
        [
            CatalogProduct(
                id=product.id,
                sku=product.sku,
                name=product.terms.name,
                price_fen=product.price_fen,
                status=product.status.value,
                sale_start_at=product.sale_start_at,
                sale_end_at=product.sale_end_at,
                available=available,
                functions=[CatalogFunction(f.code, f.label, f.quantity) for f in product.terms.functions],
            )
            for product, available in await request.app[appkeys.SHOP].window()
        ]
    )


async def client(request: web.Request, caller: None, body: None) -> ClientAnswer:
    """How buyers log in and pay here: what a page has to know before anyone is logged in."""
    config = request.app[appkeys.CONFIG]
    gateways: list[Literal["hosted", "wechat"]] = ["wechat"] if config.wechat else []
    if config.gateway_url:
        gateways.append("hosted")
    appid = (config.wechat and config.wechat.appid) or None
    return ClientAnswer(config.demo_login, config.guest_login, gateways, appid)


async def demo_login(request: web.Request, caller: None, body: DemoLogin) -> BuyerToken:
    """A buyer's token for anyone: exists only where GATELINE_DEMO_LOGIN names it."""
    seconds = request.app[appkeys.CONFIG].buyer_token_s
    buyer_id = f"demo:{body.buyer}"
    token = request.app[appkeys.TOKENS].issue(Audience.BUYER, buyer_id, seconds=seconds)
    return BuyerToken(token, buyer_id, seconds)


async def guest_login(request: web.Request, caller: None, body: None) -> BuyerToken:
    """A buyer who was never there before, known by this token alone: exists only where GATELINE_GUEST_LOGIN says so."""
    await request.app[appkeys.THROTTLE].guest(client_network(request))
    buyer_id = f"guest:{token_hex(GUEST_ID_BYTES)}"
    token = request.app[appkeys.TOKENS].issue(Audience.BUYER, buyer_id, seconds=GUEST_TOKEN_S)
    return BuyerToken(token, buyer_id, GUEST_TOKEN_S)


async def create_order(request: web.Request, caller: Caller, body: OrderRequest) -> OfferAnswer:
    """Hold the units and make the order, once per Idempotency-Key."""
    keys = request.headers.getall("Idempotency-Key", ())
    if not keys:
        raise Refusal(ErrorCode.IDEMPOTENCY_KEY_REQUIRED)
    key = keys[0]
    if (
        len(keys) > 1
        or not 1 <= len(key) <= IDEMPOTENCY_KEY_CHARS_MAX
        or not _IDEMPOTENCY_KEY.issuperset(key)
    ):
        raise Refusal(ErrorCode.IDEMPOTENCY_KEY_INVALID)
    request.app[appkeys.BACKLOG].admit()
    wanted = [WantedLine(item.product_id, item.qty) for item in body.items]
    payer = _payer(request, caller, body)
    return _offer(await request.app[appkeys.CHECKOUT].create(payer, key, wanted, left_s(request)))


async def pay_order(request: web.Request, caller: Caller, body: PayRequest) -> OfferAnswer:
    """Resume payment: a fresh channel and payload."""
    payer = _payer(request, caller, body)
    return _offer(await request.app[appkeys.CHECKOUT].resume(payer, order_id(request)))


async def query_order(request: web.Request, caller: Caller, body: None) -> OrderAnswer:
    """Ask the provider, settle what it says, answer with the order as it stands."""
    return _order(await request.app[appkeys.CHECKOUT].query(caller.subject, order_id(request)))


async def cancel_order(request: web.Request, caller: Caller, body: None) -> OrderAnswer:
    """End an unpaid order; its units are free again."""
    return _order(await request.app[appkeys.CHECKOUT].cancel(caller.subject, order_id(request)))


async def get_order(request: web.Request, caller: Caller, body: None) -> OrderAnswer:
    """One order of the buyer."""
    return _order(await request.app[appkeys.CHECKOUT].of_buyer(caller.subject, order_id(request)))


async def my_orders(request: web.Request, caller: Caller, body: OrdersQuery) -> OrdersAnswer:
    """The buyer's orders, newest first; an order appears here once it is recorded (tens of milliseconds)."""
    page = await request.app[appkeys.CHECKOUT].orders_of(caller.subject, body.cursor or _LAST_ID, body.limit)
    last = page[-1].order_id if len(page) == body.limit else None
    return OrdersAnswer([_order(order) for order in page], last)


def _payer(request: web.Request, caller: Caller, body: OrderRequest | PayRequest) -> Payer:
    return Payer(
        caller.subject,
        request.headers.get("User-Agent", ""),
        body.clientContext,
        client_address(request),
        None if body.gateway is None else Gateway(body.gateway),
    )


def _offer(offer: Offer) -> OfferAnswer:
    payment = offer.payment
    return OfferAnswer(
        order_id=offer.order.order_id,
        status=offer.order.status.value,
        total_fen=offer.order.total_fen,
        expires_at=offer.order.expires_at,
        channel=None if payment is None else payment.channel.value,
        payPayload=None if payment is None else payment.pay_payload,
    )


def _order(order: Order) -> OrderAnswer:
    return OrderAnswer(
        order_id=order.order_id,
        status=order.status.value,
        total_fen=order.total_fen,
        created_at=order.created_at,
        expires_at=order.expires_at,
        items=[
            OrderLineAnswer(line.product_id, line.terms.name, line.qty, line.unit_price_fen)
            for line in order.lines
        ],
    )
