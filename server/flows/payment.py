"""The shared payment preparation: every paid order goes through it, when it is made and when its payment is resumed."""

from __future__ import annotations

import asyncio
import time

from server.domain.errors import ErrorCode, Refusal
from server.domain.orders import Order
from server.domain.payments import Channel, Gateway, Payer, PaymentNews, PaymentProvider, Prepared
from server.flows.wechat_pay import WeChatPay
from server.limits import PREPARE_S_MAX
from server.telemetry import PREPARATIONS, PREPARE_SECONDS
from server.wechat.channels import Environment, environment_of


class Payments:
    """The gateways of this installation behind the one seam. At least one of them is there."""

    def __init__(self, hosted: PaymentProvider | None, wechat: WeChatPay | None) -> None:
        self._hosted = hosted
        self._wechat = wechat

    def select(self, payer: Payer) -> Channel:
        """The channel for this payer: WeChat's rules where there is a merchant, unless the buyer chose the hosted one.

        In a Mini Program there is no choice: it pays over its bridge, or not at all. Raises Refusal:
        GATEWAY_NOT_OFFERED, CHANNEL_NOT_OFFERED, MINI_PROGRAM_BRIDGE_REQUIRED.
        """
        offered = {Gateway.HOSTED: self._hosted, Gateway.WECHAT: self._wechat}
        if payer.gateway is not None and offered[payer.gateway] is None:
            raise Refusal(ErrorCode.GATEWAY_NOT_OFFERED)
        if self._wechat is None:
            return Channel.HOSTED
        in_miniprogram = environment_of(payer.context, payer.user_agent) is Environment.MINIPROGRAM
        if payer.gateway is Gateway.HOSTED and not in_miniprogram:
            return Channel.HOSTED
        return self._wechat.select(payer)

    async def prepare(self, order: Order, channel: Channel, payer: Payer) -> Prepared:
        """A payment that the client can launch. Raises as the gateway's own `prepare`."""
        began = time.monotonic()
        outcome = "FAILED"
        try:
            async with asyncio.timeout(PREPARE_S_MAX):
                prepared = await self._prepare(order, channel, payer)
            outcome = "PREPARED"
            return prepared
        except TimeoutError:
            outcome = "TIMEOUT"
            raise Refusal(ErrorCode.GATEWAY_UNAVAILABLE) from None
        except Refusal as refusal:
            outcome = refusal.code.name
            raise
        finally:
            PREPARATIONS.labels(channel.value, outcome).inc()
            PREPARE_SECONDS.labels(channel.value).observe(time.monotonic() - began)

    async def _prepare(self, order: Order, channel: Channel, payer: Payer) -> Prepared:
        if channel is not Channel.HOSTED and self._wechat is not None:
            return await self._wechat.prepare(order, channel, payer)
        if self._hosted is None:
            raise Refusal(ErrorCode.GATEWAY_NOT_OFFERED)
        if self._wechat is not None:
            await self._wechat.withdraw(order.order_id)
        return await self._hosted.prepare(order, channel, payer)

    async def query(self, order_id: str) -> list[PaymentNews]:
        """Ask every gateway. One that gives no answer does not hide what another says.

        Raises Refusal(GATEWAY_UNAVAILABLE) when nothing was learnt, and not all answered.
        """
        news: list[PaymentNews] = []
        unanswered: Refusal | None = None
        for gateway in (self._wechat, self._hosted):
            if gateway is None:
                continue
            try:
                news += await gateway.query(order_id)
            except Refusal as refusal:
                unanswered = refusal
        if unanswered is not None and not news:
            raise unanswered
        return news

    async def close_ended(self) -> int:
        """Close at WeChat what can still be paid and must not be; how many were tried."""
        return 0 if self._wechat is None else await self._wechat.close_ended()
