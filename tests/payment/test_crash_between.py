"""A process that ends before, during or after a call to WeChat: its work is gone on with, not begun anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import msgspec
import pytest

from server.dev.wechat_faults import Faults
from server.domain.payments import Channel, ClientContext, Payer, Prepared
from server.jobs import loops
from server.wechat.client import WeChatClient
from tests.conftest import Audit
from tests.payment.conftest import OpenShop
from tests.payment.record import Postgres, attempts, record
from tests.payment.shop import AT_A_DESKTOP, GONE, IN_WECHAT, PAYS, Shop
from tests.road import PATIENCE_S

GAPS = ("before", "during", "after")


@pytest.fixture(autouse=True)
def _closed_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job that closes numbers keeps out of it, so that each gap is met as it is."""
    monkeypatch.setattr(loops, "CLOSE_POLL_S", 60.0)


async def dies(shop: Shop, call: str, gap: str, making: Awaitable[Any]) -> None:
    """Begin `making`, and end it for good at this moment of its call to WeChat."""
    if gap == "during":  # WeChat has done it, and its answer reaches nobody
        hold = shop.wechat.hold_next({"prepay": "native", "close": "close"}[call])
        reached = hold.accepted
    else:
        reached = asyncio.Event()
    real = getattr(WeChatClient, call)
    doomed = asyncio.ensure_future(making)

    async def dying(client: WeChatClient, *asked: Any) -> Any:
        if asyncio.current_task() is not doomed or gap == "during":
            return await real(client, *asked)
        if gap == "after":
            await real(client, *asked)
        reached.set()
        return await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WeChatClient, call, dying)
        async with asyncio.timeout(PATIENCE_S):
            await reached.wait()
        await end(doomed)
    if gap == "during":
        hold.release.set()


async def end(doomed: asyncio.Future[Any]) -> None:
    """Nothing of it is done any more."""
    doomed.cancel()
    await asyncio.gather(doomed, return_exceptions=True)


async def prepare(shop: Shop, pg: Postgres, order_id: str, channel: Channel) -> Prepared:
    """What a request for a payment does, in a task that can be ended as a process ends."""
    parts = shop.road.parts
    buyer = await pg.fetchval("SELECT buyer_id FROM orders WHERE id = $1", order_id)
    agent = IN_WECHAT if channel is Channel.WECHAT_JSAPI else AT_A_DESKTOP
    payer = Payer(buyer, agent, ClientContext(), "127.0.0.1")
    return await parts.provider.prepare(await parts.paying.lookup.find(order_id), channel, payer)


async def unprepared(shop: Shop) -> str:
    """An order that WeChat has not been asked about yet; its id."""
    made = await shop.order(await shop.road.product(), gateway="hosted")
    assert (made.status, made.json["channel"]) == (201, "HOSTED"), made
    await shop.road.flushed()
    order_id: str = made.json["order_id"]
    return order_id


async def phases(pg: Postgres, order_id: str) -> list[str]:
    """Of all attempts, the oldest first."""
    return (await record(pg, order_id)).attempts


def posted(shop: Shop, number: str) -> list[Any]:
    """What was posted under this number, each time."""
    return [call.asked for call in shop.wechat.received if (call.name, call.number) == ("native", number)]


async def test_a_prepay_that_was_cut_off_is_posted_again_with_the_same_bytes(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    for gap in GAPS:
        order_id = await unprepared(shop)
        await dies(shop, "prepay", gap, prepare(shop, pg, order_id, Channel.WECHAT_NATIVE))
        (cut,) = await attempts(pg, order_id)
        assert (cut["phase"], cut["launch"]) == ("PREPARING", None), "committed before the call"
        number = cut["out_trade_no"]
        before = 0 if gap == "before" else 1
        assert len(posted(shop, number)) == before, gap

        resumed = await shop.resume(order_id)

        assert (resumed.status, resumed.json["channel"]) == (200, "WECHAT_NATIVE"), resumed
        (row,) = await attempts(pg, order_id)
        assert (row["out_trade_no"], row["request"], row["phase"]) == (number, cut["request"], "OPEN")
        assert posted(shop, number) == [msgspec.json.decode(cut["request"])] * (before + 1)
        assert shop.number(order_id) == number
        assert await shop.pay(resumed) in PAYS
        await shop.until_status(order_id, "PAID")
    await audit(shop.road)


async def test_a_prepay_that_was_cut_off_is_closed_when_the_channel_is_switched(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    for gap in GAPS:
        order_id = await unprepared(shop)
        await dies(shop, "prepay", gap, prepare(shop, pg, order_id, Channel.WECHAT_NATIVE))
        (cut,) = await attempts(pg, order_id)

        switched = await shop.resume(order_id, agent=IN_WECHAT)

        assert switched.status == 200, (gap, switched)
        assert await phases(pg, order_id) == ["CLOSED", "OPEN"]
        there = shop.wechat.orders().get(cut["out_trade_no"])
        assert (there and there.state.name) == (None if gap == "before" else "CLOSED")
        assert await shop.pay(switched) in PAYS
        await shop.until_status(order_id, "PAID")
    await audit(shop.road)


async def test_a_prepay_that_was_cut_off_is_closed_by_the_job_when_the_order_ends(
    shop: Shop, pg: Postgres, audit: Audit
) -> None:
    for gap in GAPS:
        order_id = await unprepared(shop)
        await dies(shop, "prepay", gap, prepare(shop, pg, order_id, Channel.WECHAT_NATIVE))
        (cut,) = await attempts(pg, order_id)
        assert (await shop.cancel(order_id)).json["status"] == "CANCELLED"
        assert await phases(pg, order_id) == ["CLOSING"], "in the transaction that ended the order"

        assert await shop.road.parts.provider.close_ended() == 1

        assert await phases(pg, order_id) == ["CLOSED"]
        there = shop.wechat.orders().get(cut["out_trade_no"])
        assert (there and there.state.name) == (None if gap == "before" else "CLOSED")
    await audit(shop.road)


@pytest.mark.parametrize("again", ["WECHAT_JSAPI", "WECHAT_NATIVE", "nobody"])
async def test_a_close_that_was_cut_off_is_done_again_by_whoever_comes_first(
    again: str, shop: Shop, pg: Postgres, audit: Audit
) -> None:
    product = await shop.road.product()
    for gap in GAPS:
        made = await shop.order(product)
        order_id = made.json["order_id"]
        old = shop.number(order_id)
        await dies(shop, "close", gap, prepare(shop, pg, order_id, Channel.WECHAT_JSAPI))
        assert await phases(pg, order_id) == ["CLOSING"], "committed before the call"
        assert shop.number(order_id) == old, "no new number before the old one is known to be closed"

        if again == "nobody":
            assert await shop.road.parts.provider.close_ended() == 1
            assert (await phases(pg, order_id), shop.state(old)) == (["CLOSED"], "CLOSED")
        resumed = await shop.resume(order_id, agent=AT_A_DESKTOP if again == "WECHAT_NATIVE" else IN_WECHAT)

        assert resumed.status == 200, (gap, resumed)
        assert await phases(pg, order_id) == ["CLOSED", "OPEN"]
        assert shop.state(old) == "CLOSED"
        assert await shop.pay(made) == GONE
        assert await shop.pay(resumed) in PAYS
        await shop.until_status(order_id, "PAID")
    assert shop.wechat.paid_twice() == {}
    await audit(shop.road)


async def test_a_payment_found_by_a_close_that_was_cut_off_before_it_was_settled_is_settled_later(
    open_shop: OpenShop, pg: Postgres, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await open_shop(faults=Faults(notify_lost=1.0))
    made = await shop.order(await shop.road.product())
    order_id = made.json["order_id"]
    assert await shop.pay(made) in PAYS
    reached = asyncio.Event()
    with monkeypatch.context() as patch:

        async def dying(*_: Any) -> None:
            reached.set()
            await asyncio.Event().wait()

        patch.setattr(shop.road.parts.settlement, "settle", dying)
        doomed = asyncio.ensure_future(prepare(shop, pg, order_id, Channel.WECHAT_JSAPI))
        async with asyncio.timeout(PATIENCE_S):
            await reached.wait()
        await end(doomed)
    assert (await phases(pg, order_id), await shop.status(order_id)) == (["CLOSING"], "PENDING_PAYMENT")

    assert await shop.road.parts.provider.close_ended() == 1

    assert await shop.status(order_id) == "PAID"
    assert await phases(pg, order_id) == ["PAID"]
    assert len(shop.wechat.orders()) == 1
    await audit(shop.road)
