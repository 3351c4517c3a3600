"""Publishing: Redis is told what Postgres decided, in the order in which it was decided."""

from __future__ import annotations

from server.domain.errors import ErrorCode, Refusal
from server.flows.lookup import TicketLoader
from server.hot.stock import CapCode, Stock
from server.limits import OUTBOX_BATCH_MAX
from server.store import catalog, outbox
from server.store.locks import Lock, join_unless_loading, try_alone
from server.store.outbox import Kind, Message
from server.store.pool import Database
from server.telemetry import OUTBOX_WAITING, alert


class Publisher:
    """Applies the outbox. Every message may be applied again: a crash between applying and deleting repeats it."""

    def __init__(self, db: Database, stock: Stock, loader: TicketLoader) -> None:
        self._db = db
        self._stock = stock
        self._loader = loader

    async def publish(self) -> int:
        """Apply and delete one batch; how many. 0 also while another process publishes or Redis is being loaded.

        Raises Refusal when Postgres or Redis is away: the messages stay.
        """
        async with self._db.transaction() as connection:
            if not (await join_unless_loading(connection) and await try_alone(connection, Lock.OUTBOX)):
                return 0
            waiting = await outbox.oldest(connection, OUTBOX_BATCH_MAX)
            if not waiting:
                OUTBOX_WAITING.set(0)
                return 0
            count, _ = await outbox.backlog(connection)
            OUTBOX_WAITING.set(count)
            await self._loader.load_absent(
                [each.message.subject for each in waiting if each.message.kind is Kind.TICKET]
            )
            caps = {int(each.message.subject) for each in waiting if each.message.kind is Kind.CAP}
            if caps:
                await self._set_caps(await catalog.caps(connection, sorted(caps)))
            for each in waiting:
                await self._move_units(each.message)
            await outbox.delete(connection, [each.id for each in waiting])
        return len(waiting)

    async def _move_units(self, message: Message) -> None:
        if message.kind is Kind.COMMIT:
            await self._stock.commit(message.subject, message.units)
        elif message.kind is Kind.RELEASE:
            await self._stock.release(message.subject, message.units)

    async def _set_caps(self, caps: dict[int, int]) -> None:
        """Redis gets the caps that the record has NOW: messages of several changes may be applied late."""
        for product_id, sellable in caps.items():
            code, taken = await self._stock.cap(product_id, sellable)
            if code is CapCode.CLOSED:
                raise Refusal(ErrorCode.GATE_CLOSED)
            if code is CapCode.BELOW_TAKEN:
                alert("CAP_BELOW_TAKEN", product_id=product_id, sellable=sellable, taken=taken)
