"""The generic payment gateway with a hosted cashier page, behind the seam of `domain.payments.PaymentProvider`.

The cashier's address carries what is to be paid, signed, so that a buyer cannot change it on the way. The gateway tells
us of payments by `POST /payments/notify`, and answers `GET <gateway>/transactions/<order id>`, signed both ways.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

import aiohttp
import msgspec

from server.domain.errors import ErrorCode, Refusal
from server.domain.orders import Order
from server.domain.payments import CURRENCY, Channel, Gateway, Payer, PaymentNews, Prepared
from server.hosted import signing
from server.limits import BODY_BYTES_MAX, GATEWAY_CALL_S_MAX, PAYMENT_FEN_MAX

GATEWAY: Final = Gateway.HOSTED.value
_NOT_ITS_NAMES: Final = (Gateway.WECHAT.value, "free")
_YEAR_MIN: Final = 2000
_YEAR_MAX: Final = 9998


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway tells of one payment; money in fen, time in RFC 3339."""

    gateway: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,32}\Z")]
    gateway_txn_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z")]
    order_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
    status: Literal["SUCCESS", "FAILED"]
    amount_fen: Annotated[int, msgspec.Meta(ge=0, le=PAYMENT_FEN_MAX)]
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]
    paid_at: Annotated[datetime, msgspec.Meta(tz=True)]

    def __post_init__(self) -> None:
        """Raises ValueError for a time at the ends of the calendar, which has no UTC that Postgres could take.

        And for a name under which payments of other ways are kept.
        """
        if self.gateway in _NOT_ITS_NAMES:
            raise ValueError(f"`gateway` must not be one of {', '.join(_NOT_ITS_NAMES)}")
        if not _YEAR_MIN <= self.paid_at.year <= _YEAR_MAX:
            raise ValueError(f"`paid_at` must be from {_YEAR_MIN} to {_YEAR_MAX}")

    def news(self) -> PaymentNews:
        """The same, as settlement takes it."""
        return PaymentNews(
            gateway=self.gateway,
            gateway_txn_id=self.gateway_txn_id,
            order_id=self.order_id,
            success=self.status == "SUCCESS",
            amount_fen=self.amount_fen,
            currency=self.currency,
            paid_at=self.paid_at,
        )


_answer: Final = msgspec.json.Decoder(Notification)


class HostedGateway:
    """A client of the gateway. Raises Refusal(GATEWAY_UNAVAILABLE) when it does not answer, or not signed."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        secrets: signing.Secrets,
        *,
        public_url: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._url = url
        self._secrets = secrets
        self._notify_url = urlencode(
            {"notify_url": f"{public_url}/payments/notify"}
        )  # all else needs no quoting
        self._now = now

    def select(self, payer: Payer) -> Channel:
        """One channel for everyone: any browser can open the cashier."""
        return Channel.HOSTED

    async def prepare(self, order: Order, channel: Channel, payer: Payer) -> Prepared:
        """The cashier's address for this order: the same for a retry, since it names the order and nothing fresh."""
        expires_at = int(order.expires_at.timestamp())
        asked = (
            f"order_id={order.order_id}&amount_fen={order.total_fen}&currency={CURRENCY}&expires_at={expires_at}"
            f"&{self._notify_url}"
        )
        signature = signing.digest(self._secrets.current[0], "pay", asked.encode())
        return Prepared(channel, {"payUrl": f"{self._url}/pay?{asked}&signature={signature}"})

    async def query(self, order_id: str) -> list[PaymentNews]:
        """Ask for the order's payment; none: the gateway knows of no finished one."""
        path = f"/transactions/{order_id}"
        signed = signing.headers(self._secrets.current, path.encode(), int(self._now()))
        try:
            async with self._session.get(
                self._url + path,
                headers=signed,
                timeout=aiohttp.ClientTimeout(total=GATEWAY_CALL_S_MAX),
                allow_redirects=False,
            ) as answer:
                raw = await _body(answer)
                if answer.status == 404:
                    return []
                if answer.status != 200 or not signing.holds(
                    self._secrets.current, answer.headers, raw, int(self._now())
                ):
                    raise Refusal(ErrorCode.GATEWAY_UNAVAILABLE)
                news = _answer.decode(raw).news()
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as fault:
            raise Refusal(ErrorCode.GATEWAY_UNAVAILABLE) from fault
        if news.order_id != order_id:  # the signature does not say what was asked
            raise Refusal(ErrorCode.GATEWAY_UNAVAILABLE)
        return [news]


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """The whole body, in however many pieces it comes. Raises Refusal(GATEWAY_UNAVAILABLE) past 64 KiB."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise Refusal(ErrorCode.GATEWAY_UNAVAILABLE)
    return bytes(body)
