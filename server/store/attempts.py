"""Payment attempts at WeChat Pay."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from server.domain.attempts import Attempt, Phase
from server.domain.payments import Channel
from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("attempts")


async def get(connection: Connection, out_trade_no: str) -> Attempt | None:
    """The attempt of this number, or None."""
    return _attempt(await connection.fetchrow(_Q["get_attempt"], out_trade_no))


async def live(connection: Connection, order_id: str) -> Attempt | None:
    """The one attempt of the order that can be paid, or may turn out to have been; or None."""
    return _attempt(await connection.fetchrow(_Q["live_attempt"], order_id))


async def insert(
    connection: Connection,
    *,
    out_trade_no: str,
    order_id: str,
    channel: Channel,
    appid: str,
    openid: str,
    request: str,
    now: datetime,
) -> Attempt:
    """A new attempt, PREPARING. The caller holds the order's lock, and there is no live one."""
    row = await connection.fetchrow(
        _Q["insert_attempt"], out_trade_no, order_id, channel.value, appid, openid, request, now
    )
    return _known(row)


async def opened(connection: Connection, out_trade_no: str, launch: str, expires_at: datetime) -> bool:
    """WeChat took it: OPEN. False: it is being closed, or was. The caller holds the order's lock."""
    return await connection.fetchval(_Q["open_attempt"], out_trade_no, launch, expires_at) is not None


async def begin_closing(connection: Connection, out_trade_no: str) -> Attempt | None:
    """CLOSING, before it is closed there. None: it is closed or paid already."""
    return _attempt(await connection.fetchrow(_Q["begin_closing"], out_trade_no))


async def close_once_more(connection: Connection, out_trade_no: str) -> None:
    """CLOSING again, if it was CLOSED. The caller holds the order's lock, and no attempt is live."""
    await connection.execute(_Q["close_once_more"], out_trade_no)


async def begin_closing_of(connection: Connection, order_ids: Sequence[str]) -> None:
    """CLOSING for whatever can still be paid of orders that end in the caller's transaction."""
    await connection.execute(_Q["begin_closing_of_orders"], list(order_ids))


async def begin_closing_of_overdue(connection: Connection, now: datetime) -> None:
    """CLOSING for orders that are past their deadline and not ended yet."""
    await connection.execute(_Q["begin_closing_of_overdue"], now)


async def closed(connection: Connection, out_trade_no: str) -> None:
    """CLOSED: WeChat said that it cannot be paid any more."""
    await connection.execute(_Q["attempt_closed"], out_trade_no)


async def paid(connection: Connection, out_trade_no: str) -> None:
    """PAID, in the transaction that settles."""
    await connection.execute(_Q["attempt_paid"], out_trade_no)


async def claim_closing(connection: Connection, not_tried_since: datetime, limit: int) -> list[Attempt]:
    """Attempts that are to be closed now; marked, so that others take others."""
    rows = await connection.fetch(_Q["claim_closing"], not_tried_since, limit)
    return [_known(row) for row in rows]


def _attempt(row: Any) -> Attempt | None:
    return None if row is None else _known(row)


def _known(row: Any) -> Attempt:
    return Attempt(
        out_trade_no=row["out_trade_no"],
        order_id=row["order_id"],
        channel=Channel(row["channel"]),
        appid=row["appid"],
        openid=row["openid"],
        request=row["request"],
        phase=Phase(row["phase"]),
        launch=row["launch"],
        launch_expires_at=row["launch_expires_at"],
    )
