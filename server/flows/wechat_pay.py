"""Paying by WeChat, behind the seam of `domain.payments.PaymentProvider`: attempts in the record, calls to WeChat.

An order has at most one number at WeChat that can be paid. What is about to be done there is committed before, and what
came of it after: whoever finds an attempt in between does the same call again, with the same number and the same bytes.

    PREPARING -- prepay --> OPEN -- close --> CLOSING --> CLOSED
        `------------- close ---------------^    `-- it was paid --> PAID, by settlement
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from server.config import WeChatAccount
from server.domain.attempts import Attempt, Phase
from server.domain.errors import ErrorCode, Refusal
from server.domain.ids import new_out_trade_no
from server.domain.orders import Order
from server.domain.payments import Channel, Payer, PaymentNews, Prepared
from server.domain.qr_image import draw_text_svg
from server.flows.lookup import OrderLookup
from server.flows.wechat_news import WeChatNews
from server.hot.throttle import Throttle
from server.limits import ATTEMPTS_TRIED_MAX, H5_LIFE_S, PREPAY_LIFE_S
from server.store import attempts, identities
from server.store.pool import Connection, Database
from server.telemetry import alert
from server.wechat.channels import ChannelRules, channel_for
from server.wechat.client import Rejected, WeChatClient, WeChatError
from server.wechat.prepay import prepay_request
from server.wechat.signing import Signer

_BY_OPENID: Final = frozenset({Channel.MINIPROGRAM_BRIDGE, Channel.WECHAT_JSAPI})
# WeChat's word that this number will not do any more: it is closed, and the next one is taken.
_NUMBER_SPENT: Final = frozenset({"OUT_TRADE_NO_USED", "ORDER_CLOSED", "ORDER_PAID"})


class WeChatPay:
    """The merchant's payments at WeChat."""

    def __init__(
        self,
        db: Database,
        lookup: OrderLookup,
        client: WeChatClient,
        signer: Signer,
        news: WeChatNews,
        account: WeChatAccount,
        throttle: Throttle,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._db = db
        self._lookup = lookup
        self._client = client
        self._signer = signer
        self._news = news
        self._account = account
        self._throttle = throttle
        self._rules = ChannelRules(account.bridge_version_min, account.h5)
        self._now = now

    def select(self, payer: Payer) -> Channel:
        """The channel for this payer.

        Raises Refusal: MINI_PROGRAM_BRIDGE_REQUIRED; CHANNEL_NOT_OFFERED when the merchant has no app for it.
        """
        channel = channel_for(payer.context, payer.user_agent, self._rules)
        if not self._appid(channel):
            raise Refusal(ErrorCode.CHANNEL_NOT_OFFERED, channel=channel.value)
        return channel

    async def prepare(self, order: Order, channel: Channel, payer: Payer) -> Prepared:
        """An attempt that the buyer can launch: the one there is, when it is the same and still good; else a new one.

        Raises Refusal: WECHAT_OPENID_REQUIRED, ORDER_NOT_PAYABLE, PAYMENT_REJECTED (WeChat said no; staff are told),
        PAYMENT_SUPERSEDED (another channel was asked for at the same time), TOO_MANY_REQUESTS, GATEWAY_UNAVAILABLE,
        NOT_RECORDED_YET, POSTGRES_UNAVAILABLE.
        """
        openid = await self._openid(payer.buyer_id, channel)
        for _ in range(ATTEMPTS_TRIED_MAX):
            attempt = await self._begin(order.order_id, channel, openid, payer.client_ip)
            if attempt.phase is Phase.CLOSING:
                await self._news.close(attempt)
                continue
            launch = attempt.launchable(self._now())
            if launch is None:
                await self._throttle.inquiry(order.order_id)
                launch = await self._prepay(attempt)
            if launch is not None:
                return Prepared(channel, self._payload(attempt, launch))
        raise Refusal(ErrorCode.GATEWAY_UNAVAILABLE)

    async def withdraw(self, order_id: str) -> None:
        """Close what can still be paid of the order, since it is to be paid elsewhere. Raises as `prepare`."""
        async with self._db.connection() as connection:
            attempt = await attempts.live(connection, order_id)
            if attempt is not None:
                attempt = await attempts.begin_closing(connection, attempt.out_trade_no)
        if attempt is None:
            return
        await self._news.close(attempt)
        order = await self._lookup.find(order_id)
        if not order.payable(self._now()):  # it had been paid
            raise Refusal(ErrorCode.ORDER_NOT_PAYABLE, status=order.status.value)

    async def query(self, order_id: str) -> list[PaymentNews]:
        """Ask about the attempt that may have been paid, if there is one. Raises Refusal(GATEWAY_UNAVAILABLE)."""
        return await self._news.query(order_id)

    async def close_ended(self) -> int:
        """Close one batch of numbers that must not be paid any more; how many were tried."""
        return await self._news.close_ended()

    async def _openid(self, buyer_id: str, channel: Channel) -> str:
        if channel not in _BY_OPENID:
            return ""
        async with self._db.connection() as connection:
            openid = await identities.openid_of(connection, buyer_id, self._appid(channel))
        if openid is None:
            raise Refusal(ErrorCode.WECHAT_OPENID_REQUIRED)
        return openid

    async def _begin(self, order_id: str, channel: Channel, openid: str, client_ip: str) -> Attempt:
        """What is to be called next, committed: an attempt as wanted, or, CLOSING, the one that is in its way."""

        async def act(connection: Connection, order: Order) -> Attempt:
            if not self._payable(order):
                raise Refusal(ErrorCode.ORDER_NOT_PAYABLE, status=order.status.value)

            def request(out_trade_no: str) -> str:
                return prepay_request(
                    order,
                    channel,
                    out_trade_no,
                    mchid=self._account.mchid,
                    appid=self._appid(channel),
                    openid=openid,
                    client_ip=client_ip,
                    notify_url=self._account.notify_url,
                )

            there = await attempts.live(connection, order_id)
            if there is not None:
                wanted = (channel, request(there.out_trade_no))
                if there.phase is not Phase.CLOSING and (there.channel, there.request) == wanted:
                    return there
                closing = await attempts.begin_closing(connection, there.out_trade_no)
                if closing is not None:
                    return closing
                # The job that closes it was just done with it.
            out_trade_no = new_out_trade_no(order_id)
            return await attempts.insert(
                connection,
                out_trade_no=out_trade_no,
                order_id=order_id,
                channel=channel,
                appid=self._appid(channel),
                openid=openid,
                request=request(out_trade_no),
                now=self._now(),
            )

        return await self._lookup.with_lock(order_id, act)

    async def _prepay(self, attempt: Attempt) -> str | None:
        """Post the attempt, the first time or again; what launches it, or None: try once more, with another number."""
        try:
            launch = await self._client.prepay(attempt.channel, attempt.request.encode())
        except Rejected as rejected:
            await self._refused(attempt, rejected.code)
            return None
        except WeChatError:
            raise Refusal(ErrorCode.GATEWAY_UNAVAILABLE) from None
        life_s = H5_LIFE_S if attempt.channel is Channel.WECHAT_H5 else PREPAY_LIFE_S
        expires_at = self._now() + timedelta(seconds=life_s)

        async def act(connection: Connection, order: Order) -> Refusal | None:
            there = await attempts.live(connection, attempt.order_id)
            if there is None:
                # It was closed before WeChat had even taken it: once more, and nobody gets to launch it.
                await attempts.close_once_more(connection, attempt.out_trade_no)
            if not order.payable(
                self._now()
            ):  # one past its deadline is ended, and its number closed, by the job
                return Refusal(ErrorCode.ORDER_NOT_PAYABLE, status=order.status.value)
            if not await attempts.opened(connection, attempt.out_trade_no, launch, expires_at):
                return Refusal(ErrorCode.PAYMENT_SUPERSEDED)
            return None

        refused = await self._lookup.with_lock(attempt.order_id, act)
        if refused is not None:
            raise refused
        return launch

    async def _refused(self, attempt: Attempt, code: str) -> None:
        """WeChat said no to this number: it is closed. Returns when the next number may do better; else raises."""
        async with self._db.connection() as connection:
            closing = await attempts.begin_closing(connection, attempt.out_trade_no)
        if closing is None:
            return
        # It may have been refused because it is paid, which closing settles. If that cannot be done now, the job does.
        with suppress(Refusal):
            await self._news.close(closing)
        if code in _NUMBER_SPENT:
            return
        order = await self._lookup.find(attempt.order_id)
        if not self._payable(order):
            raise Refusal(ErrorCode.ORDER_NOT_PAYABLE, status=order.status.value)
        if code == "OPENID_MISMATCH":
            raise Refusal(ErrorCode.WECHAT_OPENID_REQUIRED)
        alert("PAYMENT_REJECTED", order_id=attempt.order_id, wechat_code=code)
        raise Refusal(ErrorCode.PAYMENT_REJECTED)

    def _payload(self, attempt: Attempt, launch: str) -> dict[str, str]:
        if attempt.channel is Channel.WECHAT_NATIVE:
            return {"codeUrl": launch, "qrImage": draw_text_svg(launch)}
        if attempt.channel is Channel.WECHAT_H5:
            return {"h5Url": launch}
        signed = self._signer.launch(
            attempt.appid,
            f"prepay_id={launch}",
            now_s=int(self._now().timestamp()),
            nonce=secrets.token_hex(16),
        )
        return signed | (
            {"orderNo": attempt.order_id} if attempt.channel is Channel.MINIPROGRAM_BRIDGE else {}
        )

    def _payable(self, order: Order) -> bool:
        """Its end is told to WeChat in whole seconds: in the last one it would be refused as past."""
        return order.payable(self._now() + timedelta(seconds=1))

    def _appid(self, channel: Channel) -> str:
        if channel is Channel.MINIPROGRAM_BRIDGE:
            return self._account.miniprogram_appid
        if channel is Channel.WECHAT_JSAPI:
            return self._account.appid
        return self._account.appid or self._account.miniprogram_appid
