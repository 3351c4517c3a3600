"""The client of WeChat Pay, API v3: prepay, query and close, with answers that are believed only when they are signed.

What is sent is sent as the very bytes that are signed. A call is sent again, under the same number, when WeChat says
that it was not done or when nothing came back; then the other host is asked. Source: WeChat Pay API v3.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
import structlog
from yarl import URL

from server import telemetry
from server.domain.payments import Channel
from server.limits import (
    RETRY_S_MIN,
    WECHAT_SENDINGS_MAX,
    WECHAT_TOTAL_S_MAX,
)
from server.wechat.faults import (
    UNREADABLE,
    UNVERIFIED,
    Rejected,
    Retryable,
    Unknown,
    WeChatError,
    fault_of,
    may_be_sent_again,
    outcome_of,
)
from server.wechat.sealed import NOT_JSON, Transaction, Unreadable, read_transaction
from server.wechat.sending import Answer, send
from server.wechat.signing import SERIAL_HEADER, Signer, Verified, Verifier

__all__ = ["Rejected", "Retryable", "Unknown", "WeChatClient", "WeChatError"]

Read = TypeVar("Read")

_log: Final = structlog.get_logger(__name__)
_jitter: Final = random.SystemRandom()
_TRANSACTIONS: Final = "/v3/pay/transactions"


class _PrepayId(msgspec.Struct, rename={"launch": "prepay_id"}):
    launch: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,64}\Z")]


class _CodeUrl(msgspec.Struct, rename={"launch": "code_url"}):
    launch: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,512}\Z")]


class _H5Url(msgspec.Struct, rename={"launch": "h5_url"}):
    launch: Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]{1,512}\Z")]  # a browser is sent there


_PREPAYS: Final[dict[Channel, tuple[str, type[_PrepayId | _CodeUrl | _H5Url]]]] = {
    Channel.MINIPROGRAM_BRIDGE: ("jsapi", _PrepayId),
    Channel.WECHAT_JSAPI: ("jsapi", _PrepayId),
    Channel.WECHAT_NATIVE: ("native", _CodeUrl),
    Channel.WECHAT_H5: ("h5", _H5Url),
}


def _fresh_nonce() -> str:
    return secrets.token_hex(16)


class WeChatClient:
    """One merchant's calls. Each raises Retryable, Rejected or Unknown, after at most 8 seconds and three sendings.

    `urls` are the main host and its backups; `now` tells the time in seconds, `pause` waits so many.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        urls: Sequence[str],
        signer: Signer,
        verifier: Verifier,
        mchid: str,
        *,
        now: Callable[[], float] = time.time,
        nonce: Callable[[], str] = _fresh_nonce,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._urls = urls
        self._signer = signer
        self._verifier = verifier
        self._mchid = mchid
        self._now = now
        self._nonce = nonce
        self._pause = pause
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # answers are short, and the signature is of their plain bytes
        }

    async def prepay(self, channel: Channel, request: bytes) -> str:
        """Post this JSON; gives the prepay_id, code_url or h5_url that launches the payment.

        KeyError for a channel that is not WeChat's.
        """
        call, struct = _PREPAYS[channel]

        def read(raw: bytes) -> str:
            return msgspec.json.decode(raw, type=struct).launch

        return await self._call(call, "POST", f"{_TRANSACTIONS}/{call}", request, 200, read)

    async def query(self, out_trade_no: str) -> Transaction | None:
        """What became of a number; None: WeChat has no such order. An answer about any other order is Unknown."""

        def read(raw: bytes) -> Transaction:
            told = read_transaction(raw)
            if (told.out_trade_no, told.mchid) != (out_trade_no, self._mchid):
                raise Unreadable("of another order")
            return told

        path = f"{_order(out_trade_no)}?mchid={quote(self._mchid, safe='')}"
        try:
            return await self._call("query", "GET", path, b"", 200, read)
        except Rejected as fault:
            if (fault.code, fault.status) == ("ORDER_NOT_EXIST", 404):
                return None
            raise

    async def close(self, out_trade_no: str) -> None:
        """Close a number, so that it cannot be paid any more. After any failure: query."""
        request = msgspec.json.encode({"mchid": self._mchid})
        await self._call("close", "POST", f"{_order(out_trade_no)}/close", request, 204, lambda raw: None)

    async def _call(
        self, call: str, method: str, path: str, body: bytes, success: int, read: Callable[[bytes], Read]
    ) -> Read:
        """Send until there is an answer to go by, or neither time nor sendings are left. Raises WeChatError.

        `success` is the one status that means done. Others of 2xx do not: a close is answered 202 while the buyer types
        the password.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + WECHAT_TOTAL_S_MAX
        sending = 0
        while True:
            address = self._urls[sending % len(self._urls)] + path
            sending += 1
            try:
                answer = await self._send(address, method, path, body, seconds=deadline - clock())
                told = self._judge(answer, success, read)
            except WeChatError as fault:
                telemetry.WECHAT_CALLS.labels(call, outcome_of(fault)).inc()
                _log.info("wechat_call_failed", call=call, code=fault.code, status=fault.status)
                wait_s = RETRY_S_MIN * 4 ** (sending - 1) * _jitter.uniform(0.5, 1.0)
                last = sending == WECHAT_SENDINGS_MAX or clock() + wait_s >= deadline
                if last or not may_be_sent_again(fault):
                    raise
            else:
                telemetry.WECHAT_CALLS.labels(call, "OK").inc()
                return told
            await self._pause(wait_s)

    async def _send(self, address: str, method: str, path: str, body: bytes, *, seconds: float) -> Answer:
        """Sign and send once. Raises Unknown when nothing comes back."""
        authorization = self._signer.authorization(
            method, path, body, now_s=int(self._now()), nonce=self._nonce()
        )
        headers = {**self._headers, "Authorization": authorization}
        if self._verifier.asked_for:
            headers[SERIAL_HEADER] = self._verifier.asked_for
        if body:
            headers["Content-Type"] = "application/json"
        url = URL(address, encoded=True)  # as it was signed
        return await send(self._session, method, url, seconds=seconds, headers=headers, body=body)

    def _judge(self, answer: Answer, success: int, read: Callable[[bytes], Read]) -> Read:
        """What a successful answer says. Raises WeChatError for any other, and for what WeChat did not sign."""
        status, headers, raw = answer
        verified = Verified.MISSING if raw is None else self._verifier.verify(headers, raw, int(self._now()))
        holds = verified is Verified.HOLDS
        if not 200 <= status < 300:
            raise fault_of(status, raw, verified=holds)
        if raw is None or not holds:
            _log.warning("wechat_answer_not_verified", because=verified.value, status=status)
            if (
                verified is Verified.UNKNOWN_SERIAL
            ):  # of whom we called ourselves: our list of keys is out of date
                telemetry.alert("WECHAT_KEY_UNKNOWN", call_status=status)
            raise Unknown(UNVERIFIED, status)
        if status != success:
            raise Unknown(UNREADABLE, status)
        with contextlib.suppress(Unreadable, *NOT_JSON):
            return read(raw)
        raise Unknown(UNREADABLE, status)


def _order(out_trade_no: str) -> str:
    return f"{_TRANSACTIONS}/out-trade-no/{quote(out_trade_no, safe='')}"
