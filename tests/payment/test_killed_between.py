"""SIGKILL of a server between WeChat's accepting a call and the answer to the buyer: they go on, and pay once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import NamedTuple

import pytest
from aiohttp import ClientConnectionError, ClientSession
from aiohttp.test_utils import unused_port

from server import config as configuration
from server.dev.serving import serving
from server.dev.wechat import WeChat
from server.dev.wechat_keys import WeChatKeys
from tests.conftest import Audit
from tests.outage.conftest import spawn  # noqa: F401  (a fixture)
from tests.payment.record import Postgres, Record, attempts, record
from tests.payment.shop import GONE, IN_WECHAT, PAYS, Shop
from tests.processes import Process, road_to, until_followed
from tests.road import PATIENCE_S, Answer

Restart = Callable[[], Awaitable[Process]]


class Street(NamedTuple):
    """A shop whose server is a process of its own, to be started again at the same address."""

    shop: Shop
    server: Process
    restart: Restart


@pytest.fixture
async def street(
    spawn: Callable[..., Awaitable[Process]],  # noqa: F811
    environment: dict[str, str],
    wechat_keys: WeChatKeys,
) -> AsyncIterator[Street]:
    """Open, with jobs."""
    wechat = WeChat(wechat_keys, time_scale=0.02)
    port = unused_port()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(wechat.app()))
        settings = {
            **wechat_keys.environment(url),
            "GATELINE_PORT": str(port),
            "GATELINE_PUBLIC_URL": f"http://127.0.0.1:{port}",
        }

        async def start() -> Process:
            server = await spawn("serve", "--with-jobs", **settings)
            await server.until("serving")
            return server

        server = await start()
        config = configuration.load({**environment, **settings})
        road = await stack.enter_async_context(road_to(settings["GATELINE_PUBLIC_URL"], config))
        phone = await stack.enter_async_context(ClientSession())
        yield Street(Shop(road, wechat, url, phone), server, start)


async def unanswered(asking: asyncio.Task[Answer]) -> None:
    """The connection broke: the buyer knows nothing."""
    with pytest.raises((ClientConnectionError, OSError)):
        await asking


async def test_killed_between_the_prepay_and_the_answer_the_buyer_repeats_the_order_and_pays_once(
    street: Street, pg: Postgres, audit: Audit
) -> None:
    shop, wechat = street.shop, street.shop.wechat
    product = await shop.road.product()
    await until_followed(shop.road, product=product)
    await shop.headers("wang")
    hold = wechat.hold_next("jsapi")
    asking = asyncio.create_task(shop.order(product, agent=IN_WECHAT, key="once"))
    async with asyncio.timeout(PATIENCE_S):
        await hold.accepted.wait()

    await street.server.kill()

    await unanswered(asking)
    hold.release.set()
    (number,) = wechat.orders()
    (cut,) = await pg.fetch("SELECT order_id, out_trade_no, phase FROM payment_attempts")
    assert (cut["out_trade_no"], cut["phase"]) == (number, "PREPARING")
    await street.restart()
    await shop.road.until_ready()
    again = await shop.order(product, agent=IN_WECHAT, key="once")
    assert (again.status, again.json["order_id"]) == (201, cut["order_id"]), again
    assert (again.json["channel"], list(wechat.orders())) == ("WECHAT_JSAPI", [number])
    prepays = [call.asked for call in wechat.received if call.name == "jsapi"]
    assert prepays == [prepays[0]] * 2
    assert await shop.pay(again) in PAYS
    await shop.until_status(again.json["order_id"], "PAID")
    assert "ok" not in await shop.pay(again)
    assert await record(pg, again.json["order_id"]) == Record("PAID", ["PAID"], ["APPLIED"], 1)
    assert await pg.fetch("SELECT status, count(*) FROM orders GROUP BY 1") == [("PAID", 1)]
    assert await pg.fetchval("SELECT count(*) FROM tickets") == 1
    await audit(shop.road)


async def test_killed_between_the_close_and_the_answer_the_buyer_asks_again_and_pays_once(
    street: Street, pg: Postgres, audit: Audit
) -> None:
    shop, wechat = street.shop, street.shop.wechat
    product = await shop.road.product()
    await until_followed(shop.road, product=product)
    made = await shop.order(product)
    order_id = made.json["order_id"]
    old = shop.number(order_id)
    hold, its_job = wechat.hold_next("close"), wechat.hold_next("close")  # whichever of the two comes first
    asking = asyncio.create_task(shop.resume(order_id, agent=IN_WECHAT))
    async with asyncio.timeout(PATIENCE_S):
        await hold.accepted.wait()

    await street.server.kill()

    await unanswered(asking)
    hold.release.set()
    its_job.release.set()
    assert (shop.state(old), [row["phase"] for row in await attempts(pg, order_id)]) == (
        "CLOSED",
        ["CLOSING"],
    )
    assert await shop.pay(made) == GONE
    await street.restart()
    await shop.road.until_ready()
    again = await shop.resume(order_id, agent=IN_WECHAT)
    assert (again.status, again.json["channel"]) == (200, "WECHAT_JSAPI"), again
    assert await shop.pay(again) in PAYS
    await shop.until_status(order_id, "PAID")
    assert await record(pg, order_id) == Record("PAID", ["CLOSED", "PAID"], ["APPLIED"], 1)
    assert await pg.fetchval("SELECT count(*) FROM tickets") == 1
    assert wechat.paid_twice() == {}
    await audit(shop.road)
