"""What WeChat tells of payment attempts: unasked, as an answer, and when a number is to be closed for good."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import structlog

from server.config import WeChatAccount
from server.domain.attempts import Attempt
from server.domain.errors import ErrorCode, Refusal
from server.domain.payments import Gateway, PaymentNews, Settled
from server.flows.settle import Settlement
from server.flows.turns import each
from server.limits import CLOSE_BATCH_MAX, CLOSE_RETRY_S
from server.store import attempts
from server.store.pool import Database
from server.telemetry import SETTLEMENTS, alert
from server.wechat.client import Rejected, WeChatClient, WeChatError
from server.wechat.sealed import ApiV3Keys, Envelope, TradeState, Transaction, Unreadable
from server.wechat.signing import Verified, Verifier

_log = structlog.get_logger(__name__)
_SETTLED = frozenset({Settled.PAID, Settled.REFUND_REQUIRED})  # which mark the attempt as paid


class WeChatNews:
    """Listens to WeChat and asks it; whatever was paid goes to settlement."""

    def __init__(
        self,
        db: Database,
        settlement: Settlement,
        client: WeChatClient,
        verifier: Verifier,
        api_v3_keys: ApiV3Keys,
        account: WeChatAccount,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._db = db
        self._settlement = settlement
        self._client = client
        self._verifier = verifier
        self._api_v3_keys = api_v3_keys
        self._account = account
        self._now = now

    def verify(self, headers: Mapping[str, str], raw: bytes) -> None:
        """Raises Refusal(SIGNATURE_INVALID) when WeChat did not sign these raw bytes within the last five minutes."""
        verified = self._verifier.verify(headers, raw, int(self._now()))
        if verified is not Verified.HOLDS:
            SETTLEMENTS.labels("unverified", verified.value).inc()
            raise Refusal(ErrorCode.SIGNATURE_INVALID)

    async def told(self, envelope: Envelope) -> Settled | None:
        """A verified notification: opened and settled. None: nothing of ours to settle.

        Raises Refusal: NOTIFICATION_UNREADABLE (signed by WeChat, and yet not to be opened: the APIv3 key is another
        one, most likely); what settlement raises, so that WeChat tells it again.
        """
        try:
            transaction = self._api_v3_keys.open(envelope)
        except Unreadable as fault:
            alert("WECHAT_NOTIFICATION_UNREADABLE", why=str(fault))
            raise Refusal(ErrorCode.NOTIFICATION_UNREADABLE) from None
        if transaction is None:
            _log.info("wechat_event_passed_over")
            return None
        async with self._db.connection() as connection:
            attempt = await attempts.get(connection, transaction.out_trade_no)
        if attempt is None:
            alert("PAYMENT_FOR_UNKNOWN_ORDER", gateway="wechat", out_trade_no=transaction.out_trade_no)
            SETTLEMENTS.labels(Gateway.WECHAT.value, "UNKNOWN_ORDER").inc()
            return None
        news = self._news(attempt, transaction)
        return None if news is None else await self._settlement.settle(news)

    async def query(self, order_id: str) -> list[PaymentNews]:
        """Ask about the attempt that may have been paid, if there is one. Raises Refusal(GATEWAY_UNAVAILABLE)."""
        async with self._db.connection() as connection:
            attempt = await attempts.live(connection, order_id)
        if attempt is None:
            return []
        transaction = await self._ask(attempt)
        if transaction is None:
            return []
        await self._note_end(attempt, transaction)
        news = self._news(attempt, transaction)
        return [] if news is None else [news]

    async def close_ended(self) -> int:
        """Close one batch of numbers that wait for it; how many were tried.

        One that WeChat will not close does not keep the others from it. Raises Refusal when it closes none.
        """
        since = datetime.now(UTC) - timedelta(seconds=CLOSE_RETRY_S)
        async with self._db.transaction() as connection:
            claimed = await attempts.claim_closing(connection, since, CLOSE_BATCH_MAX)
        await each(claimed, self.close)
        return len(claimed)

    async def close(self, attempt: Attempt) -> None:
        """Make sure that the attempt, CLOSING, cannot be paid any more; when it was paid, settle that.

        Raises Refusal(GATEWAY_UNAVAILABLE) when neither is certain now. A payment that contradicts the order ends the
        attempt too: staff are told by settlement.
        """
        try:
            await self._client.close(attempt.out_trade_no)
        except WeChatError:  # whatever it was: what became of the number is asked
            transaction = await self._ask(attempt)
            if transaction is None and attempt.launch is not None:
                raise Refusal(
                    ErrorCode.GATEWAY_UNAVAILABLE
                ) from None  # WeChat has it: it made what launches it
            # None otherwise: WeChat never heard of it, since it was not posted or did not get there.
            if transaction is not None:
                news = self._news(attempt, transaction)
                if news is None and not await self._note_end(attempt, transaction):
                    raise Refusal(ErrorCode.GATEWAY_UNAVAILABLE) from None
                if news is None or await self._settlement.settle(news) in _SETTLED:
                    return
        await self._closed(attempt)

    async def _ask(self, attempt: Attempt) -> Transaction | None:
        try:
            return await self._client.query(attempt.out_trade_no)
        except Rejected as rejected:  # a question is only refused to the wrong merchant, key or clock
            alert("WECHAT_CALL_REJECTED", wechat_code=rejected.code, status=rejected.status)
            raise Refusal(ErrorCode.GATEWAY_UNAVAILABLE) from None
        except WeChatError:
            raise Refusal(ErrorCode.GATEWAY_UNAVAILABLE) from None

    async def _note_end(self, attempt: Attempt, transaction: Transaction) -> bool:
        """Whether WeChat says that this number was closed; that is noted."""
        if transaction.trade_state is not TradeState.CLOSED:
            return False
        await self._closed(attempt)
        return True

    async def _closed(self, attempt: Attempt) -> None:
        async with self._db.connection() as connection:
            await attempts.closed(connection, attempt.out_trade_no)

    def _news(self, attempt: Attempt, transaction: Transaction) -> PaymentNews | None:
        """As settlement takes it; None: it is not paid."""
        amount, paid_at = transaction.amount, transaction.success_time
        paid = transaction.trade_state in (TradeState.SUCCESS, TradeState.REFUND)
        if not paid or amount is None or paid_at is None:
            return None
        return PaymentNews(
            gateway=Gateway.WECHAT.value,
            gateway_txn_id=transaction.transaction_id,
            order_id=attempt.order_id,
            success=True,
            amount_fen=amount.total,
            currency=amount.currency,
            paid_at=paid_at,
            out_trade_no=attempt.out_trade_no,
            given_back=transaction.trade_state is TradeState.REFUND,
            payee_is_us=(transaction.mchid, transaction.appid) == (self._account.mchid, attempt.appid),
        )
