"""One market day from morning to night, once for all tests that look at it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.dev.embedded import EmbeddedServers
from server.dev.wechat_calls import Call
from server.dev.wechat_keys import WeChatKeys
from server.dev.wechat_notify import Delivery
from tests.payment.ledger import Books
from tests.payment.market import ORDERS, Market, checked, open_market, trade, until_quiet
from tests.payment.mishaps import everything_fails
from tests.payment.needles import needles_of


@dataclass(frozen=True, repr=False)  # a test that fails shows what it found, not the whole day
class Day:
    """What is left of a day. The first half was taken before the mishaps, the second one after all had ended."""

    seed: int
    books: Books
    order_ids: list[str]
    check: tuple[int | None, dict[str, Any]]
    wrong_ones_taken: list[Delivery]
    calls: list[Call]
    told: Counter[str]  # status and code of errors that buyers got
    tally: Counter[str]
    seconds: dict[str, float]
    events: list[dict[str, Any]]

    logs: dict[str, str]  # of each process, whole
    errors: list[str]  # bodies of errors that buyers and WeChat got
    metrics: str
    needles: dict[str, set[str]]
    exits: list[int | None]

    def summary(self) -> str:
        """The day in two lines."""
        statuses = Counter(row["status"] for row in self.books.orders.values())
        faulty = sum(call.fault is not None for call in self.calls)
        times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        return (
            f"seed {self.seed}: {len(self.books.orders)} orders, {dict(statuses)}; paid twice: "
            f"{len(self.books.paid_twice)}; {len(self.books.theirs)} numbers, {len(self.books.left_open)} left open; "
            f"{len(self.calls)} calls to WeChat, {faulty} faulty; {times}\n"
            f"  told buyers: {dict(self.told)}; {dict(self.tally)}"
        )


async def hold_market(
    servers: EmbeddedServers, template: str, keys: WeChatKeys, folder: Path, seed: int
) -> Day:
    """Trade until all is quiet, look at the books, let everything fail, close."""
    async with open_market(servers, template, keys, folder, seed) as market:
        await trade(market, seed, ORDERS)
        await until_quiet(market)
        taken = await _first_half(market, seed)
        await everything_fails(market)
        metrics = (await market.road.call("GET", "/metrics")).raw.decode()
        needles = await needles_of(market)
        exits = await market.stop()
        return Day(
            **taken,
            logs={name: market.log(name) for name in market.processes},
            errors=[*market.road.errors, *(each.body for each in market.wechat.deliveries if not each.taken)],
            metrics=metrics,
            needles=needles,
            exits=exits,
        )


async def _first_half(market: Market, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "books": await market.books(),
        "order_ids": market.order_ids,
        "check": await checked(market),
        "wrong_ones_taken": market.wechat.wrong_ones_taken,
        "calls": list(market.wechat.received),
        "told": Counter(market.road.told),
        "tally": Counter(market.tally),
        "seconds": market.seconds,
        "events": market.events(),
    }
