"""Who a buyer is in each app at WeChat."""

from __future__ import annotations

from typing import Final

from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("identities")


async def openid_of(connection: Connection, buyer_id: str, appid: str) -> str | None:
    """The buyer's openid in this app; None: they never logged in from there."""
    openid: str | None = await connection.fetchval(_Q["openid_of"], buyer_id, appid)
    return openid


async def buyer_of(
    connection: Connection, appid: str, openid: str, unionid: str | None, new_buyer_id: str
) -> str:
    """Whose identity this is: known, known by the unionid in another app, or from now on `new_buyer_id`.

    In a transaction: two first logins of one person, from two apps at once, are one after the other.
    """
    if unionid is not None:
        await connection.execute(_Q["lock_person"], unionid)
    buyer_id: str = await connection.fetchval(_Q["buyer_of_identity"], appid, openid, unionid, new_buyer_id)
    return buyer_id
