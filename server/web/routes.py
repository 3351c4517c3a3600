"""The one table of the HTTP contract: method, path, handler, who may call, request and response.

Requests are decoded by the structs of this table, answers are encoded from them, and the OpenAPI document is made from
them. A newcomer reads this file to know what the server does.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final

import msgspec

from server.domain.errors import ErrorCode as E
from server.hosted.gateway import Notification
from server.limits import BODY_BYTES_MAX, UPLOAD_BYTES_MAX
from server.web import (
    buyer,
    figures,
    gate,
    ops,
    pages,
    reports,
    scanning,
    stream,
    tickets,
    uploading,
    webhooks,
    wechat,
)
from server.wechat.sealed import Envelope


class Access(enum.Enum):
    """Who may call, shown by the kind of their bearer token."""

    ALL = "all"
    BUYER = "buyer"
    OPERATOR = "operator"
    OWNER_OR_OPERATOR = "owner or operator"
    ANALYST = "analyst"
    GATEWAY = "gateway"  # no token: the body is signed
    WECHAT = "WeChat Pay"  # the same, in WeChat's way


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint. `errors`: beside those that follow from `access` and `body`."""

    method: str
    path: str
    handler: Callable[..., Any]
    access: Access = Access.ALL
    body: type[Any] | None = None  # JSON body
    body_required: bool = True
    body_bytes_max: int = BODY_BYTES_MAX
    # JSON that the handler decodes itself, once the signature of its bytes holds
    signed_body: type[Any] | None = None
    query: type[Any] | None = None
    answer: type[Any] | None = None  # None: not JSON, or (readyz) with a status of its own
    status: int = 200
    errors: tuple[E, ...] = ()
    device_cookie: bool = False  # read, and set
    errors_inside: tuple[E, ...] = ()  # of one element of the answer
    demo_only: bool = False
    guest_only: bool = False  # exists only where guests may buy
    wechat_only: bool = False  # exists only where there is a merchant at WeChat Pay


_RECORD: Final = (E.POSTGRES_UNAVAILABLE,)
_GATE: Final = (
    E.OVERLOADED, E.DEADLINE_PASSED, E.BACKLOG_FULL, E.GATE_CLOSED, E.REDIS_UNAVAILABLE, E.NOT_ACKNOWLEDGED,
)  # fmt: skip
_ASK: Final = (E.ORDER_NOT_FOUND, E.GATEWAY_UNAVAILABLE, E.REDIS_UNAVAILABLE, *_RECORD)
_MISMATCH: Final = (E.AMOUNT_MISMATCH, E.PAYEE_MISMATCH, E.TRANSACTION_CONFLICT, E.NOT_RECORDED_YET)
_PAY: Final = (
    E.MINI_PROGRAM_BRIDGE_REQUIRED, E.GATEWAY_NOT_OFFERED, E.CHANNEL_NOT_OFFERED, E.WECHAT_OPENID_REQUIRED,
    E.PAYMENT_SUPERSEDED, E.PAYMENT_REJECTED, E.TOO_MANY_REQUESTS, *_MISMATCH, *_ASK,
)  # fmt: skip
_SCAN: Final = (E.SCAN_ID_CONFLICT, E.NOT_RECORDED_YET, *_GATE, *_RECORD)
_TOKEN: Final = (E.QR_MALFORMED, E.QR_TAMPERED, E.QR_EXPIRED, E.QR_UNKNOWN_KEY)

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET", path="/catalog", handler=buyer.catalog, answer=buyer.CatalogAnswer,
        errors=(E.REDIS_UNAVAILABLE, *_RECORD),
    ),
    Route(
        method="POST", path="/auth/demo/login", handler=buyer.demo_login, body=buyer.DemoLogin, body_required=False,
        answer=buyer.BuyerToken, demo_only=True,
    ),
    Route(
        method="POST", path="/auth/guest/login", handler=buyer.guest_login, answer=buyer.BuyerToken,
        errors=(E.TOO_MANY_GUESTS,), guest_only=True,
    ),
    Route(
        method="POST", path="/auth/wechat/login", handler=wechat.wechat_login, body=wechat.WeChatLogin,
        answer=buyer.BuyerToken,
        errors=(
            E.WECHAT_CODE_INVALID, E.WECHAT_LOGIN_REFUSED, E.WECHAT_UNAVAILABLE, E.CHANNEL_NOT_OFFERED, E.OVERLOADED,
            E.TOO_MANY_ATTEMPTS, *_RECORD,
        ),
        wechat_only=True,
    ),
    Route(
        method="POST", path="/orders", handler=buyer.create_order, access=Access.BUYER, body=buyer.OrderRequest,
        answer=buyer.OfferAnswer, status=201,
        errors=(
            E.IDEMPOTENCY_KEY_REQUIRED, E.IDEMPOTENCY_KEY_INVALID, E.IDEMPOTENCY_CONFLICT, E.PRODUCT_NOT_FOUND,
            E.PRODUCT_INACTIVE, E.SOLD_OUT, E.TOO_MANY_ORDERS, *_GATE, *_PAY,
        ),
    ),
    Route(
        method="GET", path="/orders/{order_id}", handler=buyer.get_order, access=Access.BUYER,
        answer=buyer.OrderAnswer, errors=(E.ORDER_NOT_FOUND, E.REDIS_UNAVAILABLE, *_RECORD),
    ),
    Route(
        method="POST", path="/orders/{order_id}/pay", handler=buyer.pay_order, access=Access.BUYER,
        body=buyer.PayRequest, body_required=False, answer=buyer.OfferAnswer,
        errors=(E.ORDER_NOT_PAYABLE, *_PAY),
    ),
    Route(
        method="POST", path="/orders/{order_id}/query", handler=buyer.query_order, access=Access.BUYER,
        answer=buyer.OrderAnswer, errors=(E.TOO_MANY_REQUESTS, *_MISMATCH, *_ASK),
    ),
    Route(
        method="POST", path="/orders/{order_id}/cancel", handler=buyer.cancel_order, access=Access.BUYER,
        answer=buyer.OrderAnswer,
        errors=(E.ORDER_NOT_FOUND, E.ORDER_NOT_CANCELLABLE, E.NOT_RECORDED_YET, E.REDIS_UNAVAILABLE, *_RECORD),
    ),
    Route(
        method="GET", path="/my/orders", handler=buyer.my_orders, access=Access.BUYER, query=buyer.OrdersQuery,
        answer=buyer.OrdersAnswer, errors=_RECORD,
    ),
    Route(
        method="GET", path="/my/tickets", handler=tickets.my_tickets, access=Access.BUYER,
        answer=tickets.TicketsAnswer, errors=_RECORD,
    ),
    Route(
        method="POST", path="/payments/notify", handler=webhooks.notify, access=Access.GATEWAY,
        signed_body=Notification, answer=webhooks.NotifyAnswer,
        errors=(E.ORDER_NOT_FOUND, E.REDIS_UNAVAILABLE, *_MISMATCH, *_RECORD),
    ),
    Route(
        method="POST", path="/payments/wechat/notify", handler=wechat.wechat_notify, access=Access.WECHAT,
        signed_body=Envelope, answer=wechat.WeChatNotifyAnswer,
        errors=(
            E.ORDER_NOT_FOUND, E.NOTIFICATION_UNREADABLE, E.NOT_RECORDED_YET, E.REDIS_UNAVAILABLE, *_RECORD,
        ),
        wechat_only=True,
    ),
    Route(
        method="POST", path="/qr/decrypt", handler=gate.decrypt, access=Access.OPERATOR, body=gate.DecryptRequest,
        answer=gate.DecryptAnswer, errors=(E.TICKET_NOT_FOUND, *_TOKEN, *_RECORD),
    ),
    Route(
        method="POST", path="/qr/{code}", handler=tickets.show_qr, access=Access.BUYER, query=tickets.QrQuery,
        answer=tickets.QrAnswer, errors=(E.TICKET_NOT_FOUND, E.TICKET_NOT_USABLE, E.TOO_MANY_REQUESTS, *_RECORD),
    ),
    Route(
        method="GET", path="/qr/{code}/info", handler=gate.ticket_info, access=Access.OWNER_OR_OPERATOR,
        answer=tickets.TicketAnswer, errors=(E.TICKET_NOT_FOUND, *_RECORD),
    ),
    Route(
        method="POST", path="/operators/login", handler=gate.login, body=gate.Login, answer=gate.OperatorToken,
        device_cookie=True,
        errors=(E.LOGIN_FAILED, E.TOO_MANY_ATTEMPTS, E.OVERLOADED, E.REDIS_UNAVAILABLE, *_RECORD),
    ),
    Route(
        method="GET", path="/venue", handler=gate.venues, access=Access.OPERATOR, answer=gate.VenuesAnswer,
        errors=_RECORD,
    ),
    Route(
        method="POST", path=scanning.PATH, handler=scanning.scan, access=Access.OPERATOR, body=scanning.ScanRequest,
        answer=scanning.ScanAnswer, errors=_SCAN,
    ),
    Route(
        method="POST", path=uploading.PATH, handler=uploading.upload, access=Access.OPERATOR,
        body=uploading.UploadRequest, body_bytes_max=UPLOAD_BYTES_MAX, answer=uploading.UploadAnswer,
        errors=(E.OVERLOADED, E.DEADLINE_PASSED),
        errors_inside=(E.SCAN_TOO_OLD, E.SCAN_IN_FUTURE, *_SCAN, E.INVALID_JSON, E.VALIDATION_FAILED, E.INTERNAL),
    ),
    Route(
        method="GET", path=stream.PATH, handler=stream.stream, access=Access.OPERATOR, status=101,
        errors=(E.UPGRADE_REQUIRED, E.VALIDATION_FAILED, *_RECORD), errors_inside=_SCAN,
    ),
    Route(
        method="GET", path="/reports/redemptions", handler=reports.redemptions, access=Access.ANALYST,
        query=reports.RedemptionsQuery, answer=reports.RedemptionsAnswer,
        errors=(E.INVALID_RANGE, E.INVALID_CURSOR, *_RECORD),
    ),
    Route(
        method="GET", path="/reports/summary", handler=reports.summary, access=Access.ANALYST,
        query=reports.WindowQuery, answer=reports.SummaryAnswer, errors=(E.INVALID_RANGE, *_RECORD),
    ),
    Route(
        method="GET", path="/reports/figures", handler=figures.figures, access=Access.ANALYST,
        query=figures.FiguresQuery, answer=figures.FiguresAnswer, errors=(E.INVALID_RANGE, *_RECORD),
    ),
    Route(method="GET", path="/client", handler=buyer.client, answer=buyer.ClientAnswer),
    Route(method="GET", path="/", handler=pages.buyer_page),
    Route(method="GET", path="/gate", handler=pages.gate_page),
    Route(method="GET", path="/report", handler=pages.report_page),
    Route(method="GET", path="/healthz", handler=ops.healthz, answer=ops.Health),
    Route(method="GET", path="/readyz", handler=ops.readyz),
    Route(method="GET", path="/metrics", handler=ops.metrics),
    Route(method="GET", path="/openapi/openapi.json", handler=ops.openapi_document),
    Route(method="GET", path="/docs", handler=ops.docs),
)  # fmt: skip
