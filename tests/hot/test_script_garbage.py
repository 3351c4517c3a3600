"""The Lua scripts, given what nobody packs: they end at once, and a script that fails has done nothing of it.

What our packers send is tested against models (`test_redeem_model.py`, `test_stock_model.py`). Redis undoes nothing
of a script that fails, so each must look at everything before it writes. `redeem` judges a batch: what it decided
before the bad scan stands, and must be whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.exceptions import ResponseError

from server.app import open_parts
from server.config import Config
from server.domain.catalog import Terms
from server.domain.orders import NewOrder, OrderLine
from server.domain.redemption import Verdict
from server.hot import keys
from server.hot.scripts import LUA_DIR, Script

RUN_S_MAX = 30.0  # an honest call takes under 2 ms: what takes longer would never end
ORDERLY = settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
)
TICKETS = {
    "GOOD": {"e": "bus\x1f2\x1fBus\x1e", "r": ",bus=2,ferry=9,", "o": "ann"},
    "SPENT": {"e": "bus\x1f1\x1fBus\x1e", "r": ",bus=0,ferry=0,", "o": "ann"},
    "DATED": {"e": "bus\x1f1\x1fBus\x1e", "r": ",bus=1,", "o": "ann", "a": "1000", "z": "2000"},
    "BROKEN": {"e": "bus\x1f1\x1fBus\x1e", "r": ",bus=x,ferry,", "o": "ann", "a": "soon"},
}
HOLDS = ("first", "second")

WORD = st.one_of(
    st.integers(-3, 3).map(str),
    st.sampled_from(
        [
            "0",
            "nan",
            "inf",
            "-inf",
            "1e3",
            "1e308",
            "0x10",
            "1.5",
            "-0",
            " 1",
            "1 ",
            "9" * 30,
            "1" * 400,
            "true",
        ]
    ),
    st.sampled_from(
        [
            "0 1 1;",
            "0 9 1;1 1 1;",
            "0 9 1;0 9 1;",
            "0 1",
            ";;;",
            "7 1 1;",
            "0 -1 1;",
            "0 1.5 1;",
            "{}",
            "\x00",
            "é",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t"), min_size=1, max_size=8),
)
SPOIL = st.lists(
    st.tuples(st.sampled_from(["replace", "drop", "insert", "double", "cut"]), st.integers(0, 60), WORD),
    min_size=1,
    max_size=3,
)
Spoil = list[tuple[str, int, str]]


def spoilt(given: list[str], spoil: Spoil, *, first: int = 0) -> list[str]:
    """The list with some of it changed, from `first` on."""
    changed, rest = given[:first], given[first:]
    for how, place, word in spoil:
        at = place % len(rest) if rest else 0
        if how == "insert" or not rest:
            rest.insert(at, word)
        elif how == "replace":
            rest[at] = word
        elif how == "drop":
            del rest[at]
        elif how == "double":
            rest.insert(at, rest[at])
        else:
            del rest[at:]
    return changed + rest


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, decode_responses=True, socket_timeout=RUN_S_MAX) as connected:
        yield connected


def set_the_scene(client: Redis) -> None:
    """One shard and stock, both open, with something of everything."""
    with client.pipeline() as pipe:
        pipe.flushdb()
        pipe.set(keys.epoch(0), "run 1")
        pipe.set(keys.STOCK_EPOCH, "run 1")
        pipe.set(keys.loading("s00"), "token")
        for code, fields in TICKETS.items():
            pipe.hset(keys.ticket(0, code), mapping=fields)
        for product, reserved in ((1, 5), (2, 0)):
            pipe.hset(keys.stock(product), mapping={"sellable": 20, "reserved": reserved, "sold": 3})
        pipe.hset(keys.stock(3), mapping={"sellable": 20, "reserved": "many", "sold": 0})
        for order_id in HOLDS:
            pipe.hset(keys.hold(order_id), "deadline_ms", "1")
        pipe.set("a string", "no hash")
        pipe.execute()


def everything(client: Redis) -> dict[str, Any]:
    """Every key with what is in it."""
    read: dict[str, Callable[[str], Any]] = {
        "string": client.get,
        "hash": client.hgetall,
        "stream": client.xrange,
    }
    return {name: read[client.type(name)](name) for name in client.scan_iter()}


def run(client: Redis, script: Script, names: list[str], args: list[str]) -> bool:
    """Whether the script did its work; False: it failed, and Redis lives."""
    try:
        client.eval(script.text, len(names), *names, *args)
    except ResponseError:
        return False
    finally:
        assert client.ping()  # it would be busy, and the connection's bound be over
    return True


# --- All or nothing -----------------------------------------------------------------------------------------

HASH = ["2", "e", "x"]
HONEST: dict[str, tuple[list[str], list[str]]] = {
    "cap": ([keys.STOCK_EPOCH, keys.stock(1)], ["30"]),
    "commit": ([keys.hold("first"), keys.stock(1), keys.stock(2)], ["2", "1"]),
    "release": ([keys.hold("first"), keys.stock(1), keys.stock(2)], ["2", "1"]),
    "load": (
        [keys.epoch(0), keys.ticket(0, "A"), keys.ticket(0, "B")],
        ["1", *HASH, "4", "e", "x", "r", "y"],
    ),
    "limit": (
        [keys.tries("gina", "a"), keys.tries_of_account("gina"), keys.tries_from("a")],
        [
            "1",
            "5",
            "60000",
            "1000",
            "60000",
            "0",
            "20",
            "60000",
            "1000",
            "60000",
            "1",
            "100",
            "6000",
            "1000",
            "60000",
            "0",
        ],
    ),
    "shut": ([keys.epoch(0)], ["2"]),
    "fill": ([keys.loading("s00"), keys.ticket(0, "A"), keys.ticket(0, "GOOD")], ["token", *HASH, *HASH]),
}
NAMES = st.sampled_from(
    [
        keys.stock(1),
        keys.stock(3),
        keys.stock(9),
        keys.hold("second"),
        keys.ticket(0, "GOOD"),
        "a string",
        "none",
    ]
)


def test_every_script_gets_garbage() -> None:
    assert sorted([*HONEST, "hold", "redeem"]) == sorted(path.stem for path in LUA_DIR.glob("*.lua"))


@pytest.mark.parametrize("name", sorted(HONEST))
def test_what_our_packer_sends_is_done(client: Redis, name: str) -> None:
    set_the_scene(client)
    before = everything(client)
    assert run(client, Script(name), *HONEST[name])
    assert everything(client) != before


@pytest.mark.parametrize("name", sorted(HONEST))
def test_a_script_that_fails_has_done_nothing(client: Redis, name: str) -> None:
    script = Script(name)
    outcomes: Counter[bool] = Counter()

    @ORDERLY
    @given(
        args=st.just([]) | SPOIL,
        names=st.just([]) | SPOIL,
        strange=st.none() | st.tuples(st.integers(1, 3), NAMES),
    )
    def garbage(args: Spoil, names: Spoil, strange: tuple[int, str] | None) -> None:
        honest_names, honest_args = HONEST[name]
        given_names = spoilt(honest_names, names, first=1)
        if strange is not None:
            given_names[strange[0] % len(given_names)] = strange[1]
        set_the_scene(client)
        before = everything(client)
        done = run(client, script, given_names, spoilt(honest_args, args))
        outcomes[done] += 1
        assert done or everything(client) == before
        if name == "cap" and done:
            assert all((client.hget(keys.stock(each), "sellable") or "0").isdigit() for each in (1, 3))

    garbage()
    assert min(outcomes[True], outcomes[False]) > 10, outcomes


# --- Hold: never more than there is --------------------------------------------------------------------------


class Packer:
    """Keeps what a script would be given."""

    async def run(self, script: Script, names: Sequence[str], args: Sequence[str | int]) -> list[Any]:
        self.names, self.args = list(names), [str(arg) for arg in args]
        return []


async def packed_holds(config: Config, number: int) -> Packer:
    """Orders of two products, as they are packed for one call."""
    packer = Packer()
    when = datetime(2030, 1, 1, tzinfo=UTC)
    lines = tuple(
        OrderLine(product, qty, 0, Terms(name="x", functions=())) for product, qty in ((1, 2), (2, 1))
    )
    orders = [
        NewOrder(
            order_id=f"o{each}", buyer_id="ann", idempotency_key=f"k{each}", payload_hash="hash", total_fen=0,
            created_at=when, expires_at=when, lines=lines,
        )
        for each in range(number)
    ]  # fmt: skip
    async with open_parts(config) as parts:
        parts.stock._runner = packer  # type: ignore[assignment]
        await parts.stock._hold([(order, (True, True)) for order in orders])
    return packer


ARGS_OF_AN_ORDER = 5  # its lines are the last
LINES = st.lists(
    st.builds("{} {} {};".format, st.integers(0, 2), st.integers(0, 12), st.sampled_from([1, 1, 1, 0])),
    max_size=3,
).map("".join)


async def test_whatever_lines_are_held_nothing_is_oversold_and_a_hold_that_fails_holds_nothing(
    client: Redis, config: Config
) -> None:
    packed = [await packed_holds(config, number) for number in range(1, 5)]
    script = Script("hold")
    outcomes: Counter[bool] = Counter()

    @ORDERLY
    @given(
        orders=st.integers(1, 4),
        words=st.lists(st.tuples(st.integers(0, 3), st.integers(0, ARGS_OF_AN_ORDER - 1), WORD), max_size=3),
        lines=st.lists(st.tuples(st.integers(0, 3), LINES), max_size=4),
        bound=st.none() | st.tuples(st.integers(0, 2), WORD),
    )
    def garbage(
        orders: int,
        words: list[tuple[int, int, str]],
        lines: list[tuple[int, str]],
        bound: tuple[int, str] | None,
    ) -> None:
        names, args = packed[orders - 1].names, list(packed[orders - 1].args)
        if bound is not None:
            args[bound[0]] = bound[1]
        for order, field, word in [*words, *((order, 0, text) for order, text in lines)]:
            args[-1 - (order % orders * ARGS_OF_AN_ORDER + field)] = word
        set_the_scene(client)
        before = everything(client)
        done = run(client, script, names, args)
        outcomes[done] += 1
        after = everything(client)
        assert done or after == before
        for product in (1, 2):
            level = {field: int(units) for field, units in after[keys.stock(product)].items()}
            assert level["reserved"] >= 0 and level["reserved"] + level["sold"] <= level["sellable"]

    garbage()
    assert outcomes[True] > 50, outcomes


# --- Redeem: each scan whole or not at all -------------------------------------------------------------------

SHARED = [keys.epoch(0), keys.redemptions(0), *keys.said(0)]


def scan_args(number: int, code: str, function: str) -> list[str]:
    return [code, function, f"j{number}", f"s{number}", "0", "1500", "gina", "pier\x1f7", ""]


SCANS = st.lists(
    st.tuples(
        st.sampled_from([*TICKETS, "GOOD", "GOOD", "NONE"]), st.sampled_from(["bus", "bus", "ferry", "us"])
    ),
    min_size=1,
    max_size=5,
)


def test_each_scan_of_a_batch_is_decided_recorded_and_remembered_or_none_of_it(client: Redis) -> None:
    script = Script("redeem")
    outcomes: Counter[bool] = Counter()

    @ORDERLY
    @given(
        scans=SCANS,
        args=st.just([]) | SPOIL,
        turn=st.sampled_from(["90000"] * 6 + ["0", "-1", "x", "1.5", "nan", "inf"]),
        extra=st.lists(NAMES, max_size=2),
    )
    def garbage(scans: list[tuple[str, str]], args: Spoil, turn: str, extra: list[str]) -> None:
        set_the_scene(client)
        honest = [arg for number, scan in enumerate(scans) for arg in scan_args(number, *scan)]
        names = [*SHARED, *(keys.ticket(0, code) for code, _ in scans), *extra]
        outcomes[run(client, script, names, ["1", turn, *spoilt(honest, args)])] += 1
        whole(client)

    garbage()
    assert min(outcomes[True], outcomes[False]) > 10, outcomes


def whole(client: Redis) -> None:
    """Every verdict in the stream was told to its scan; every success is spent, and nothing else is."""
    told: dict[str, str] = {}
    for name in keys.said(0):
        told |= {scan_id: line for scan_id, line in client.hgetall(name).items() if scan_id}
    passed: Counter[str] = Counter()  # by function: which ticket's key came with a code is the packer's word
    recorded = set()
    for entry_id, fields in client.xrange(keys.redemptions(0)):
        verdict, code, function, _, _, _, _, _, scan_id, *_ = fields["d"].split("\t")
        event_id = f"00-{entry_id}"
        assert told[scan_id].startswith(f"{verdict}\t{event_id}\t{code}\t{function}\t")
        recorded.add(event_id)
        passed[function] += verdict == str(int(Verdict.SUCCESS))
    assert {line.split("\t")[1] for line in told.values()} - {""} == recorded
    spent: Counter[str] = Counter()
    used: Counter[str] = Counter()
    for code, before in TICKETS.items():
        ticket = client.hgetall(keys.ticket(0, code))
        for field, value in ticket.items():
            if field.startswith("j:"):
                assert value.split("\t")[0] in recorded
                spent[field.rpartition(":")[2]] += 1
        for function in ("bus", "ferry"):
            used[function] += uses(before["r"], function) - uses(ticket["r"], function)
    assert +passed == +spent == +used


def uses(remaining: str, function: str) -> int:
    found = re.search(rf",{function}=(\d+)", remaining)
    return int(found[1]) if found else 0
