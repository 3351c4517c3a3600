"""Notifications of the simulated WeChat: encrypted, signed, told again by WeChat's schedule until they are taken."""

from __future__ import annotations

import asyncio
import base64
import itertools
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import uuid4

import aiohttp
import msgspec
from aiohttp import web

from server.dev import wechat_seals
from server.dev.wechat_faults import Dice, Faults
from server.dev.wechat_keys import WeChatKeys
from server.limits import (
    CASHIER_SESSIONS_MAX,
    SIMULATED_ANSWER_S_MAX,
    SIMULATED_NOTIFICATIONS_MAX,
    WEBHOOK_SKEW_S_MAX,
)

_MINUTE: Final = 60
_HOUR: Final = 3600
# The waits before the second delivery, the third, and so on, in seconds.
RETRIES_S: Final = (
    *(15, 15, 30),
    *(3 * _MINUTE, 10 * _MINUTE, 20 * _MINUTE, 30 * _MINUTE, 30 * _MINUTE, 30 * _MINUTE, 60 * _MINUTE),
    *(3 * _HOUR, 3 * _HOUR, 3 * _HOUR, 6 * _HOUR, 6 * _HOUR),
)
PROBE: Final = "WECHATPAY/SIGNTEST/"
_LATE_S_MAX: Final = 60.0
_OVERTAKEN_S_MAX: Final = 30.0  # a reordered one waits so long for another to pass it
_NO_ANSWER: Final = 0


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One delivery: what is told, and how it is sealed. The defaults are what WeChat does."""

    url: str
    transaction: dict[str, Any]
    event_type: str = "TRANSACTION.SUCCESS"
    id: str = ""  # of the notification, the same in every delivery
    serial: str = ""  # of the key that signs
    told_serial: str = ""  # says that another key did
    age_s: float = 0.0  # it was signed so long ago
    api_v3_key: str = ""
    corrupt: str = ""  # "body", "signature" or "ciphertext": one byte of it is another
    probe: bool = False  # WECHATPAY/SIGNTEST/: must be refused

    @property
    def wrong(self) -> bool:
        """Whether the seal does not hold, so that nobody may take it."""
        stale = abs(self.age_s) >= WEBHOOK_SKEW_S_MAX
        return stale or bool(self.probe or self.corrupt or self.told_serial or self.api_v3_key)


class Delivery(NamedTuple):
    """What became of one delivery. `wrong` ones must not be taken: nobody may answer 200 to them."""

    number: str  # out_trade_no
    status: int  # of the merchant's answer; 0: none in time
    wrong: bool
    body: str

    @property
    def taken(self) -> bool:
        """Whether WeChat counts it as delivered: the status decides, not the body."""
        return self.status in (200, 204)


class Notifier:
    """Sends, and goes on sending. Time between deliveries is WeChat's times `time_scale`."""

    def __init__(
        self,
        keys: WeChatKeys,
        faults: Faults,
        *,
        time_scale: float,
        serials: tuple[str, ...],
        now: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._dice = Dice(faults)
        self._time_scale = time_scale
        self._serials = itertools.cycle(serials)
        self._now = now
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(SIMULATED_NOTIFICATIONS_MAX)
        self._passed = asyncio.Event()  # set and replaced whenever a delivery has gone out
        self._session: aiohttp.ClientSession | None = None
        self.deliveries: list[Delivery] = []  # the latest, oldest first

    async def open(self, app: web.Application) -> AsyncIterator[None]:
        """The client session, for the life of the application; what is still to be told then is dropped."""
        timeout = aiohttp.ClientTimeout(total=SIMULATED_ANSWER_S_MAX)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            self._session = session
            yield
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._session = None

    @property
    def under_way(self) -> int:
        """Payments of which the merchant is still to be told."""
        return len(self._tasks)

    def tell(self, url: str, transaction: dict[str, Any]) -> None:
        """Tells of a payment from now on, in the background. Past the bound it is not told: delivery is no promise."""
        if len(self._tasks) >= CASHIER_SESSIONS_MAX:
            return
        letter = Letter(url=url, transaction=transaction, id=str(uuid4()))
        task = asyncio.create_task(self._keep_telling(letter))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def deliver(self, letter: Letter) -> Delivery:
        """One delivery, now, and what was answered."""
        body, headers = self._sealed(letter)
        status, text = _NO_ANSWER, ""
        assert self._session is not None  # noqa: S101  (opened with the application)
        async with self._places:
            try:
                async with self._session.post(
                    letter.url, data=body, headers=headers, allow_redirects=False
                ) as answer:
                    status, text = answer.status, await answer.text(errors="replace")
            except (aiohttp.ClientError, TimeoutError):
                pass  # no answer: as good as a refusal
        delivery = Delivery(letter.transaction["out_trade_no"], status, letter.wrong, text)
        if len(self.deliveries) >= CASHIER_SESSIONS_MAX:
            del self.deliveries[: CASHIER_SESSIONS_MAX // 2]
        self.deliveries.append(delivery)
        self._passed.set()
        self._passed = asyncio.Event()
        return delivery

    async def _keep_telling(self, letter: Letter) -> None:
        if self._dice.happens("notify_lost"):
            return
        if self._dice.happens("notify_late"):
            late_s = self._dice.stream("lateness").uniform(0, _LATE_S_MAX)
            await asyncio.sleep(late_s * self._time_scale)
        if self._dice.happens("notify_reordered"):
            await self._overtaken()
        for wait_s in (0, *RETRIES_S):
            await asyncio.sleep(wait_s * self._time_scale)
            if await self._attempt(letter):
                return

    async def _overtaken(self) -> None:
        try:
            async with asyncio.timeout(_OVERTAKEN_S_MAX * self._time_scale):
                await self._passed.wait()
        except TimeoutError:
            return  # it was the last one

    async def _attempt(self, letter: Letter) -> bool:
        """One delivery of the schedule with what befalls it; whether the merchant has taken it."""
        if self._dice.happens("notify_signtest"):
            await self.deliver(replace(letter, probe=True))
        corrupt = ""
        if self._dice.happens("notify_corrupted"):
            corrupt = self._dice.stream("corruption").choice(("body", "signature"))
        copies = 2 if self._dice.happens("notify_twice") else 1
        sent = await asyncio.gather(*(self.deliver(replace(letter, corrupt=corrupt)) for _ in range(copies)))
        return any(each.taken for each in sent)

    def _sealed(self, letter: Letter) -> tuple[bytes, dict[str, str]]:
        plain = msgspec.json.encode(letter.transaction)
        resource = wechat_seals.encrypted(letter.api_v3_key or self._keys.api_v3_key, plain, "transaction")
        if letter.corrupt == "ciphertext":
            resource["ciphertext"] = _other(resource["ciphertext"])
        moment = self._now() - letter.age_s
        name = letter.id or str(uuid4())
        told = {
            "id": name,
            "create_time": datetime.fromtimestamp(int(self._now()), UTC).isoformat(),
            "resource_type": "encrypt-resource",
            "event_type": letter.event_type,
            "summary": "支付成功",
            "resource": {"original_type": "transaction", **resource},
        }
        body = msgspec.json.encode(told)
        headers = wechat_seals.signed(self._keys, letter.serial or next(self._serials), body, moment)
        if letter.told_serial:
            headers["Wechatpay-Serial"] = letter.told_serial
        if letter.probe:
            headers["Wechatpay-Signature"] = PROBE + base64.b64encode(secrets.token_bytes(256)).decode()
        if letter.corrupt == "signature":
            headers["Wechatpay-Signature"] = _other(headers["Wechatpay-Signature"])
        if letter.corrupt == "body":  # of the id, so that it still is JSON
            other = ("0" if name[0] != "0" else "1") + name[1:]
            body = body.replace(name.encode(), other.encode(), 1)
        return body, {**headers, "Content-Type": "application/json", "User-Agent": "Mozilla/4.0"}


def _other(text: str) -> str:
    """The same base64 with one letter of the middle changed."""
    middle = len(text) // 2
    return text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]
