"""Stock in Redis: holds, their commit and release, and the cap of each product."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from redis.asyncio import Redis

from server.domain.orders import NewOrder
from server.hot import keys
from server.hot.batcher import Batcher
from server.hot.connection import ask
from server.hot.scripts import Script, ScriptRunner
from server.limits import IDEMPOTENCY_REPLAY_S, ORDER_BATCH_MAX, ORDER_QUEUE_MAX

HOLD: Final = Script("hold")
COMMIT: Final = Script("commit")
RELEASE: Final = Script("release")
CAP: Final = Script("cap")
_Wanted: TypeAlias = tuple[NewOrder, Sequence[bool]]  # an order, and whether each line's product is on sale
_encoder: Final = msgspec.json.Encoder()
_new_order: Final = msgspec.json.Decoder(NewOrder)


class HoldCode(enum.IntEnum):
    """What `hold.lua` answers; numbers are never reused."""

    HELD = 0
    REPLAYED = 1
    CONFLICT = 2
    INACTIVE = 3
    SOLD_OUT = 4
    TOO_MANY = 5
    CLOSED = -1
    NOT_LOADED = -2


class CapCode(enum.IntEnum):
    """What `cap.lua` answers; numbers are never reused."""

    CAPPED = 0
    BELOW_TAKEN = 1
    CLOSED = -1


class HoldAnswer(msgspec.Struct, frozen=True):
    """`subject`: the order's id, or the number of the refused line from 1.

    `figure`: units left of that line (SOLD_OUT), or ms after which the buyer may order again (TOO_MANY).
    """

    code: HoldCode
    subject: str
    figure: int


class Level(msgspec.Struct, frozen=True):
    """Units of one product."""

    sellable: int
    reserved: int
    sold: int


def read_order(text: str) -> NewOrder:
    """An order as the stream and the hold keep it. Raises msgspec.DecodeError."""
    return _new_order.decode(text)


class Stock:
    """All stock, in one slot of Redis."""

    def __init__(
        self, redis: Redis, runner: ScriptRunner, *, buyer_orders_max: int = 0, window_s: int = 0
    ) -> None:
        """`buyer_orders_max`: new orders of one buyer in any `window_s`; 0: no bound."""
        self._redis = redis
        self._runner = runner
        self._bound: tuple[int, int] = (buyer_orders_max, window_s * 1000)
        self._holds: Batcher[_Wanted, HoldAnswer] = Batcher(
            self._hold, queue_max=ORDER_QUEUE_MAX, batch=ORDER_BATCH_MAX, batch_max=ORDER_BATCH_MAX
        )

    async def hold(
        self, order: NewOrder, on_sale: Sequence[bool], patience_s: float | None = None
    ) -> HoldAnswer:
        """Reserve all lines or none and record the order, unless the idempotency key has made one before.

        Orders of concurrent callers are judged together, in one step. Raises Refusal: OVERLOADED at once;
        DEADLINE_PASSED after `patience_s`, REDIS_UNAVAILABLE and NOT_ACKNOWLEDGED: undecided, and a retry with the same
        key is safe.
        """
        return await self._holds.submit((order, on_sale), patience_s)

    async def _hold(self, wanted: Sequence[_Wanted]) -> list[HoldAnswer]:
        names = [keys.STOCK_EPOCH, keys.ORDERS_STREAM]
        args: list[str | int] = [IDEMPOTENCY_REPLAY_S, *self._bound]
        products: dict[int, int] = {}  # id -> number of its stock among the keys
        for order, on_sale in wanted:
            buyer_id = order.buyer_id
            names += (
                keys.idempotency(buyer_id, order.idempotency_key),
                keys.hold(order.order_id),
                keys.recent_orders(buyer_id),
            )
            lines = [
                f"{products.setdefault(line.product_id, len(products))} {line.qty} {sold_now:d};"
                for line, sold_now in zip(order.lines, on_sale, strict=True)
            ]
            text = _encoder.encode(order).decode()
            args += (order.order_id, order.payload_hash, _deadline_ms(order), text, "".join(lines))
        names += (keys.stock(product_id) for product_id in products)
        answers = await self._runner.run(HOLD, names, args)
        return [HoldAnswer(HoldCode(code), str(subject), int(figure)) for code, subject, figure in answers]

    async def held(self, order_id: str) -> NewOrder | None:
        """The order behind an open hold; None when there is no hold, or its order is recorded in Postgres anyway."""
        text: Any = await ask(self._redis.hget(keys.hold(order_id), "order"))
        return None if text is None else read_order(text)

    async def commit(self, order_id: str, units: Mapping[int, int]) -> bool:
        """Turn the hold into sold units. False: there is no hold, and nothing was done."""
        return await self._end(COMMIT, order_id, units)

    async def release(self, order_id: str, units: Mapping[int, int]) -> bool:
        """Give the hold's units back. False: there is no hold, and nothing was done."""
        return await self._end(RELEASE, order_id, units)

    async def _end(self, script: Script, order_id: str, units: Mapping[int, int]) -> bool:
        names = [keys.hold(order_id), *(keys.stock(product_id) for product_id in units)]
        return bool(await self._runner.run(script, names, list(units.values())))

    async def cap(self, product_id: int, sellable: int) -> tuple[CapCode, int]:
        """Set a product's cap; (code, units reserved and sold). A product unknown so far begins with none taken."""
        code, taken = await self._runner.run(CAP, [keys.STOCK_EPOCH, keys.stock(product_id)], [sellable])
        return CapCode(code), int(taken)

    async def levels(self, product_ids: Sequence[int]) -> dict[int, Level]:
        """Product id -> its units now; products that Redis does not have are left out."""
        if not product_ids:
            return {}
        async with self._redis.pipeline(transaction=False) as pipe:
            for product_id in product_ids:
                pipe.hmget(keys.stock(product_id), "sellable", "reserved", "sold")
            answers = await ask(pipe.execute())
        return {
            product_id: Level(*(int(units) for units in answer))
            for product_id, answer in zip(product_ids, answers, strict=True)
            if answer[0] is not None
        }


def _deadline_ms(order: NewOrder) -> int:
    return int(order.expires_at.timestamp() * 1000)
