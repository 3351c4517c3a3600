"""The stable codes of everything that is refused without a verdict, and the exception that carries one.

A code is never reused for another meaning. Each says its HTTP status and whether a retry of the very same request
can help (`transient`) or not (`final`). Verdicts of scans are not errors: see `redemption.Verdict`.
"""

from __future__ import annotations

import enum
from typing import Any


class ErrorCode(enum.Enum):
    """`NAME = (HTTP status, transient?, message for a developer)`; the name is what clients branch on."""

    # 400: the request itself
    BAD_REQUEST = (400, False, "The request could not be understood.")
    INVALID_JSON = (400, False, "The body is not valid JSON.")
    VALIDATION_FAILED = (400, False, "A field is missing, of the wrong type or out of its range.")
    IDEMPOTENCY_KEY_REQUIRED = (400, False, "The header Idempotency-Key is required.")
    IDEMPOTENCY_KEY_INVALID = (400, False, "Idempotency-Key takes 1 to 64 of A-Z a-z 0-9 . _ : -")
    INVALID_RANGE = (400, False, "`from` must not be later than `to`, and the window is at most 366 days.")
    INVALID_CURSOR = (400, False, "The cursor was not made by this endpoint.")
    MINI_PROGRAM_BRIDGE_REQUIRED = (400, False, "This Mini Program cannot pay yet: it must be updated.")
    NOTIFICATION_UNREADABLE = (
        400,
        False,
        "The notification is signed, but cannot be opened with our APIv3 key.",
    )
    # 401, 403: who asks
    TOKEN_REQUIRED = (401, False, "A bearer token is required.")
    TOKEN_INVALID = (401, False, "The token was not issued by this server, or for another kind of client.")
    TOKEN_EXPIRED = (401, False, "The token has expired: log in again.")
    LOGIN_FAILED = (401, False, "The user name or the password is wrong, or the account is disabled.")
    SIGNATURE_INVALID = (401, False, "The signature of the notification does not hold, or it is too old.")
    OPERATOR_DISABLED = (401, False, "This operator is disabled, or has a newer password.")
    WECHAT_CODE_INVALID = (401, False, "WeChat does not take this code, or not again: log in for a new one.")
    FORBIDDEN = (403, False, "This kind of token may not do that.")
    WECHAT_LOGIN_REFUSED = (403, False, "WeChat, or this server, does not let this user log in like this.")
    # 404, 405, 408, 413, 415
    NOT_FOUND = (404, False, "There is nothing at this address.")
    PRODUCT_NOT_FOUND = (404, False, "There is no such product.")
    ORDER_NOT_FOUND = (404, False, "There is no such order.")
    TICKET_NOT_FOUND = (404, False, "There is no such ticket.")
    METHOD_NOT_ALLOWED = (405, False, "This address does not take this method.")
    REQUEST_TIMEOUT = (408, True, "The body did not come within 10 seconds.")
    BODY_TOO_LARGE = (413, False, "The body is larger than this address takes.")
    UNSUPPORTED_MEDIA_TYPE = (415, False, "The body must be application/json, and not packed.")
    # 409, 426: the state of things, and of the connection
    IDEMPOTENCY_CONFLICT = (409, False, "This Idempotency-Key was used for another order.")
    SCAN_ID_CONFLICT = (409, False, "This scan_id was used for another ticket or function.")
    ORDER_NOT_PAYABLE = (409, False, "The order is no longer waiting for payment.")
    ORDER_NOT_CANCELLABLE = (409, False, "Only an order that waits for payment can be cancelled.")
    AMOUNT_MISMATCH = (409, False, "The amount or currency paid is not the order's.")
    TRANSACTION_CONFLICT = (409, False, "This gateway transaction belongs to another order.")
    PAYMENT_SUPERSEDED = (
        409,
        True,
        "Another way to pay was asked for at the same time: ask again for this one.",
    )
    PAYEE_MISMATCH = (409, False, "The payment went to another merchant or app than was asked for.")
    WECHAT_OPENID_REQUIRED = (409, False, "Log in from this WeChat app first; the order stays payable.")
    TICKET_NOT_USABLE = (409, False, "The ticket is void or past its validity: no QR is shown for it.")
    UPGRADE_REQUIRED = (426, False, "This address is a WebSocket.")
    # 422: understood, and refused by a rule of sale
    SOLD_OUT = (422, False, "Not enough units are left.")
    PRODUCT_INACTIVE = (422, False, "The product is not on sale now.")
    GATEWAY_NOT_OFFERED = (422, False, "This payment gateway is not offered here.")
    CHANNEL_NOT_OFFERED = (422, False, "The merchant has no WeChat app for payments from here.")
    QR_MALFORMED = (422, False, "This is not a ticket's QR token.")
    QR_TAMPERED = (422, False, "The QR token was changed.")
    QR_EXPIRED = (422, False, "The QR token has expired.")
    QR_UNKNOWN_KEY = (422, False, "The QR token was made with a key that is not accepted here.")
    SCAN_TOO_OLD = (422, False, "The scan was made longer ago than scans may be uploaded.")
    SCAN_IN_FUTURE = (422, False, "The scan was made in the future, says its gate: set the gate's clock.")
    # 429: too often; `retry_after_s` (and Retry-After) says when to come back
    TOO_MANY_ATTEMPTS = (429, True, "Too many logins failed: wait before the next one.")
    TOO_MANY_GUESTS = (429, True, "Too many new guests came from this address: wait before the next one.")
    TOO_MANY_ORDERS = (429, True, "This buyer has made as many orders as one may in this time.")
    TOO_MANY_REQUESTS = (429, True, "This was asked for too often: wait before the next time.")
    # 500, 502, 503
    PAYMENT_REJECTED = (
        502,
        False,
        "The payment gateway refused to prepare this payment; the staff were told.",
    )
    INTERNAL = (500, True, "Something failed that no one expected. The request_id finds it in the log.")
    OVERLOADED = (503, True, "Too many requests are waiting. Retry, with the same ids.")
    DEADLINE_PASSED = (503, True, "Not decided within X-Deadline-Ms. Retry, with the same ids.")
    BACKLOG_FULL = (503, True, "The record is too far behind to take more. Retry, with the same ids.")
    GATE_CLOSED = (503, True, "Redis is being loaded. Retry, with the same ids.")
    REDIS_UNAVAILABLE = (503, True, "Redis did not answer in time: undecided. Retry, with the same ids.")
    NOT_ACKNOWLEDGED = (503, True, "The decision is not yet safe on a replica. Retry, with the same ids.")
    POSTGRES_UNAVAILABLE = (503, True, "Postgres did not answer in time. Retry.")
    NOT_RECORDED_YET = (503, True, "What was decided is not yet in the record. Retry.")
    GATEWAY_UNAVAILABLE = (503, True, "The payment gateway did not answer in time. Retry.")
    WECHAT_UNAVAILABLE = (503, True, "WeChat did not say who this is. Retry.")

    def __init__(self, status: int, transient: bool, message: str) -> None:
        self.status = status
        self.transient = transient
        self.message = message


class Refusal(Exception):
    """Ends a request with `code`; `detail` is merged into the JSON answer (never a secret, never a stack)."""

    def __init__(self, code: ErrorCode, message: str | None = None, **detail: Any) -> None:
        super().__init__(message or code.message)
        self.code = code
        self.message = message or code.message
        self.detail = detail
