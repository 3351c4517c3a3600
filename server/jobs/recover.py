"""What Redis knows and the record has lost: after a restore, or a failover to a Postgres that lagged behind.

The flusher trims what it has written, so when Postgres goes back in time, the entries between are in no stream. But a
ticket's hash at the gate keeps who spent each (QR, function), with event id, scan, place, time and what was left: the
whole of a success, but for its operator. Those that the record lacks are written into it, before a rehydration throws
the hashes away; else a ticket could be used again for each of them. Refusals are not kept there, and are lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import asyncpg
import msgspec
from redis.asyncio import Redis

from server.domain.redemption import SEPARATOR, Verdict, unpack_remaining
from server.hot import keys
from server.hot.stream import Entry
from server.jobs.catch_up import again, read_all
from server.limits import CHECK_PAGE
from server.store import backup, check, event_rows, redemptions
from server.store.pool import Connection, Database
from server.store.redemptions import NotInRecord

_Hash = Mapping[str, str]  # of a ticket at the gate, see `hot/lua/redeem.lua`
UNKNOWN_OPERATOR: Final = "(recovered)"  # no user name may have parentheses
_REFUSED: Final = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, NotInRecord, ValueError)


class LostTicket(msgspec.Struct, frozen=True):
    """A ticket that the gate has and the record does not know: sold after the record ends. People have to decide."""

    ticket_code: str
    buyer_id: str
    functions: str  # as the gate keeps them: code, total and label of each
    remaining: str  # ",bus=2,ferry=0,"


class Recovered(msgspec.Struct):
    """What was found at the gates."""

    redemptions: int = 0  # written into the record
    refused: list[str] = []  # spent at the gate, and the record cannot hold it: event id and reason
    lost: dict[str, LostTicket] = {}  # by code


class _Spent(msgspec.Struct, frozen=True):
    """A success, as the hash of its ticket tells it."""

    event_id: str
    line: str  # as the script had written it to the stream


async def recover(db: Database, redis: Redis) -> Recovered:
    """Write into the record what only the gates know was redeemed. The gates are closed, the streams drained.

    Raises Refusal (REDIS_UNAVAILABLE, POSTGRES_UNAVAILABLE); may then be repeated.
    """
    found = Recovered()
    cursor: Any = 0
    while True:
        page: Any = await again(partial(redis.scan, cursor, match=keys.any_ticket(), count=CHECK_PAGE))
        cursor, names = page
        if names:
            await _recover_page(db, await _hashes(redis, names), found)
        if int(cursor) == 0:
            return found


async def _hashes(redis: Redis, names: Sequence[str]) -> dict[str, _Hash]:
    answers: list[_Hash] = await read_all(redis, lambda pipe: [pipe.hgetall(name) for name in names])
    return {keys.code_of(name): fields for name, fields in zip(names, answers, strict=True)}


async def _recover_page(db: Database, tickets: Mapping[str, _Hash], found: Recovered) -> None:
    async with db.transaction() as connection:
        known = await check.known_codes(connection, list(tickets))
        for code in tickets.keys() - known:
            fields = tickets[code]
            if "e" in fields:  # else it has gone since
                found.lost[code] = LostTicket(code, fields.get("o", ""), fields["e"], fields.get("r", ""))
        spent = [each for code in known for each in _successes(code, tickets[code])]
        there = await backup.known_events(connection, [each.event_id for each in spent])
        missing = sorted(
            (each for each in spent if each.event_id not in there), key=lambda each: each.event_id
        )
        await _write(connection, missing, found)


def _successes(code: str, fields: Mapping[str, str]) -> Iterator[_Spent]:
    for name, told in fields.items():
        if not name.startswith("j:"):
            continue
        jti, _, function = name[2:].rpartition(":")
        event_id, scan_id, place, remaining, decided_ms = told.split(SEPARATOR)
        status = "ACTIVE" if any(unpack_remaining(remaining).values()) else "REDEEMED"
        parts = (
            str(int(Verdict.SUCCESS)), code, function, status, remaining, "", decided_ms, jti, scan_id,
            decided_ms, UNKNOWN_OPERATOR, place,
        )  # fmt: skip
        yield _Spent(event_id, SEPARATOR.join(parts))


async def _write(connection: Connection, spent: Sequence[_Spent], found: Recovered) -> None:
    """All at once; when the record refuses, one after the other, so that only what it refuses is left out."""
    if not spent:
        return
    try:
        async with connection.transaction():
            for shard in sorted({_shard(each) for each in spent}):
                entries = [_entry(each) for each in spent if _shard(each) == shard]
                await redemptions.insert(connection, event_rows.read(shard, entries))
        found.redemptions += len(spent)
    except _REFUSED as fault:
        if len(spent) == 1:
            reason = getattr(fault, "constraint_name", None) or type(fault).__name__
            found.refused.append(f"{spent[0].event_id}: {reason}")
            return
        for each in spent:
            await _write(connection, [each], found)


def _shard(spent: _Spent) -> int:
    return int(spent.event_id.partition("-")[0])


def _entry(spent: _Spent) -> Entry:
    return Entry(spent.event_id.partition("-")[2], spent.line)
