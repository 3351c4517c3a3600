"""What fails for one does not keep others waiting: an odd number, a silent gateway, a flood of logins, slow jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from aiohttp import ClientSession, TCPConnector, web

from server.dev.serving import serving
from server.dev.wechat_book import Order
from server.dev.wechat_calls import Hold
from server.dev.wechat_faults import Faults
from server.dev.wechat_rules import Refusal as Refused
from server.flows import identity, wechat_news
from server.jobs import loops
from server.jobs.reconcile import reconcile
from server.limits import ASKED_AT_ONCE_MAX, LOGIN_CONNECTIONS_MAX, WECHAT_LOGINS_MAX
from server.wechat import login, sending
from tests.conftest import Audit, eventually
from tests.payment.conftest import OpenShop
from tests.payment.record import Postgres, record
from tests.payment.shop import PAYS, Shop
from tests.road import PATIENCE_S, Answer

LOST = Faults(notify_lost=1.0)
LATE = "UPDATE orders SET created_at = now() - interval '5 minutes'"  # enough to be asked about
AT_HTTP_CLIENTS_ALL = 100  # connections of one aiohttp session, unless it is told otherwise


@pytest.fixture(autouse=True)
def _jobs_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs that ask WeChat keep out of it; a test calls them, and need not wait between two tries."""
    for poll in ("CLOSE_POLL_S", "RECONCILE_POLL_S"):
        monkeypatch.setattr(loops, poll, 60.0)
    monkeypatch.setattr(wechat_news, "CLOSE_RETRY_S", 0.0)


async def unpaid(shop: Shop, count: int) -> dict[str, Answer]:
    """So many orders, recorded: order id -> offer."""
    product = await shop.road.product()
    made = [await shop.order(product) for _ in range(count)]
    await shop.road.flushed()
    return {each.json["order_id"]: each for each in made}


async def ask_about_all(shop: Shop) -> int:
    """One round of the reconciliation."""
    paying = shop.road.parts.jobs_paying
    return await reconcile(shop.road.parts.bulk_database, paying.provider, paying.settlement)


async def to_be_closed(shop: Shop, pg: Postgres, count: int) -> list[str]:
    """Numbers that wait for being closed, in the order in which their turn comes."""
    offers = await unpaid(shop, count)
    numbers = [shop.number(order_id) for order_id in offers]
    for turn, (order_id, number) in enumerate(zip(offers, numbers, strict=True)):
        assert (await shop.cancel(order_id)).status == 200
        asked = "UPDATE payment_attempts SET asked_at = now() - $2 * interval '1 s' WHERE out_trade_no = $1"
        await pg.execute(asked, number, 1_000 - turn)
    return numbers


# --- one odd number, one silent gateway -----------------------------------------------------------------------------


async def test_numbers_that_wechat_will_not_close_do_not_keep_others_open(
    open_shop: OpenShop, pg: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await open_shop(faults=LOST)
    numbers = await to_be_closed(shop, pg, 6)
    odd = numbers[:3]
    real = shop.wechat._book.close

    def close(mchid: str, number: str) -> Order | Refused:
        return Refused(403, "RULE_LIMIT", "no") if number in odd else real(mchid, number)

    monkeypatch.setattr(shop.wechat._book, "close", close)
    closed = await shop.road.parts.jobs_paying.provider.close_ended()

    assert closed == 6
    assert [shop.state(number) for number in numbers] == ["NOTPAY"] * 3 + ["CLOSED"] * 3
    rows = dict(await pg.fetch("SELECT out_trade_no, phase FROM payment_attempts"))
    assert [rows[number] for number in numbers] == ["CLOSING"] * 3 + ["CLOSED"] * 3


async def test_while_the_hosted_gateway_is_away_orders_paid_at_wechat_are_found(
    open_shop: OpenShop, pg: Postgres, audit: Audit
) -> None:
    shop = await open_shop(faults=LOST)  # nothing listens at its hosted gateway's address
    offers = await unpaid(shop, 6)
    last = [*offers][-1]
    assert await shop.pay(offers[last]) in PAYS
    await pg.execute(LATE)
    await pg.execute("UPDATE orders SET asked_at = now() - interval '2 minutes' WHERE id = $1", last)

    assert await ask_about_all(shop) == 6, "those before it went without an answer from one of the two"

    assert await shop.status(last) == "PAID"
    assert [(await record(pg, order_id)).status for order_id in offers] == ["PENDING_PAYMENT"] * 5 + ["PAID"]
    await audit(shop.road)


# --- jobs: a few at once, and on connections of their own ---------------------------------------------------------


async def a_few_at_once(holds: Sequence[Hold], job: asyncio.Future[int]) -> int:
    """How many calls are under way at WeChat before the first is answered; then all are, and the job ends."""
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait(
            [job, asyncio.gather(*(hold.accepted.wait() for hold in holds[:ASKED_AT_ONCE_MAX]))],
            return_when=asyncio.FIRST_COMPLETED,
        )
    await asyncio.sleep(0.1)  # one more would be on its way by now
    under_way = sum(hold.accepted.is_set() for hold in holds)
    for hold in holds:
        hold.release.set()
    assert await job == len(holds)
    return under_way


async def test_the_jobs_ask_wechat_about_a_few_at_once_and_not_about_all(
    open_shop: OpenShop, pg: Postgres
) -> None:
    shop = await open_shop(faults=LOST, gateway_url="", gateway_secrets=())
    offers = await unpaid(shop, ASKED_AT_ONCE_MAX + 2)
    await pg.execute(LATE)
    for call in ("query", "close"):
        holds = [shop.wechat.hold_next(call) for _ in offers]
        if call == "close":
            for order_id in offers:
                assert (await shop.cancel(order_id)).status == 200
            job = asyncio.ensure_future(shop.road.parts.jobs_paying.provider.close_ended())
        else:
            job = asyncio.ensure_future(ask_about_all(shop))

        assert await a_few_at_once(holds, job) == ASKED_AT_ONCE_MAX > 1, call


async def test_the_jobs_close_and_settle_while_requests_have_taken_all_their_connections(
    open_shop: OpenShop, pg: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "CLOSE_POLL_S", 0.1)
    monkeypatch.setattr(loops, "RECONCILE_POLL_S", 0.1)
    shop = await open_shop(faults=LOST, gateway_url="", gateway_secrets=(), postgres_pool=2)
    paid, ended = (await unpaid(shop, 2)).items()
    number = shop.number(ended[0])
    assert await shop.pay(paid[1]) in PAYS
    requests = shop.road.parts.database
    async with requests.connection(), requests.connection():
        await pg.execute(LATE)
        await pg.execute("UPDATE orders SET status = 'CANCELLED', ended_at = now() WHERE id = $1", ended[0])
        await pg.execute("UPDATE payment_attempts SET phase = 'CLOSING' WHERE out_trade_no = $1", number)

        async def done() -> bool:
            phases = [(await record(pg, order_id)).attempts for order_id in (paid[0], ended[0])]
            return phases == [["PAID"], ["CLOSED"]]

        await eventually(done)

    assert shop.state(number) == "CLOSED"


# --- strangers who log in ---------------------------------------------------------------------------------------------


async def test_logins_that_hang_take_no_connection_from_payments_and_are_bounded(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answers = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        asked.append(request.query["js_code"])
        await answers.wait()
        return web.json_response({"errcode": 40029})

    host = web.Application()
    host.router.add_get("/sns/jscode2session", hang)
    shop = await open_shop(faults=LOST)
    product = await shop.road.product()
    await shop.headers("wang")
    assert shop.road.parts.paying.wechat is not None
    door = shop.road.parts.paying.wechat.door
    assert WECHAT_LOGINS_MAX > AT_HTTP_CLIENTS_ALL, "else the bound alone would do"
    monkeypatch.setattr(identity, "WECHAT_LOGINS_MAX", AT_HTTP_CLIENTS_ALL + 5)
    monkeypatch.setattr(sending, "GATEWAY_CALL_S_MAX", PATIENCE_S)  # none is given up before all have come
    monkeypatch.setattr(login, "WECHAT_TOTAL_S_MAX", PATIENCE_S)
    async with (
        serving(host) as url,
        ClientSession(base_url=shop.road.url, connector=TCPConnector(limit=0)) as strangers,
    ):
        monkeypatch.setattr(door._login, "_url", url)

        async def log_in(number: int) -> tuple[int, str]:
            async with strangers.post("auth/wechat/login", json={"code": f"x{number}"}) as answer:
                return answer.status, (await answer.json())["code"]

        flood = [asyncio.create_task(log_in(number)) for number in range(AT_HTTP_CLIENTS_ALL + 5)]

        async def waiting() -> bool:
            return door._waiting == len(flood) and len(asked) >= LOGIN_CONNECTIONS_MAX

        await eventually(waiting)
        await asyncio.sleep(0.3)  # whoever else got a connection would be heard of by now
        made = await shop.order(product)
        one_more = await log_in(-1)
        still_waiting, at_the_host = not any(each.done() for each in flood), len(asked)
        answers.set()
        told = await asyncio.gather(*flood)

    assert still_waiting
    assert at_the_host == LOGIN_CONNECTIONS_MAX
    assert (made.status, made.json["channel"]) == (201, "WECHAT_NATIVE"), made
    assert one_more == (503, "OVERLOADED")
    assert {status for status, _ in told} <= {401, 503}
