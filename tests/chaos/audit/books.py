"""Everything that is held against everything else: the record, the gate, and the diaries, read once all is quiet."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from redis.asyncio import Redis

Row = dict[str, Any]
PAGE = 500  # keys of Redis that are read at a time
# Of every table in which something was promised to somebody.
QUESTIONS = {
    "orders": "SELECT * FROM orders",
    "lines": "SELECT order_id, position, product_id, qty, unit_price_fen FROM order_lines",
    "payments": "SELECT * FROM payments",
    "tickets": "SELECT * FROM tickets",
    "entitlements": "SELECT * FROM entitlements",
    "events": "SELECT * FROM redemption_events",
    "products": "SELECT id, sku, price_fen, sellable FROM products",
    "cursors": "SELECT stream, last_id FROM stream_cursors",
    "letters": "SELECT stream, entry_id, reason FROM dead_letters",
    "outbox": "SELECT id, kind, subject FROM outbox",
    "money": "SELECT table_name, column_name, data_type FROM information_schema.columns "
    "WHERE table_schema = 'public' AND column_name LIKE '%\\_fen'",
}


@dataclass
class Command:
    """One command of one client: every intent, and every answer, in the order of the diary."""

    kind: str
    id: str
    who: str
    intents: list[Row] = field(default_factory=list)
    answers: list[Row] = field(default_factory=list)  # status, body

    def bodies(self, *statuses: int) -> list[Any]:
        """What was told with one of these statuses."""
        return [answer["body"] for answer in self.answers if answer["status"] in statuses]


@dataclass
class Books:
    """The record by table, Redis by kind of key, and the commands of the clients by kind and id."""

    record: dict[str, list[Row]]
    stock: dict[int, dict[str, int]] = field(default_factory=dict)  # product id -> sellable, reserved, sold
    gate: dict[str, dict[str, str]] = field(default_factory=dict)  # ticket code -> its hash
    said: dict[str, str] = field(default_factory=dict)  # scan_id -> the line that is told again
    holds: set[str] = field(default_factory=set)  # order ids
    last_ids: dict[str, str] = field(default_factory=dict)  # stream -> last-generated id
    closed: list[str] = field(default_factory=list)  # slots whose gate is not open
    commands: dict[tuple[str, str], Command] = field(default_factory=dict)

    def of(self, *kinds: str) -> Iterable[Command]:
        """Every command of these kinds."""
        return (command for (kind, _), command in self.commands.items() if kind in kinds)

    def table(self, name: str, key: str) -> dict[Any, Row]:
        """Rows of a table by a unique column."""
        return {row[key]: row for row in self.record[name]}

    def grouped(self, name: str, *key: str) -> dict[Any, list[Row]]:
        """Rows of a table by columns that are not unique."""
        groups: defaultdict[Any, list[Row]] = defaultdict(list)
        for row in self.record[name]:
            groups[row[key[0]] if len(key) == 1 else tuple(row[each] for each in key)].append(row)
        return groups


async def read_books(database_url: str, redis_url: str, diaries: Path) -> Books:
    """Read all three. Raises what asyncpg and redis-py raise when a database is away."""
    pg = await asyncpg.connect(database_url)
    try:
        async with pg.transaction(isolation="repeatable_read", readonly=True):
            record = await read_record(pg)
    finally:
        await pg.close()
    books = Books(record)
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        await read_redis(redis, books)
    books.commands = read_diaries(diaries)
    return books


async def read_record(pg: asyncpg.Connection[Any]) -> dict[str, list[Row]]:
    """Every table, as it stands in the transaction that was begun."""
    return {name: [dict(row) for row in await pg.fetch(sql)] for name, sql in QUESTIONS.items()}


async def read_redis(redis: Redis, books: Books) -> None:
    """Every key that the rules speak of."""
    async for page in _pages(redis):
        async with redis.pipeline(transaction=False) as pipe:
            for _, _, name in page:
                pipe.hgetall(name)
            hashes = await pipe.execute()
        for (kind, subject, _), hashed in zip(page, hashes, strict=True):
            if kind == "p":
                books.stock[int(subject)] = {field: int(number) for field, number in hashed.items()}
            elif kind == "t":
                books.gate[subject] = hashed
            elif kind == "said":
                books.said |= hashed
            else:
                books.holds.add(subject)
    for row in books.record["cursors"]:
        if await redis.exists(row["stream"]):
            books.last_ids[row["stream"]] = (await redis.xinfo_stream(row["stream"]))["last-generated-id"]
    for slot in sorted({row["stream"].partition(":")[0] for row in books.record["cursors"]}):
        epoch = await redis.get(f"{slot}:epoch")
        if epoch is None or not epoch[-1:].isdigit():
            books.closed.append(slot)


async def _pages(redis: Redis) -> AsyncIterator[list[tuple[str, str, str]]]:
    """Hashes, a few hundred at a time: (kind, subject, name), as in `{slot}:kind:subject`."""
    page = []
    async for name in redis.scan_iter(count=PAGE):
        kind, _, subject = name.partition("}:")[2].partition(":")
        if kind in ("p", "t", "said", "o"):
            page.append((kind, subject, name))
        if len(page) >= PAGE:
            yield page
            page = []
    yield page


def read_diaries(folder: Path) -> dict[tuple[str, str], Command]:
    """Every client's file. A line that is cut off, by whatever ended the harness, is the last one of its file."""
    commands: dict[tuple[str, str], Command] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for text in file.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            key = (line["kind"], line["id"])
            command = commands.setdefault(key, Command(line["kind"], line["id"], line["who"]))
            if line["said"] == "intent":
                command.intents.append(line)
            elif line["said"] == "answer":
                command.answers.append(line)
    return commands


def ordinal(stream_id: str) -> tuple[int, int]:
    """ "<ms>-<seq>" as numbers, which sort as the stream does."""
    ms, _, seq = stream_id.rpartition("-")
    return int(ms.rpartition("-")[2]), int(seq)
