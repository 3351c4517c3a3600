"""Payment attempts: one number at WeChat Pay, on its way from being asked for to being paid or closed (pure)."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta

import msgspec

from server.domain.payments import Channel
from server.limits import LAUNCH_LEFT_S_MIN


class Phase(enum.Enum):
    """How far an attempt is. The first three are live: it can be paid, or may turn out to have been."""

    PREPARING = "PREPARING"  # written before the number is first posted, and until the answer is written
    OPEN = "OPEN"  # the buyer can launch it
    CLOSING = "CLOSING"  # written before it is closed there, and until that is certain
    CLOSED = "CLOSED"  # final but for a payment that WeChat tells of all the same
    PAID = "PAID"  # final: settled


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `payment_attempts`."""

    out_trade_no: str
    order_id: str
    channel: Channel
    appid: str
    openid: str
    request: str
    phase: Phase
    launch: str | None
    launch_expires_at: datetime | None

    def launchable(self, now: datetime) -> str | None:
        """What launches it, when a buyer who gets it now has at least a minute to do so; else None."""
        if self.phase is not Phase.OPEN or self.launch_expires_at is None:
            return None
        left = self.launch_expires_at - now
        return self.launch if left >= timedelta(seconds=LAUNCH_LEFT_S_MIN) else None
