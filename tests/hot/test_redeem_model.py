"""Redemption against a model: any tickets, QRs, functions, gates and repeats, several of them in one script call.

Every step goes through `Redeemer` to the script on a real Valkey. Every verdict must be the model's, every repeat the
first verdict byte for byte, and the stream must hold exactly what was decided.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from server.config import Ack
from server.domain.errors import ErrorCode, Refusal
from server.domain.redemption import (
    WHERE_SEPARATOR,
    Decision,
    EntitlementLeft,
    Scan,
    Undecided,
    Verdict,
    pack_remaining,
)
from server.domain.tickets import SpentQr, Ticket, TicketStatus, gate_hash
from server.hot import keys
from server.hot.connection import connect
from server.hot.epoch import Epochs
from server.hot.loading import Loading
from server.hot.redeem import Redeemer
from server.hot.scripts import ScriptRunner
from server.hot.stream import ORIGIN, Streams
from server.hot.tickets import GateTickets

T = TypeVar("T")
SHARDS = 2
PLAIN, DATED, VOID, UNKNOWN = "PLAIN", "DATED", "VOID", "UNKNOWN"
FUNCTIONS = ("bus", "us")  # names that contain one another must not be taken for one another
DATES = (datetime.fromtimestamp(1.5, UTC), datetime.fromtimestamp(2.5, UTC))
MOMENTS_MS = (1_499, 1_500, 2_499, 2_500)

SCAN = st.builds(
    Scan,
    scan_id=st.sampled_from([f"s{number}" for number in range(12)]),
    ticket_code=st.sampled_from((PLAIN, PLAIN, PLAIN, PLAIN, DATED, DATED, VOID, UNKNOWN)),
    function_code=st.sampled_from((*FUNCTIONS, *FUNCTIONS, "b", "ferry")),
    jti=st.sampled_from([f"q{number}" for number in range(6)]),
    at_ms=st.sampled_from(MOMENTS_MS),
    operator=st.sampled_from(("gina", "gus")),
    venue_code=st.sampled_from(("pier", "")),
    terminal_device_id=st.just("gate-7"),
    ruled=st.sampled_from(
        (*[None] * 8, Verdict.QR_EXPIRED, Verdict.WRONG_VENUE_FUNCTION, Verdict.TICKET_NOT_FOUND)
    ),
)
LANES = st.sampled_from(  # told at once, uploaded later, uploaded too late
    [
        {"uploaded": False, "outside_window": False},
        {"uploaded": True, "outside_window": False},
        {"uploaded": True, "outside_window": True},
    ]
)
ANY_SCAN = st.builds(lambda scan, lane: msgspec.structs.replace(scan, **lane), SCAN, LANES)


@dataclass
class Model:
    """What the gate is supposed to say. Verdicts are kept as the gate gave them, to be compared with repeats."""

    tickets: dict[str, Ticket]
    uses: Counter[tuple[str, str]] = field(default_factory=Counter)  # left per (ticket, function)
    at_gate: set[str] = field(default_factory=set)
    open: bool = True
    told: dict[tuple[int, str], Decision] = field(default_factory=dict)  # by shard and scan_id
    spent: dict[tuple[str, str, str], tuple[Scan, Decision]] = field(default_factory=dict)

    def judge(self, scan: Scan) -> Undecided | Decision | tuple[Verdict, str]:
        """No decision, an earlier decision again, or a new verdict with the ticket's status."""
        told = self.told.get((shard(scan), scan.scan_id))
        if not self.open:
            return Undecided.GATE_CLOSED
        if told is not None:
            same = (told.ticket_code, told.function_code) == (scan.ticket_code, scan.function_code)
            if not same:
                return Undecided.SCAN_ID_CONFLICT
            known = not told.event_id or scan.ticket_code in self.at_gate
            return told if known else Undecided.TICKET_ABSENT  # its terms stand in the ticket's hash
        if scan.ruled is not None and not scan.ruled.names_ticket:
            return Undecided.OUTSIDE_WINDOW if scan.outside_window else (scan.ruled, "")
        if scan.ticket_code not in self.at_gate:
            return Undecided.OUTSIDE_WINDOW if scan.outside_window else Undecided.TICKET_ABSENT
        spent = self.spent.get((scan.ticket_code, scan.jti, scan.function_code))
        if spent and spent[0].scan_id == scan.scan_id:
            return spent[1]
        if scan.outside_window:
            return Undecided.OUTSIDE_WINDOW
        return self.verdict(scan, spent is not None)

    def verdict(self, scan: Scan, spent: bool) -> tuple[Verdict, str]:
        status = self.status(scan)
        usable = status in ("ACTIVE", "REDEEMED")
        if scan.ruled is not None:
            return scan.ruled, status
        if not usable:
            return Verdict.TICKET_NOT_VALID, status
        if scan.function_code not in FUNCTIONS:
            return Verdict.WRONG_FUNCTION, status
        if spent:
            return Verdict.ALREADY_REDEEMED, status
        if not self.uses[scan.ticket_code, scan.function_code]:
            return Verdict.NO_REMAINING, status
        self.uses[scan.ticket_code, scan.function_code] -= 1
        return Verdict.SUCCESS, self.status(scan)

    def status(self, scan: Scan) -> str:
        ticket = self.tickets[scan.ticket_code]
        if ticket.status is TicketStatus.VOID:
            return "VOID"
        if ticket.valid_from and scan.at_ms < ticket.valid_from.timestamp() * 1000:
            return "NOT_YET_VALID"
        if ticket.valid_until and scan.at_ms >= ticket.valid_until.timestamp() * 1000:
            return "EXPIRED"
        return "ACTIVE" if any(self.uses[ticket.code, function] for function in FUNCTIONS) else "REDEEMED"

    def remaining(self, code: str) -> str:
        return pack_remaining([(function, self.uses[code, function]) for function in FUNCTIONS])

    def hash_of(self, code: str) -> list[str]:
        """The ticket as the record would load it now."""
        left = tuple(
            EntitlementLeft(
                each.function_code, each.label, each.total_uses, self.uses[code, each.function_code]
            )
            for each in self.tickets[code].entitlements
        )
        spent = [
            SpentQr(jti, function, told.event_id, scan.scan_id, place(scan), told.remaining, told.decided_ms)
            for (of, jti, function), (scan, told) in self.spent.items()
            if of == code
        ]
        return gate_hash(msgspec.structs.replace(self.tickets[code], entitlements=left), spent)


def shard(scan: Scan) -> int:
    return keys.shard_of(scan.ticket_code, SHARDS)


def place(scan: Scan) -> str:
    return scan.venue_code + WHERE_SEPARATOR + scan.terminal_device_id


def ticket(code: str, uses: tuple[int, ...]) -> Ticket:
    dated = code == DATED
    return Ticket(
        code=code,
        order_id="order",
        position=0,
        unit=1,
        buyer_id="demo:ann",
        product_id=1,
        product_name="Island day",
        status=TicketStatus.VOID if code == VOID else TicketStatus.ACTIVE,
        valid_from=DATES[0] if dated else None,
        valid_until=DATES[1] if dated else None,
        issued_at=DATES[0],
        entitlements=tuple(
            EntitlementLeft(function, f"票 {function}", total, total)
            for function, total in zip(FUNCTIONS, uses, strict=True)
        ),
    )


class RedeemMachine(RuleBasedStateMachine):
    """Steps against Valkey and against the model."""

    presented = Bundle("presented")  # scans that were, to be repeated

    def __init__(self, redis_url: str) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.redis = connect(redis_url)
        self.runner = ScriptRunner(self.redis, Ack.MEMORY)
        self.redeemer = Redeemer(self.runner, SHARDS)
        self.gate = GateTickets(self.redis, self.runner, SHARDS)
        self.streams = Streams(self.redis)
        self.model = Model({})
        self.events: list[list[tuple[Decision, str]]] = [[] for _ in range(SHARDS)]

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    def teardown(self) -> None:
        self.run(self.runner.aclose())
        self.run(self.redis.aclose(close_connection_pool=True))
        self.loop.close()

    @initialize(uses=st.tuples(*(st.integers(1, 2) for _ in FUNCTIONS)))
    def begin(self, uses: tuple[int, ...]) -> None:
        self.run(self.redis.flushdb())
        self.open()
        self.model.tickets = {code: ticket(code, uses) for code in (PLAIN, DATED, VOID)}
        self.model.uses = Counter(
            {
                (c, each.function_code): each.total_uses
                for c, t in self.model.tickets.items()
                for each in t.entitlements
            }
        )
        self.load([*self.model.tickets], replace=False)

    def open(self) -> None:
        for number in range(SHARDS):
            self.run(self.redis.set(keys.epoch(number), f"run {SHARDS}"))

    async def rehydrate(self, hashes: dict[str, list[str]]) -> None:
        loading = Loading(self.redis, self.runner, Epochs(self.redis, SHARDS), SHARDS)
        await loading.begin()
        await loading.tickets(hashes)
        await loading.finish("run")

    def load(self, codes: list[str], *, replace: bool) -> None:
        hashes = {code: self.model.hash_of(code) for code in codes}
        self.run(self.rehydrate(hashes) if replace else self.gate.load_absent(hashes))
        self.model.at_gate |= set(codes)
        self.model.open |= replace  # a rehydration ends with open gates

    @rule(target=presented, scans=st.lists(ANY_SCAN, min_size=1, max_size=8))
    def scan(self, scans: list[Scan]) -> Any:
        """All at once: those of one shard are one call of the script, judged in this order."""
        self.redeem(scans)
        return multiple(*scans)

    @rule(
        scans=st.lists(presented, min_size=1, max_size=4),
        at_ms=st.sampled_from(MOMENTS_MS),
        ruled=st.sampled_from((None, Verdict.QR_EXPIRED)),
        jti=st.sampled_from((None, "another")),
        lane=LANES,
    )
    def repeat(
        self, scans: list[Scan], at_ms: int, ruled: Verdict | None, jti: str | None, lane: dict[str, bool]
    ) -> None:
        """What was presented before comes again, later: the same scan_id, whatever is ruled about it now."""
        changed = [
            msgspec.structs.replace(each, at_ms=at_ms, ruled=ruled, jti=jti or each.jti, **lane)
            for each in scans
        ]
        self.redeem([*scans, *changed])

    def redeem(self, scans: list[Scan]) -> None:

        async def redeem() -> list[str | Undecided]:
            return await asyncio.gather(*(self.redeemer.redeem(each) for each in scans))

        for scan, answer in zip(scans, self.run(redeem()), strict=True):
            expected = self.model.judge(scan)
            if isinstance(expected, Undecided):
                assert answer is expected
            elif isinstance(expected, Decision):
                assert answer == expected.line_without_terms() + expected.terms
            else:
                assert isinstance(answer, str)
                self.new_verdict(scan, *expected, Decision.parse(answer))

    def new_verdict(self, scan: Scan, verdict: Verdict, status: str, told: Decision) -> None:
        code = scan.ticket_code
        recorded = verdict.names_ticket
        first = self.model.spent.get((code, scan.jti, scan.function_code))
        assert told == Decision(
            verdict=verdict,
            event_id=told.event_id,
            ticket_code=code,
            function_code=scan.function_code,
            ticket_status=status,
            remaining=self.model.remaining(code) if recorded else "",
            first=f"{first[1].event_id}{WHERE_SEPARATOR}{place(first[0])}"
            if first and verdict is Verdict.ALREADY_REDEEMED
            else "",
            decided_ms=told.decided_ms,
            terms=gate_hash(self.model.tickets[code], [])[1] if recorded else "",
        )
        assert told.event_id.startswith(f"{shard(scan):02d}-") if recorded else told.event_id == ""
        self.model.told[shard(scan), scan.scan_id] = told
        if verdict is Verdict.SUCCESS:
            self.model.spent[code, scan.jti, scan.function_code] = (scan, told)
        if recorded:
            self.events[shard(scan)].append((told, _line(scan, told)))

    @rule(scan=presented)
    def the_day_of_a_scan_ends(self, scan: Scan) -> None:
        """A refusal will be judged anew."""
        self.forget(scan)

    def forget(self, scan: Scan) -> None:
        for said in keys.said(shard(scan)):
            self.run(self.redis.hdel(said, scan.scan_id))
        self.model.told.pop((shard(scan), scan.scan_id), None)

    @rule(number=st.integers(0, 9), at_ms=st.sampled_from(MOMENTS_MS))
    def a_success_is_asked_for_again_after_its_day(self, number: int, at_ms: int) -> None:
        """The QR remembers whose it was."""
        passed = [scan for scan, _ in self.model.spent.values()]
        if passed:
            scan = passed[number % len(passed)]
            self.forget(scan)
            self.redeem([msgspec.structs.replace(scan, at_ms=at_ms, ruled=Verdict.QR_EXPIRED), scan])

    @rule(code=st.sampled_from((PLAIN, DATED, VOID)))
    def lose_a_ticket(self, code: str) -> None:
        self.run(self.redis.delete(keys.ticket(keys.shard_of(code, SHARDS), code)))
        self.model.at_gate.discard(code)

    @rule(dated=st.booleans())
    def load_everything(self, dated: bool) -> None:
        """Rehydration: what the record says holds, also that a ticket's dates are no more."""
        dates = DATES if dated else (None, None)
        self.model.tickets[DATED] = msgspec.structs.replace(
            self.model.tickets[DATED], valid_from=dates[0], valid_until=dates[1]
        )
        self.load([*self.model.tickets], replace=True)

    @rule()
    def load_what_is_absent(self) -> None:
        """The record is behind: what it says of a ticket that is at the gate must change nothing."""
        untouched = {code: gate_hash(each, []) for code, each in self.model.tickets.items()}
        current = {
            code: untouched[code] if code in self.model.at_gate else self.model.hash_of(code)
            for code in untouched
        }
        try:
            self.run(self.gate.load_absent(current))
        except Refusal as refusal:
            assert refusal.code is ErrorCode.GATE_CLOSED and not self.model.open
        else:
            assert self.model.open
            self.model.at_gate |= set(current)

    @rule(epoch=st.sampled_from((None, f"run {SHARDS + 1}", f"run {SHARDS} shut")))
    def close_or_open(self, epoch: str | None) -> None:
        """Closed is a gate that is not loaded, loaded for another number of shards, or shut."""
        self.model.open = not self.model.open
        if self.model.open:
            self.open()
            return
        for number in range(SHARDS):
            if epoch is None:
                self.run(self.redis.delete(keys.epoch(number)))
            else:
                self.run(self.redis.set(keys.epoch(number), epoch))

    @invariant()
    def the_gate_has_of_a_ticket_what_the_record_would_load(self) -> None:
        for code in self.model.tickets:
            fields = self.model.hash_of(code) if code in self.model.at_gate else []
            found: Any = self.run(self.redis.hgetall(keys.ticket(keys.shard_of(code, SHARDS), code)))
            assert found == dict(zip(fields[::2], fields[1::2], strict=True))

    @invariant()
    def the_streams_have_every_decision_once_and_in_order(self) -> None:
        for number in range(SHARDS):
            entries = self.run(self.streams.read(keys.redemptions(number), ORIGIN, 1_000))
            assert [(f"{number:02d}-{entry.id}", entry.body) for entry in entries] == [
                (told.event_id, line) for told, line in self.events[number]
            ]

    @invariant()
    def nothing_is_spent_beyond_what_was_sold(self) -> None:
        successes = Counter(
            (told.ticket_code, told.function_code)
            for events in self.events
            for told, _ in events
            if told.verdict is Verdict.SUCCESS
        )
        for code, sold in self.model.tickets.items():
            for each in sold.entitlements:
                spent = successes[code, each.function_code]
                assert spent == each.total_uses - self.model.uses[code, each.function_code] >= 0


def _line(scan: Scan, told: Decision) -> str:
    """What the stream has of a decision: the parts that `server/store/event_rows.py` reads."""
    decided = (
        int(told.verdict),
        told.ticket_code,
        told.function_code,
        told.ticket_status,
        told.remaining,
        told.first,
    )
    place = scan.venue_code + WHERE_SEPARATOR + scan.terminal_device_id
    presented = (scan.jti, scan.scan_id, scan.at_ms, scan.operator, place, *([1] if scan.uploaded else []))
    return "\t".join(map(str, (*decided, told.decided_ms, *presented)))


@pytest.mark.timeout(400)  # a failure is first made small, for up to 300 s
def test_redemption_behaves_as_its_model_through_repeats_losses_and_loading(redis_url: str) -> None:
    run_state_machine_as_test(
        lambda: RedeemMachine(redis_url),
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
