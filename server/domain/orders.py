"""An order: its statuses and their transitions, and how a new one is made from a buyer's request.

PENDING_PAYMENT --settlement--> PAID
      |--buyer-----------------> CANCELLED --late settlement--> REFUND_REQUIRED
      '--expiry job------------> EXPIRED ----late settlement--> REFUND_REQUIRED
"""

from __future__ import annotations

import enum
import hashlib
from datetime import datetime

import msgspec

from server.domain.catalog import Directory, Product, Terms
from server.domain.errors import ErrorCode, Refusal
from server.limits import ORDER_LINES_MAX, ORDER_UNITS_MAX


class OrderStatus(enum.Enum):
    """The values of `orders.status`; the transitions are drawn above and in `sql/schema.sql`."""

    PENDING_PAYMENT = "PENDING_PAYMENT"
    PAID = "PAID"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    REFUND_REQUIRED = "REFUND_REQUIRED"


class OrderLine(msgspec.Struct, frozen=True):
    """So many units of one product, at the price and on the terms of the moment of the order."""

    product_id: int
    qty: int
    unit_price_fen: int
    terms: Terms


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as it goes through the orders stream; the flusher makes its rows of it."""

    order_id: str
    buyer_id: str
    idempotency_key: str
    payload_hash: str
    total_fen: int
    created_at: datetime
    expires_at: datetime
    lines: tuple[OrderLine, ...]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An order as it stands, whether read from its row or, before that is written, from its hold."""

    order_id: str
    buyer_id: str
    status: OrderStatus
    total_fen: int
    created_at: datetime
    expires_at: datetime
    lines: tuple[OrderLine, ...]

    @classmethod
    def just_made(cls, new: NewOrder) -> Order:
        """The order that a hold stands for."""
        return cls(
            order_id=new.order_id,
            buyer_id=new.buyer_id,
            status=OrderStatus.PENDING_PAYMENT,
            total_fen=new.total_fen,
            created_at=new.created_at,
            expires_at=new.expires_at,
            lines=new.lines,
        )

    def units(self) -> dict[int, int]:
        """Product id -> units: what its hold reserves."""
        return {line.product_id: line.qty for line in self.lines}

    def payable(self, now: datetime) -> bool:
        """Waiting for payment, and not past its deadline."""
        return self.status is OrderStatus.PENDING_PAYMENT and now < self.expires_at


class WantedLine(msgspec.Struct, frozen=True):
    """One line of a buyer's request: units (1 to 50) of a product."""

    product_id: int
    qty: int


class Draft(msgspec.Struct, frozen=True):
    """A request turned into order lines, priced, in the order of product ids; `on_sale` per line."""

    lines: tuple[OrderLine, ...]
    on_sale: tuple[bool, ...]
    total_fen: int
    payload_hash: str


def draft(wanted: list[WantedLine], directory: Directory, now: datetime) -> Draft:
    """Price a request. Lines of the same product are one line; their order does not matter.

    The payload hash covers what was asked for (products and quantities), so a retry is known as one even after a price
    changed. Raises Refusal: PRODUCT_NOT_FOUND; VALIDATION_FAILED past the bounds of an order. Whether a product is on
    sale is only noted: a retry of an order made in time is answered first.
    """
    units: dict[int, int] = {}
    for line in wanted:
        units[line.product_id] = units.get(line.product_id, 0) + line.qty
    if not 1 <= len(units) <= ORDER_LINES_MAX or sum(units.values()) > ORDER_UNITS_MAX:
        raise Refusal(
            ErrorCode.VALIDATION_FAILED,
            f"An order takes 1 to {ORDER_LINES_MAX} products and at most {ORDER_UNITS_MAX} units.",
        )
    products: list[tuple[Product, int]] = []
    for product_id in sorted(units):
        product = directory.products.get(product_id)
        if product is None:
            raise Refusal(ErrorCode.PRODUCT_NOT_FOUND, product_id=product_id)
        products.append((product, units[product_id]))
    asked = ",".join(f"{product.id}:{qty}" for product, qty in products)
    return Draft(
        lines=tuple(OrderLine(p.id, qty, p.price_fen, p.terms) for p, qty in products),
        on_sale=tuple(p.on_sale(now) for p, _ in products),
        total_fen=sum(p.price_fen * qty for p, qty in products),
        payload_hash=hashlib.sha256(asked.encode()).hexdigest(),
    )
