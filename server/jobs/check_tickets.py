"""The rules of tickets, between the gate (Redis) and the record (Postgres)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from redis.asyncio import Redis

from server.domain.redemption import unpack_remaining
from server.domain.tickets import SpentQr, Ticket, gate_hash
from server.hot import keys
from server.jobs.catch_up import CatchUp, Faults, confirm, read_all
from server.jobs.findings import Tally
from server.limits import CHECK_PAGE, SCAN_REPLAY_S
from server.store import check, tickets
from server.store.pool import Database

Hash = Mapping[str, str]  # fields of a ticket at the gate, see `hot/lua/redeem.lua`; empty: it is not there
_FACTS: Final = {"e": "functions", "o": "owner", "s": "status", "a": "valid from", "z": "valid until"}
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
# QRs spent within the last day must be known at the gate, less a minute: loading looks back a day from ITS moment.
_MUST_KNOW_MS: Final = (SCAN_REPLAY_S - 60) * 1000


class _Record(msgspec.Struct, frozen=True):
    """Tickets of one snapshot of the record."""

    tickets: list[Ticket]
    spent: dict[str, list[SpentQr]]
    untold: set[str]  # codes of which the gate is yet to be told


class TicketCheck:
    """Holds the tickets at the gate against the record."""

    def __init__(self, db: Database, redis: Redis, catch_up: CatchUp, shards: int) -> None:
        self._db = db
        self._redis = redis
        self._catch_up = catch_up
        self._shards = shards
        self._there = Tally("3-ticket-at-gate", "Every ticket of the record is at the gate")
        self._known = Tally("3-ticket-in-record", "Every ticket at the gate is in the record")
        self._facts = Tally(
            "3-ticket-facts", "Functions, owner, status and validity at the gate are the record's"
        )
        self._uses = Tally(
            "3-remaining-equal", "What remains on a ticket at the gate is what the record says"
        )
        self._spent = Tally("4-spent", "The QRs spent at the gate are the successes of the record")
        self.tallies = [self._there, self._known, self._facts, self._uses, self._spent]

    async def recorded(self, progress: Callable[[str, int], None]) -> None:
        """Every ticket of the record, page by page."""
        after = ""
        while True:
            async with self._db.connection() as connection:
                codes = await tickets.codes_page(connection, after, CHECK_PAGE)
            if not codes:
                return
            hashes = await self._hashes(codes)
            suspects = self._judge(await self._read(codes), hashes, hashes)
            for tally in (self._there, self._facts, self._uses):
                tally.looked(len(codes))
            self._spent.looked(sum(1 for fields in hashes.values() for name in fields if name[:2] == "j:"))
            await confirm(suspects, self._look)
            progress("tickets at the gate", len(codes))
            after = codes[-1]

    async def at_gate(self, codes: Sequence[str]) -> None:
        """Tickets that Redis has. Each was loaded from the record, so the record knows it at any moment."""
        async with self._db.connection() as connection:
            known = await check.known_codes(connection, codes)
        self._known.looked(len(codes))
        self._known.breach(*(f"ticket {code}: unknown to the record" for code in codes if code not in known))

    async def _look(self, codes: Sequence[str]) -> Faults | None:
        """Gate, record, gate: what the record says lies between the two, which are equal when nothing happens."""
        before = await self._hashes(codes)
        streams = {keys.redemptions(keys.shard_of(code, self._shards)) for code in codes}
        if not await self._catch_up.passed(await self._catch_up.note(streams)):
            return None
        record = await self._read(codes)
        faults = self._judge(record, before, await self._hashes(codes))
        return faults if await self._catch_up.open() else None

    async def _hashes(self, codes: Sequence[str]) -> dict[str, Hash]:
        names = [keys.ticket(keys.shard_of(code, self._shards), code) for code in codes]
        answers: list[Hash] = await read_all(self._redis, lambda pipe: [pipe.hgetall(name) for name in names])
        return dict(zip(codes, answers, strict=True))

    async def _read(self, codes: Sequence[str]) -> _Record:
        async with self._db.transaction(read_only=True) as connection:
            return _Record(
                await tickets.get_many(connection, codes),
                await tickets.spent_qrs(connection, codes, _BEGINNING),
                await check.told_about(connection, codes),
            )

    def _judge(self, record: _Record, before: Mapping[str, Hash], after: Mapping[str, Hash]) -> Faults:
        faults: Faults = {}
        for ticket in record.tickets:
            code = ticket.code
            first, last = before[code], after[code]
            if not first and not last and code not in record.untold:
                faults[self._there, code] = f"ticket {code}: the gate does not have it"
            if not first or not last:  # just loaded, or about to be
                continue
            spent = record.spent.get(code, [])
            packed = gate_hash(ticket, spent)
            expected = list(zip(packed[::2], packed[1::2], strict=True))
            for tally, wrong in (
                (self._facts, [] if code in record.untold else _facts(dict(expected), last)),
                (self._uses, _uses(ticket, first, last)),
                (self._spent, _spent(expected, spent, first, last)),
            ):
                if text := "; ".join(wrong):
                    faults[tally, code] = f"ticket {code}: {text}"
        return faults


def _facts(expected: Hash, fields: Hash) -> Iterator[str]:
    for name, meaning in _FACTS.items():
        if fields.get(name) != expected.get(name):
            yield f"{meaning}: {fields.get(name)!r} at the gate, {expected.get(name)!r} in the record"


def _uses(ticket: Ticket, before: Hash, after: Hash) -> Iterator[str]:
    """Uses only become fewer, and the record follows the gate: it lies between the earlier and the later look."""
    try:
        most, least = unpack_remaining(before.get("r", "")), unpack_remaining(after.get("r", ""))
    except ValueError:
        yield f"the gate cannot read {after.get('r')!r}"
        return
    recorded = {left.function_code: left.remaining_uses for left in ticket.entitlements}
    if not recorded.keys() == most.keys() == least.keys():
        yield f"the gate has {sorted(least)}, the record {sorted(recorded)}"
        return
    for function, uses in recorded.items():
        if not least[function] <= uses <= most[function]:
            yield f"{function}: {least[function]} left at the gate, {uses} in the record"


def _spent(
    expected: Sequence[tuple[str, str]], spent: Sequence[SpentQr], before: Hash, after: Hash
) -> Iterator[str]:
    """What was spent at the gate is recorded once the record has caught up; what is recorded was spent at the gate."""
    recorded = set(expected)
    for name, told in before.items():
        if name.startswith("j:") and (name, told) not in recorded:
            found = "otherwise" if name in dict(expected) else "not"
            yield f"QR and function {name[2:]} spent at the gate, {found} in the record"
    oldest_ms = datetime.now(UTC).timestamp() * 1000 - _MUST_KNOW_MS
    for qr in spent:
        if qr.decided_ms >= oldest_ms and f"j:{qr.jti}:{qr.function_code}" not in after:
            yield f"QR {qr.jti} spent on {qr.function_code} in the record, unknown at the gate"
