"""What payment gateways tell us."""

from __future__ import annotations

import time

import msgspec
from aiohttp import web

from server.domain.errors import ErrorCode, Refusal
from server.flows.settle import Result, consistent
from server.hosted import signing
from server.hosted.gateway import Notification
from server.telemetry import SETTLEMENTS
from server.web import appkeys
from server.web.body import decode, read_bytes


class NotifyAnswer(msgspec.Struct, frozen=True):
    """What became of the payment: the same for a repeated notification."""

    order_id: str
    gateway_txn_id: str
    result: Result


async def notify(request: web.Request, caller: None, body: None) -> NotifyAnswer:
    """A signed notification of the generic gateway; the signature covers the raw bytes, so it is checked first."""
    raw = await read_bytes(request)
    secrets = request.app[appkeys.GATEWAY_SECRETS].current
    if not signing.holds(secrets, request.headers, raw, int(time.time())):
        SETTLEMENTS.labels("unverified", "SIGNATURE_INVALID").inc()
        raise Refusal(ErrorCode.SIGNATURE_INVALID)
    notification = decode(raw, Notification)
    settled = await request.app[appkeys.SETTLEMENT].settle(notification.news())
    return NotifyAnswer(notification.order_id, notification.gateway_txn_id, consistent(settled))
