"""`gateline check`: Redis and Postgres held against every invariant (README, "Invariants"), while they work.

What is exact, and what it costs:

- What Postgres alone must keep is read in snapshots, page by page: exact, and never in flight.
- What Redis and Postgres must agree on is compared page by page; what differs is looked at again, alone, three times,
  with Postgres read between two readings of Redis and after the flusher's cursor has passed (`catch_up.py`). Only what
  differs in all three looks is a breach. So nothing under way is ever reported, and a breach always is, with one limit:
  on a product that is being bought at this very moment, a drift of its counts by no more than what is bought during a
  look cannot be told from those purchases. The next check tells.
- Nothing is sampled: every order, ticket, hold, verdict kept by Redis and untrimmed stream entry is looked at. What is
  made while the check runs may or may not be. Redis is walked with SCAN, so `looked_at` may count a key twice.
- When the gates are closed, or flusher or outbox do not catch up in 10 s, what depends on them is `undecided`.
- Memory holds one page at a time (`limits.CHECK_PAGE`): a million tickets take minutes, of which Redis works seconds,
  some ms at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from redis.asyncio import Redis

from server.hot import keys
from server.hot.epoch import Epochs
from server.hot.stream import Streams
from server.jobs.catch_up import CatchUp, again
from server.jobs.check_record import Progress, check_record
from server.jobs.check_stock import StockCheck
from server.jobs.check_tickets import TicketCheck
from server.jobs.check_verdicts import VerdictCheck
from server.jobs.findings import Finding, Tally
from server.limits import CHECK_PAGE
from server.store.pool import Database

Page = Callable[[Sequence[str]], Awaitable[None]]  # looks at a page of order ids, product ids or codes


def _silent(what: str, number: int) -> None:
    """No progress shown."""


async def check(
    db: Database, redis: Redis, streams: Streams, epochs: Epochs, shards: int, progress: Progress = _silent
) -> list[Finding]:
    """Hold both databases against every rule; nothing is changed. One finding per rule, clean ones included.

    `db`: the pool for long calls. `progress` hears what is being looked at, and how many more were.
    Raises Refusal (REDIS_UNAVAILABLE, POSTGRES_UNAVAILABLE) when either is away.
    """
    catch_up = CatchUp(db, streams, epochs, keys.streams(shards))
    money = Tally("6-integer", "Money is integer fen: every column, and every order behind a hold")
    stock = StockCheck(db, redis, catch_up, money)
    gate = TicketCheck(db, redis, catch_up, shards)
    verdicts = VerdictCheck(db, redis, streams, catch_up, shards)

    behind = await catch_up.settle()
    caught_up = Tally("caught-up", "Gates are open; flusher and outbox are at most 10 s behind")
    caught_up.looked(len(epochs.names) + len(keys.streams(shards)) + 1)
    caught_up.undecided(*behind)

    tallies = await check_record(db, money, progress)
    between = [*stock.tallies, *gate.tallies, *verdicts.tallies]
    if await catch_up.open():
        await verdicts.streams()
        await stock.products()
        await stock.pending(progress)
        await gate.recorded(progress)
        await verdicts.said(progress)
        await _walk(redis, _pages(stock, gate, shards), progress)
    else:
        for tally in between:
            tally.undecided("the gates are closed: Redis is not loaded")
    findings = [tally.finding() for tally in (caught_up, *tallies, money, *between)]
    return sorted(findings, key=lambda finding: (not finding.invariant[0].isdigit(), finding.invariant))


def _pages(stock: StockCheck, gate: TicketCheck, shards: int) -> Mapping[str, Page]:
    """How key names begin, and who looks at such keys."""
    a_product = keys.stock(0)
    pages: dict[str, Page] = {keys.hold(""): stock.holds, a_product[:-1]: stock.stocks}
    for shard in range(shards):
        pages[keys.ticket(shard, "")] = gate.at_gate
    return pages


async def _walk(redis: Redis, pages: Mapping[str, Page], progress: Progress) -> None:
    """Walk once through all keys, handing each kind on in pages, without what their names begin with."""
    gathered: dict[str, set[str]] = {prefix: set() for prefix in pages}
    cursor: Any = 0
    while True:
        found_now: Any = await again(partial(redis.scan, cursor, count=CHECK_PAGE))
        cursor, names = found_now
        for name in names:
            prefix, subject = _split(name)
            if prefix in gathered:
                gathered[prefix].add(subject)
        done = int(cursor) == 0
        for prefix, found in gathered.items():
            while len(found) >= CHECK_PAGE or (found and done):
                page = [found.pop() for _ in range(min(len(found), CHECK_PAGE))]
                await pages[prefix](page)
        progress("keys of Redis", len(names))
        if done:
            return


def _split(name: str) -> tuple[str, str]:
    """`{s00}:t:CODE` -> `{s00}:t:`, `CODE`."""
    tag, _, rest = name.partition(":")
    kind, _, subject = rest.partition(":")
    return f"{tag}:{kind}:", subject
