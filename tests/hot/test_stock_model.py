"""Stock against a ten-line model: whatever is held, committed, released and capped, in whatever order and how often.

Every step goes through `Stock` to the scripts on a real Valkey, and afterwards Redis must be what the model is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from server.config import Ack
from server.domain.catalog import Terms
from server.domain.orders import NewOrder, OrderLine
from server.hot import keys
from server.hot.connection import connect
from server.hot.scripts import ScriptRunner
from server.hot.stock import CapCode, HoldAnswer, HoldCode, Level, Stock, read_order
from server.hot.stream import ORIGIN, Streams

T = TypeVar("T")
PRODUCTS = (1, 2, 3)
NOT_LOADED = 9
WINDOW_S = 3_600
WHEN = datetime(2030, 1, 1, tzinfo=UTC)
ORDERS_MAX = 3  # of one buyer, within a window that no example outlives unless it is told to
Line = tuple[int, int, bool]  # product, units, on sale
Wanted = tuple[str, str, str, list[Line]]  # buyer, idempotency key, payload, lines
WANTED = st.tuples(
    st.sampled_from(("ann", "ann", "bob", "cy")),
    st.sampled_from("abcdefghijkl"),
    st.sampled_from("xy"),
    st.lists(
        st.tuples(
            st.sampled_from((*PRODUCTS, *PRODUCTS, NOT_LOADED)),
            st.integers(1, 4),
            st.sampled_from((True, True, True, False)),
        ),
        min_size=1,
        max_size=4,
    ),
)


@dataclass
class Model:
    """What stock is supposed to be."""

    levels: dict[int, Level]
    open: bool = True
    holds: dict[str, Counter[int]] = field(default_factory=dict)
    made: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    recent: Counter[str] = field(default_factory=Counter)

    def hold(self, order_id: str, buyer: str, key: str, payload: str, lines: list[Line]) -> HoldAnswer:
        if not self.open:
            return HoldAnswer(HoldCode.CLOSED, "", 0)
        if (buyer, key) in self.made:
            first, same = self.made[buyer, key][0], self.made[buyer, key][1] == payload
            return HoldAnswer(HoldCode.REPLAYED if same else HoldCode.CONFLICT, first, 0)
        if self.recent[buyer] >= ORDERS_MAX:
            return HoldAnswer(HoldCode.TOO_MANY, "", 0)
        wanted: Counter[int] = Counter()
        for number, (product, units, on_sale) in enumerate(lines, start=1):
            if product not in self.levels:
                return HoldAnswer(HoldCode.NOT_LOADED, str(number), 0)
            if not on_sale:
                return HoldAnswer(HoldCode.INACTIVE, str(number), 0)
            level = self.levels[product]
            wanted[product] += units
            free = level.sellable - level.reserved - level.sold
            if wanted[product] > free:
                return HoldAnswer(HoldCode.SOLD_OUT, str(number), free)
        self.move(wanted, reserved=1)
        self.holds[order_id], self.made[buyer, key] = wanted, (order_id, payload)
        self.recent[buyer] += 1
        return HoldAnswer(HoldCode.HELD, order_id, 0)

    def end(self, order_id: str, *, sold: int) -> bool:
        held = self.holds.pop(order_id, None)
        self.move(held or Counter(), reserved=-1, sold=sold)
        return held is not None

    def cap(self, product: int, sellable: int) -> tuple[CapCode, int]:
        level = self.levels.get(product, Level(0, 0, 0))
        taken = level.reserved + level.sold
        if not self.open:
            return CapCode.CLOSED, 0
        if sellable < taken:
            return CapCode.BELOW_TAKEN, taken
        self.levels[product] = Level(sellable, level.reserved, level.sold)
        return CapCode.CAPPED, taken

    def move(self, units: Counter[int], *, reserved: int, sold: int = 0) -> None:
        for product, qty in units.items():
            was = self.levels[product]
            self.levels[product] = Level(was.sellable, was.reserved + reserved * qty, was.sold + sold * qty)


class StockMachine(RuleBasedStateMachine):
    """Steps against Valkey and against the model."""

    orders = Bundle("orders")

    def __init__(self, redis_url: str) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.redis = connect(redis_url)
        self.runner = ScriptRunner(self.redis, Ack.MEMORY)
        self.stock = Stock(self.redis, self.runner, buyer_orders_max=ORDERS_MAX, window_s=WINDOW_S)
        self.streams = Streams(self.redis)
        self.model = Model({})
        self.recorded: list[NewOrder] = []
        self.number = 0

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    def teardown(self) -> None:
        self.run(self.runner.aclose())
        self.run(self.redis.aclose(close_connection_pool=True))
        self.loop.close()

    @initialize(sellable=st.tuples(*(st.integers(0, 12) for _ in PRODUCTS)))
    def begin(self, sellable: tuple[int, ...]) -> None:
        self.run(self.redis.flushdb())
        self.open()
        for product, units in zip(PRODUCTS, sellable, strict=True):
            self.cap(product, units)

    def open(self) -> None:
        self.run(self.redis.set(keys.STOCK_EPOCH, "run 1"))

    @rule(target=orders, wanted=WANTED)
    def hold(self, wanted: Wanted) -> Any:
        return self.together([wanted])

    @rule(target=orders, batch=st.lists(WANTED, min_size=2, max_size=6))
    def hold_together(self, batch: list[Wanted]) -> Any:
        """Buyers of one moment: the same as one after the other."""
        return self.together(batch)

    def together(self, batch: list[Wanted]) -> Any:
        made = [self.order(*wanted) for wanted in batch]

        async def all_at_once() -> list[HoldAnswer]:
            return await asyncio.gather(
                *(
                    self.stock.hold(order, [on_sale for _, _, on_sale in lines])
                    for order, (*_, lines) in zip(made, batch, strict=True)
                )
            )

        answers = self.run(all_at_once())
        expected = [
            self.model.hold(order.order_id, *wanted) for order, wanted in zip(made, batch, strict=True)
        ]
        assert [self.without_wait(answer) for answer in answers] == expected
        held = [order for order, answer in zip(made, answers, strict=True) if answer.code is HoldCode.HELD]
        self.recorded += held
        return multiple(*(order.order_id for order in held))

    def without_wait(self, answer: HoldAnswer) -> HoldAnswer:
        """The ms to wait are the clock's."""
        if answer.code is not HoldCode.TOO_MANY:
            return answer
        assert 0 < answer.figure <= WINDOW_S * 1000
        return HoldAnswer(answer.code, answer.subject, 0)

    @rule(buyer=st.sampled_from(("ann", "bob", "cy")))
    def a_window_passes(self, buyer: str) -> None:
        """What Redis knows of the buyer's latest orders is gone by itself then."""
        self.run(self.redis.delete(keys.recent_orders(f"demo:{buyer}")))
        self.model.recent[buyer] = 0

    def order(self, buyer: str, key: str, payload: str, lines: list[Line]) -> NewOrder:
        self.number += 1
        return NewOrder(
            order_id=f"order-{self.number}",
            buyer_id=f"demo:{buyer}",
            idempotency_key=key,
            payload_hash=payload,
            total_fen=0,
            created_at=WHEN,
            expires_at=WHEN,
            lines=tuple(
                OrderLine(product, units, 0, Terms(name="岛", functions=())) for product, units, _ in lines
            ),
        )

    @rule(order_id=orders, again=st.integers(1, 2))
    def commit(self, order_id: str, again: int) -> None:
        for _ in range(again):
            units = self.units(order_id)
            assert self.run(self.stock.commit(order_id, units)) is self.model.end(order_id, sold=1)

    @rule(order_id=orders, again=st.integers(1, 2))
    def release(self, order_id: str, again: int) -> None:
        """Cancelling and expiring are both this."""
        for _ in range(again):
            units = self.units(order_id)
            assert self.run(self.stock.release(order_id, units)) is self.model.end(order_id, sold=0)

    @rule(product=st.sampled_from((*PRODUCTS, 4)), sellable=st.integers(0, 15))
    def cap(self, product: int, sellable: int) -> None:
        assert self.run(self.stock.cap(product, sellable)) == self.model.cap(product, sellable)

    @rule(shut=st.booleans())
    def close_or_open(self, shut: bool) -> None:
        """Closed is stock that is not loaded, or shut."""
        self.model.open = not self.model.open
        if self.model.open:
            self.open()
        elif shut:
            self.run(self.redis.set(keys.STOCK_EPOCH, "run 1 shut"))
        else:
            self.run(self.redis.delete(keys.STOCK_EPOCH))

    def units(self, order_id: str) -> dict[int, int]:
        """As the outbox carries them: known also when the hold has ended."""
        order = next(order for order in self.recorded if order.order_id == order_id)
        units: Counter[int] = Counter()
        for line in order.lines:
            units[line.product_id] += line.qty
        return dict(units)

    @invariant()
    def redis_counts_what_the_model_counts(self) -> None:
        levels = self.run(self.stock.levels([*PRODUCTS, 4, NOT_LOADED]))
        assert levels == self.model.levels
        assert all(0 <= level.reserved + level.sold <= level.sellable for level in levels.values())

    @invariant()
    def redis_holds_what_the_model_holds(self) -> None:
        for order in self.recorded:
            held = self.run(self.stock.held(order.order_id))
            assert held == (order if order.order_id in self.model.holds else None)

    @invariant()
    def the_stream_has_each_order_that_was_held_once_and_in_order(self) -> None:
        entries = self.run(self.streams.read(keys.ORDERS_STREAM, ORIGIN, 1_000))
        assert [read_order(entry.body or "") for entry in entries] == self.recorded


@pytest.mark.timeout(400)  # a failure is first made small, for up to 300 s
def test_stock_behaves_as_its_model_through_holds_commits_releases_and_caps(redis_url: str) -> None:
    run_state_machine_as_test(
        lambda: StockMachine(redis_url),
        settings=settings(
            max_examples=60,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
