"""What a client does with an answer next: the links of the OpenAPI document (OpenAPI 3.0.3, "Link Object").

A reader follows the road by them, and so do tests that walk it by the document alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from server.web.routes import Route


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """From the successful answer of one operation to a request of another, both by their operationId.

    `parameters` and `body`: what of that request the answer knows; the rest is the caller's. Values beginning with `$`
    are runtime expressions.
    """

    source: str
    target: str
    says: str
    parameters: dict[str, str] = {}
    body: dict[str, Any] = {}


_ORDER: Final = {"order_id": "$response.body#/order_id"}
_NEWEST_ORDER: Final = {"order_id": "$response.body#/orders/0/order_id"}
_NEWEST_TICKET: Final = {"code": "$response.body#/tickets/0/ticket_code"}
_TOKEN: Final = {"qr_token": "$response.body#/qr_token"}

LINKS: Final[tuple[Link, ...]] = (
    Link(
        source="catalog", target="create_order", says="Order what is for sale.",
        body={"items": [{"product_id": "$response.body#/products/0/id", "qty": 1}]},
    ),
    Link(source="create_order", target="get_order", says="The order as it stands.", parameters=_ORDER),
    Link(source="create_order", target="pay_order", says="Another way to pay it.", parameters=_ORDER),
    Link(source="create_order", target="query_order", says="Whether it is paid.", parameters=_ORDER),
    Link(source="create_order", target="cancel_order", says="End it unpaid.", parameters=_ORDER),
    Link(
        source="create_order", target="notify", says="What its gateway tells when it is paid.",
        body={
            "gateway": "hosted", "order_id": "$response.body#/order_id", "status": "SUCCESS",
            "amount_fen": "$response.body#/total_fen", "currency": "CNY",
        },
    ),
    Link(source="my_orders", target="get_order", says="The newest of them.", parameters=_NEWEST_ORDER),
    Link(source="my_tickets", target="show_qr", says="The QR of the newest.", parameters=_NEWEST_TICKET),
    Link(source="my_tickets", target="ticket_info", says="The newest of them.", parameters=_NEWEST_TICKET),
    Link(source="show_qr", target="decrypt", says="What a gate can read of it.", body=_TOKEN),
    Link(source="show_qr", target="scan", says="Redeem it at a gate.", body=_TOKEN),
    Link(
        source="scan", target="redemptions", says="The record of that function.",
        parameters={"function": "$request.body#/function_code"},
    ),
)  # fmt: skip


def links_from(route: Route, routes: Iterable[Route]) -> dict[str, Any]:
    """The links of this route's successful answer, by the operation that they lead to; only to what is there."""
    there = {each.handler.__name__ for each in routes}
    return {
        link.target: _object(link)
        for link in LINKS
        if link.source == route.handler.__name__ and link.target in there
    }


def _object(link: Link) -> dict[str, Any]:
    made: dict[str, Any] = {"operationId": link.target, "description": link.says}
    if link.parameters:
        made["parameters"] = link.parameters
    if link.body:
        made["requestBody"] = link.body
    return made
