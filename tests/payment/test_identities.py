"""Logins of one person that come at the same moment: one buyer, whichever app was first, and nobody else waits."""

from __future__ import annotations

import asyncio
from typing import Any

from server.store import identities
from tests.payment.record import Postgres
from tests.payment.shop import Shop
from tests.road import Answer

FIRST = "wx:first"


async def amid_a_first_login(shop: Shop, openid: str, environment: str) -> tuple[Answer, Answer]:
    """Wang logs in from this app, and Li from the same one, while a first login of Wang's is not written yet.

    That one is from the Mini Program, as `openid`. What Wang and Li are told.
    """
    wechat = shop.wechat
    unionid = wechat._people.unionid("wang")
    async with shop.road.parts.database.transaction() as connection:
        mini = wechat.keys.miniprogram_appid
        assert await identities.buyer_of(connection, mini, openid, unionid, FIRST) is not None
        wang = asyncio.create_task(shop.log_in("wang", environment))
        li = await shop.log_in("li", environment)
        await asyncio.wait({wang}, timeout=0.3)  # time to do it wrongly
    return await wang, li


async def rows(pg: Postgres) -> list[tuple[Any, ...]]:
    """(appid, openid, buyer) of all identities."""
    return [tuple(row) for row in await pg.fetch("SELECT appid, openid, buyer_id FROM wechat_identities")]


async def test_two_first_logins_at_once_from_two_apps_are_one_buyer(shop: Shop, pg: Postgres) -> None:
    keys = shop.wechat.keys
    openid = shop.wechat.openid("wang", keys.miniprogram_appid)

    wang, li = await amid_a_first_login(shop, openid, "wechat")

    assert (wang.status, wang.json["buyer_id"]) == (200, FIRST), wang
    assert (li.status, li.json["buyer_id"] != FIRST) == (200, True), "whose login did not wait for Wang's"
    assert set(await rows(pg)) == {
        (keys.miniprogram_appid, openid, FIRST),
        (keys.appid, shop.wechat.openid("wang", keys.appid), FIRST),
        (keys.appid, shop.wechat.openid("li", keys.appid), li.json["buyer_id"]),
    }


async def test_two_openids_of_one_person_at_once_in_one_app_are_both_let_in(shop: Shop, pg: Postgres) -> None:
    """An app that was handed to another owner has new openids for everyone, and old ones are still about."""
    browser = await shop.log_in("wang", "wechat")

    wang, li = await amid_a_first_login(shop, "o-of-the-owner-before", "miniprogram")

    assert (wang.status, li.status) == (200, 200), wang
    buyers = {openid: buyer for _, openid, buyer in await rows(pg)}
    mini = shop.wechat.keys.miniprogram_appid
    assert buyers["o-of-the-owner-before"] == browser.json["buyer_id"], "one openid for each buyer and app"
    assert buyers[shop.wechat.openid("wang", mini)] == wang.json["buyer_id"] != browser.json["buyer_id"]


async def test_first_logins_by_the_dozen_make_one_buyer_of_each_person(shop: Shop, pg: Postgres) -> None:
    people = [f"person-{number}" for number in range(6)]

    answers = await asyncio.gather(
        *(shop.log_in(user, app) for user in people for app in ("miniprogram", "wechat", "miniprogram"))
    )

    assert {each.status for each in answers} == {200}
    assert await pg.fetchval("SELECT count(DISTINCT buyer_id) FROM wechat_identities") == len(people)
    assert await pg.fetchval("SELECT count(*) FROM wechat_identities") == 2 * len(people)
