"""A simulator of WeChat Pay API v3, of its logins, and of the phones of its people. It takes no money.

It checks what the real host checks and refuses what it refuses, signs its answers, tells of payments by encrypted
notifications, and can be told to misbehave. All that it knows of people and orders is in memory.
"""

from __future__ import annotations

import secrets
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from aiohttp import web

from server.dev.wechat_api import Api
from server.dev.wechat_book import Book, Order, TradeState
from server.dev.wechat_calls import Call, Calls, Hold
from server.dev.wechat_faults import CallFault, Faults
from server.dev.wechat_keys import WeChatKeys
from server.dev.wechat_login import Login
from server.dev.wechat_notify import Delivery, Letter, Notifier
from server.dev.wechat_people import People
from server.dev.wechat_phone import Phone
from server.limits import BODY_BYTES_MAX

_SIGNS_BY: Final = ("both", "public_key", "certificate")


@dataclass(frozen=True)
class Seen:
    """An order as it is at WeChat."""

    state: TradeState
    trade_type: str
    attach: str
    amount_fen: int
    transaction_id: str  # empty when it was never paid
    launches: tuple[str, ...] = ()  # what it can be paid with: each asking under its number adds one


class WeChat:
    """One merchant's WeChat.

    `time_scale` shortens the waits between notifications (0.001: the first retry after 15 ms); `now` gives unix
    seconds; notifications are signed by the WeChat Pay public key, the platform certificate, or both in turn.
    """

    def __init__(
        self,
        keys: WeChatKeys,
        faults: Faults | None = None,
        *,
        time_scale: float = 1.0,
        now: Callable[[], float] = time.time,
        signs_by: str = "both",
    ) -> None:
        faults = faults or Faults()
        serials = {"public_key": (keys.public_key_id,), "certificate": (keys.platform_serial,)}
        self.keys = keys
        self._now = now
        self._people = People(keys.salt)
        self._book = Book(keys, self._people)
        self._calls = Calls(keys, faults, now)
        self._notifier = Notifier(
            keys,
            faults,
            time_scale=time_scale,
            serials=serials.get(signs_by, (keys.public_key_id, keys.platform_serial)),
            now=now,
        )
        if signs_by not in _SIGNS_BY:
            raise ValueError(f"signs_by is one of {_SIGNS_BY}")

    def app(self) -> web.Application:
        """The simulator's HTTP application."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        Api(self.keys, self._book, self._calls, self._now).add_routes(app.router)
        Login(self.keys, self._people, self._calls, self._now).add_routes(app.router)
        Phone(self.keys, self._book, self._people, paid=self._paid, now=self._now).add_routes(app.router)
        app.cleanup_ctx.append(self._notifier.open)
        app.on_shutdown.append(self._calls.close)
        return app

    def _paid(self, order: Order) -> None:
        self._notifier.tell(order.asked["notify_url"], order.transaction())

    # What a test asks.

    def openid(self, user: str, appid: str) -> str:
        """The openid of this user for this app."""
        return self._people.openid(user, appid)

    def code(self, user: str, appid: str) -> str:
        """A code with which this user logs in, as their app gets it: good once."""
        return self._people.code(user, appid, self._now())

    def orders(self) -> dict[str, Seen]:
        """All orders now, by out_trade_no."""
        return {
            number: Seen(
                each.state,
                each.trade_type,
                each.attach,
                each.total,
                each.transaction_id,
                tuple(each.tickets),
            )
            for number, each in self._book.orders.items()
        }

    def paid_twice(
        self, order_of: Callable[[str, Seen], str] = lambda _, seen: seen.attach
    ) -> dict[str, list[str]]:
        """Orders of the merchant that were paid under more than one out_trade_no, and under which.

        `order_of` says which order of theirs an out_trade_no stands for (by default its attach); "" is left out.
        """
        paid: defaultdict[str, list[str]] = defaultdict(list)
        for number, seen in self.orders().items():
            if seen.transaction_id and (theirs := order_of(number, seen)):
                paid[theirs].append(number)
        return {theirs: numbers for theirs, numbers in paid.items() if len(numbers) > 1}

    @property
    def received(self) -> deque[Call]:
        """The latest calls of the merchant, oldest first: jsapi, native, h5, query, close, certificates, login."""
        return self._calls.received

    @property
    def deliveries(self) -> list[Delivery]:
        """The latest deliveries of notifications with what was answered, oldest first."""
        return self._notifier.deliveries

    @property
    def wrong_ones_taken(self) -> list[Delivery]:
        """Probes, corrupted, stale and strange ones that the merchant has answered 200 to: a hole in their check."""
        return [each for each in self.deliveries if each.wrong and each.taken]

    @property
    def still_telling(self) -> int:
        """Payments of which the merchant is still to be told."""
        return self._notifier.under_way

    # What a test makes happen.

    def fail_next(self, call: str, fault: CallFault | str) -> None:
        """One next call of this name meets this fault."""
        self._calls.fail_next(call, CallFault(fault))

    def hold_next(self, call: str) -> Hold:
        """One next call waits between being accepted and being answered: await `accepted`, then set `release`."""
        return self._calls.hold_next(call)

    async def notify(
        self,
        number: str,
        /,
        *,
        url: str | None = None,
        amount: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Delivery:
        """One notification by hand, of a payment that need not have happened, and the merchant's answer.

        `changes` are fields of a `Letter` (serial, told_serial, age_s, corrupt, probe, event_type, ...) or of the
        transaction (mchid, out_trade_no, transaction_id, trade_state, ...); `amount` is merged into the transaction's.
        Raises KeyError when the order is unknown.
        """
        order = self._book.orders[number]
        sealing = {name: changes.pop(name) for name in Letter.__dataclass_fields__ if name in changes}
        return await self._notifier.deliver(
            Letter(
                url=url or order.asked["notify_url"],
                transaction=_as_paid(order, self._now(), amount or {}, changes),
                **sealing,
            )
        )


def _as_paid(order: Order, now: float, amount: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The transaction of an order that was paid, or as if it had been, with changes."""
    if not order.transaction_id:
        made_up = f"4200{secrets.randbelow(10**24):024}"
        order = replace(order, state=TradeState.SUCCESS, transaction_id=made_up, paid_at=now)
    told = order.transaction()
    return {**told, "amount": {**told["amount"], **amount}, **changes}
