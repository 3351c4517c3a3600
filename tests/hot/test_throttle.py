"""The bounds on how often, on a real Valkey: who waits how long, and whom others cannot keep waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from server.config import Ack
from server.domain.errors import ErrorCode, Refusal
from server.hot import keys, pace, throttle
from server.hot.connection import connect
from server.hot.pace import LocalBuckets, Pace, steady
from server.hot.scripts import ScriptRunner
from server.hot.throttle import Throttle
from server.limits import (
    INQUIRIES_FREE,
    LOGIN_ACCOUNT_TRIES_FREE,
    LOGIN_ADDRESS_TRIES_FREE,
    LOGIN_DEVICE_TRIES_FREE,
    LOGIN_FORGET_S,
    LOGIN_HELD_REMEMBERED_S,
    LOGIN_HOME_S,
    LOGIN_PAUSE_S_MAX,
    LOGIN_TRIES_FREE,
    QR_SHOWN_FREE,
)
from tests.conftest import redis_given_up_after, redis_held

Act = Callable[[], Awaitable[Any]]


MAKE_OLDER = """
for _, name in ipairs(redis.call('KEYS', '{limits}:*')) do
    local left = redis.call('PTTL', name) - ARGV[1]
    if left <= 0 then
        redis.call('DEL', name)
    else
        redis.call('PEXPIRE', name, left)
        for _, field in ipairs({ 't', 'd' }) do
            if redis.call('TYPE', name).ok == 'hash' and redis.call('HEXISTS', name, field) == 1 then
                redis.call('HINCRBY', name, field, -ARGV[1])
            end
        end
    end
end
"""


class Clock:
    """Lets time pass: Redis's own clock cannot be set, so all that it remembers here is made older."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._passed_s = 0.0

    def now(self) -> float:
        return time.monotonic() + self._passed_s

    async def passes(self, seconds: float) -> None:
        self._passed_s += max(0.0, seconds)  # what the process measures by never goes back
        await self._redis.eval(MAKE_OLDER, 0, int(seconds * 1000))


@pytest.fixture
async def runner(redis_url: str) -> AsyncIterator[ScriptRunner]:
    redis = connect(redis_url)
    running = ScriptRunner(redis, Ack.MEMORY)
    yield running
    await running.aclose()
    await redis.aclose(close_connection_pool=True)


@pytest.fixture
def door(redis: Redis, runner: ScriptRunner, clock: Clock) -> Throttle:
    return Throttle(redis, runner, guests_a_minute_max=60, now=clock.now)


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pause of a login is longer than a busy machine takes for a test."""
    for name in ("_TRIES", "_TRIES_OF_ACCOUNT", "_TRIES_FROM"):
        pace = msgspec.structs.replace(getattr(throttle, name), pause_s_min=30.0)
        monkeypatch.setattr(throttle, name, pace)


@pytest.fixture
def clock(redis: Redis) -> Clock:
    return Clock(redis)


async def wait_s(act: Awaitable[Any]) -> int:
    """The seconds that it is told to wait; 0: it may happen."""
    try:
        await act
    except Refusal as refusal:
        assert refusal.code.status == 429 and refusal.code.transient
        seconds: int = refusal.detail["retry_after_s"]
        assert seconds >= 1
        return seconds
    return 0


async def fails(door: Throttle, times: int, account: str = "gina", address: str = "10.0.0.1") -> None:
    """So many failures, none of them held back."""
    for _ in range(times):
        await door.login(account, address)


# --- One account from one address ---------------------------------------------------------------------------


async def test_the_delay_grows_from_a_second_to_a_minute_and_no_further(door: Throttle, clock: Clock) -> None:
    await fails(door, LOGIN_TRIES_FREE)
    told = []
    for _ in range(12):
        told.append(await wait_s(door.login("gina", "10.0.0.1")))
        await clock.passes(told[-1])
        await door.login("gina", "10.0.0.1")
    assert told == [1, 2, 4, 8, 16, 32, 32, *[60] * 5], "the first were forgotten before it was a minute"
    assert max(told) == LOGIN_PAUSE_S_MAX


async def test_who_is_held_back_is_told_the_time_that_is_left_and_asking_does_not_make_it_longer(
    door: Throttle, clock: Clock
) -> None:
    await fails(door, LOGIN_TRIES_FREE)
    for _ in range(4):
        await clock.passes(await wait_s(door.login("gina", "10.0.0.1")))
        await door.login("gina", "10.0.0.1")
    told = []
    for _ in range(4):
        told.append(await wait_s(door.login("gina", "10.0.0.1")))
        await clock.passes(4)
    assert told == [16, 12, 8, 4]
    assert await wait_s(door.login("gina", "10.0.0.1")) == 0


async def test_failures_are_forgotten(door: Throttle, clock: Clock, redis: Redis) -> None:
    await fails(door, LOGIN_TRIES_FREE)
    await clock.passes(LOGIN_FORGET_S * LOGIN_TRIES_FREE)
    await fails(door, LOGIN_TRIES_FREE)
    assert await wait_s(door.login("gina", "10.0.0.1")) == 1
    await clock.passes(3_600)
    assert [name async for name in redis.scan_iter()] == [], "nothing stays for ever"


async def test_a_login_that_succeeds_makes_the_account_at_home_and_forgets_its_failures(
    door: Throttle, redis: Redis
) -> None:
    for _ in range(4):
        await fails(door, LOGIN_TRIES_FREE - 1)
        attempt = await door.login("gina", "10.0.0.1")
        await attempt.succeeded()
    assert 0 < await redis.ttl(keys.at_home("gina", "10.0.0.1")) <= LOGIN_HOME_S
    # The failures before it was at home still count where strangers' do; the successes do not.
    assert round(float(await redis.hget(keys.tries_of_account("gina"), "n"))) == LOGIN_TRIES_FREE - 1
    assert round(float(await redis.hget(keys.tries_from("10.0.0.1"), "n"))) == LOGIN_TRIES_FREE - 1


@pytest.mark.usefixtures("slowly")
async def test_attempts_of_one_moment_are_counted_before_they_are_looked_at(door: Throttle) -> None:
    told = await asyncio.gather(*(wait_s(door.login("gina", "10.0.0.1")) for _ in range(50)))
    assert told.count(0) == LOGIN_TRIES_FREE
    assert all(20 < each <= 30 for each in told if each)


async def test_what_was_not_decided_is_not_counted(door: Throttle) -> None:
    for _ in range(50):
        attempt = await door.login("gina", "10.0.0.1")
        await attempt.take_back()
    await fails(door, LOGIN_TRIES_FREE)
    assert await wait_s(door.login("gina", "10.0.0.1")) == 1


# --- One account from everywhere ----------------------------------------------------------------------------


async def guessed_at(door: Throttle, number: int = LOGIN_ACCOUNT_TRIES_FREE) -> None:
    """An account is tried from so many addresses, once each."""
    for host in range(number):
        await door.login("gina", f"192.0.2.{host}")


@pytest.mark.usefixtures("slowly")
async def test_guessing_from_many_addresses_slows_every_new_one(door: Throttle, clock: Clock) -> None:
    await guessed_at(door)
    await clock.passes(
        20
    )  # else many addresses that ask right before a pause ends would all be let in with its end
    told = [await wait_s(door.login("gina", f"198.51.100.{host}")) for host in range(30)]
    assert set(told) == {30}, "the whole pause, whenever they come"
    assert await wait_s(door.login("ben", "198.51.100.1")) == 0, "another account"


async def test_where_the_account_logged_in_lately_nobody_elsewhere_can_keep_it_waiting(
    door: Throttle, clock: Clock
) -> None:
    await (await door.login("gina", "10.0.0.1")).succeeded()
    await guessed_at(door)
    assert await wait_s(door.login("gina", "10.0.0.2")) > 0
    assert await wait_s(door.login("gina", "10.0.0.1")) == 0
    await clock.passes(LOGIN_HOME_S)
    await guessed_at(door)
    assert await wait_s(door.login("gina", "10.0.0.1")) > 0, "lately is not for ever"


async def test_who_waits_as_long_as_they_were_told_is_let_in_though_others_ask_all_the_time(
    door: Throttle, clock: Clock
) -> None:
    """Without turns, whoever asks most often would get every place, and staff none."""
    await guessed_at(door)
    for _ in range(6):  # up to a long pause
        await clock.passes(60)
        for host in range(200, 203):
            await wait_s(door.login("gina", f"192.0.2.{host}"))
    told = await wait_s(door.login("gina", "10.0.0.9"))
    assert 1 <= told <= LOGIN_PAUSE_S_MAX
    for second in range(told):
        assert await wait_s(door.login("gina", f"203.0.113.{second}")) > 0
        left = await wait_s(door.login("gina", "10.0.0.9"))
        assert 0 < left <= told - second, "no longer than they were told"
        await clock.passes(1)
    for host in range(50):  # others are faster
        await wait_s(door.login("gina", f"203.0.113.{100 + host}"))
    assert await wait_s(door.login("gina", "10.0.0.9")) == 0
    assert await wait_s(door.login("gina", "10.0.0.9")) > 0, "once"


async def test_many_addresses_gain_one_attempt_each_per_pause(door: Throttle, clock: Clock) -> None:
    await guessed_at(door)
    hosts = [f"203.0.113.{number}" for number in range(20)]
    let_in, seconds = 0, 0
    pauses = []
    while seconds < 600:
        told = [await wait_s(door.login("gina", host)) for host in hosts]
        let_in += told.count(0)
        step = max(1, min(told))
        pauses.append(max(told))
        await clock.passes(step)
        seconds += step
    assert max(pauses) == LOGIN_PAUSE_S_MAX
    assert let_in <= len(hosts) * (600 / LOGIN_PAUSE_S_MAX + 6), "as fast as the pause grows, and not faster"


# --- On a known device ----------------------------------------------------------------------------------------


async def test_whoever_hammers_at_an_account_from_its_own_address_keeps_no_known_device_waiting(
    door: Throttle, clock: Clock
) -> None:
    await (await door.login("gina", "10.0.0.1", "device")).succeeded()
    await fails(door, LOGIN_TRIES_FREE)
    let_in = 0
    for _ in range(360):
        let_in += await wait_s(door.login("gina", "10.0.0.1")) == 0
        assert await wait_s(door.login("gina", "10.0.0.1")) > 0, "without the device she waits"
        attempt = await door.login("gina", "10.0.0.1", "device")
        assert attempt.known
        await attempt.succeeded()
        await clock.passes(1)
    assert let_in <= 12, "and who hammers gains nothing by it"


async def test_wrong_passwords_on_a_known_device_use_up_its_own_tries_alone(
    door: Throttle, clock: Clock
) -> None:
    for _ in range(LOGIN_DEVICE_TRIES_FREE):
        assert (await door.login("gina", "10.0.0.1", "stolen")).known
    for _ in range(LOGIN_TRIES_FREE):
        assert not (await door.login("gina", "10.0.0.1", "stolen")).known, "from now on as a stranger"
    assert await wait_s(door.login("gina", "10.0.0.1", "stolen")) > 0
    assert (await door.login("gina", "10.0.0.1", "hers")).known
    assert (await door.login("ben", "10.0.0.1", "stolen")).known, "each account for itself"
    await clock.passes(LOGIN_FORGET_S)
    assert (await door.login("gina", "10.0.0.1", "stolen")).known
    assert not (await door.login("gina", "10.0.0.1", "stolen")).known, "one is forgotten in a minute"


async def test_a_login_that_succeeds_on_a_device_forgets_what_failed_on_it(door: Throttle) -> None:
    for _ in range(4):
        for _ in range(LOGIN_DEVICE_TRIES_FREE - 1):
            await door.login("gina", "10.0.0.1", "device")
        await (await door.login("gina", "10.0.0.1", "device")).succeeded()


# --- Held back, and let go ------------------------------------------------------------------------------------


async def test_who_was_just_told_to_wait_is_refused_without_redis(
    door: Throttle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    run = ScriptRunner.run

    async def counting(*given: Any) -> Any:
        nonlocal asked
        asked += 1
        return await run(*given)

    monkeypatch.setattr(throttle, "_TRIES", Pace(LOGIN_TRIES_FREE, 60, 30, 60))
    await fails(door, LOGIN_TRIES_FREE)
    monkeypatch.setattr(ScriptRunner, "run", counting)
    told = [await wait_s(door.login("gina", "10.0.0.1")) for _ in range(100)]
    assert all(20 < each <= 30 for each in told)
    assert asked <= 5, "about once a second"
    before = asked
    assert await wait_s(door.login("ben", "10.0.0.1")) == 0, "only this account is known to wait there"
    await clock.passes(LOGIN_HELD_REMEMBERED_S)
    assert await wait_s(door.login("gina", "10.0.0.1")) > 20
    assert asked == before + 2


async def test_those_who_wait_are_remembered_in_bounded_memory(
    door: Throttle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "LOGINS_HELD_MAX", 10)
    monkeypatch.setattr(throttle, "_TRIES_FROM", Pace(1, 60, 30, 60))
    await door.login("name", "10.0.0.1")
    for number in range(50):
        assert await wait_s(door.login(f"name-{number}", "10.0.0.1")) > 0
        assert len(door._held) <= 10


@pytest.mark.usefixtures("slowly")
async def test_an_account_is_forgiven_by_hand_wherever_it_failed(door: Throttle, clock: Clock) -> None:
    await fails(door, LOGIN_TRIES_FREE)
    await guessed_at(door, LOGIN_ACCOUNT_TRIES_FREE - LOGIN_TRIES_FREE)
    for address in ("10.0.0.1", "192.0.2.1", "198.51.100.1"):
        assert await wait_s(door.login("gina", address)) > 0
    await fails(door, LOGIN_TRIES_FREE, account="ginas-friend")
    await door.forgive("gina")
    await clock.passes(LOGIN_HELD_REMEMBERED_S)
    for address in ("10.0.0.1", "192.0.2.1", "198.51.100.1"):
        assert await wait_s(door.login("gina", address)) == 0
    assert await wait_s(door.login("ginas-friend", "10.0.0.1")) > 0, "that one alone"


# --- Many accounts from one address -------------------------------------------------------------------------


async def test_a_shift_that_logs_in_behind_one_address_is_never_held_back(door: Throttle) -> None:
    async def comes(name: str, wrong: int) -> None:
        for _ in range(wrong):
            await door.login(name, "10.0.0.1")
        await (await door.login(name, "10.0.0.1")).succeeded()

    await asyncio.gather(*(comes(f"day-{number}", wrong=number % 3) for number in range(50)))
    for number in range(200):
        await comes(f"night-{number}", wrong=0)


@pytest.mark.usefixtures("slowly")
async def test_guessing_at_many_accounts_slows_the_address_and_not_those_at_home_there(
    door: Throttle, redis: Redis
) -> None:
    await (await door.login("gina", "10.0.0.1")).succeeded()
    for number in range(LOGIN_ADDRESS_TRIES_FREE):
        await door.login(f"name-{number}", "10.0.0.1")
    before = await redis.dbsize()
    told = [await wait_s(door.login(f"more-{number}", "10.0.0.1")) for number in range(200)]
    assert all(10 < each <= 30 for each in told)
    assert await redis.dbsize() == before, "what is refused costs no memory"
    assert await wait_s(door.login("more-1", "10.0.0.2")) == 0
    assert await wait_s(door.login("gina", "10.0.0.1")) == 0


async def test_an_address_that_goes_on_guessing_gets_ten_attempts_a_minute(
    door: Throttle, clock: Clock
) -> None:
    for number in range(LOGIN_ADDRESS_TRIES_FREE):
        await door.login(f"name-{number}", "10.0.0.1")
    let_in, seconds = 0, 0
    while seconds < 600:
        told = await wait_s(door.login(f"slow-{seconds}", "10.0.0.1"))
        let_in += told == 0
        await clock.passes(told)
        seconds += told
    assert let_in <= 120, "ten a minute, and what the first pauses let through"


# --- Steady bounds ------------------------------------------------------------------------------------------


async def test_a_steady_bound_lets_so_many_at_once_and_then_one_in_so_many_seconds(
    door: Throttle, clock: Clock
) -> None:
    told = [await wait_s(door.qr("T1")) for _ in range(QR_SHOWN_FREE + 20)]
    assert told == [0] * QR_SHOWN_FREE + [2] * 20
    assert await wait_s(door.qr("T2")) == 0
    shown = 0
    for _ in range(60):
        await clock.passes(1)
        shown += await wait_s(door.qr("T1")) == 0
    assert shown == 30


async def test_a_device_that_renews_each_minute_is_never_held_back(door: Throttle, clock: Clock) -> None:
    for _ in range(120):
        await clock.passes(50)
        for _ in range(4):  # on four devices
            assert await wait_s(door.qr("T1")) == 0


async def test_guests_are_bounded_by_address_as_configured(
    door: Throttle, redis: Redis, runner: ScriptRunner
) -> None:
    assert [await wait_s(door.guest("10.0.0.1")) for _ in range(63)] == [0] * 60 + [1] * 3
    assert await wait_s(door.guest("10.0.0.2")) == 0
    unbounded = Throttle(redis, runner)
    assert {await wait_s(unbounded.guest("10.0.0.1")) for _ in range(200)} == {0}


async def test_codes_that_wechat_takes_are_not_counted(
    door: Throttle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "_CODES", steady(3, 1))
    for _ in range(20):
        await (await door.wechat_code("10.0.0.1")).take_back()
    told = [await wait_s(door.wechat_code("10.0.0.1")) for _ in range(5)]
    assert told == [0, 0, 0, 1, 1]


# --- Clocks and outages -------------------------------------------------------------------------------------


async def test_a_clock_that_goes_back_keeps_nobody_waiting_longer_than_a_pause(
    door: Throttle, clock: Clock
) -> None:
    await fails(door, LOGIN_TRIES_FREE)
    await guessed_at(door, LOGIN_ACCOUNT_TRIES_FREE - LOGIN_TRIES_FREE)
    assert await wait_s(door.login("gina", "10.0.0.9")) > 0
    await clock.passes(-86_400)  # all that is known is of tomorrow
    for address in ("10.0.0.1", "10.0.0.9"):
        told = await wait_s(door.login("gina", address))
        assert 1 <= told <= LOGIN_PAUSE_S_MAX
        await clock.passes(told)
        assert await wait_s(door.login("gina", address)) == 0


async def test_where_redis_is_away_each_process_counts_for_itself(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "_CODES", steady(3, 1))
    monkeypatch.setattr(throttle, "_SHOWN", steady(3, 2))
    away = connect("redis://127.0.0.1:1")
    door = Throttle(away, ScriptRunner(away, Ack.MEMORY), guests_a_minute_max=3, now=clock.now)

    def local(limit: str) -> float:
        return REGISTRY.get_sample_value("gateline_limited_total", {"limit": limit, "outcome": "local"}) or 0

    before = {limit: local(limit) for limit in ("login", "guest", "qr", "query", "wechat_code")}
    assert [await wait_s(door.guest("10.0.0.1")) for _ in range(5)] == [0, 0, 0, 20, 20]
    assert [await wait_s(door.qr("T1")) for _ in range(4)] == [0, 0, 0, 2]
    assert [await wait_s(door.inquiry("O1")) for _ in range(INQUIRIES_FREE + 1)][-2:] == [0, 2]
    for _ in range(5):
        await (await door.wechat_code("10.0.0.1")).take_back()
    for _ in range(3 * LOGIN_TRIES_FREE):
        await (await door.login("gina", "10.0.0.1")).succeeded()
    await fails(door, LOGIN_TRIES_FREE)
    told = []
    for _ in range(8):
        told.append(await wait_s(door.login("gina", "10.0.0.1")))
        await clock.passes(told[-1])
        await door.login("gina", "10.0.0.1")
    assert told == [1, 2, 4, 8, 16, 32, 32, 60]
    await guessed_at(door)
    assert await wait_s(door.login("gina", "10.0.0.2")) == 0, "nobody elsewhere keeps her waiting"
    assert all(local(limit) > was for limit, was in before.items())
    await away.aclose(close_connection_pool=True)


async def test_where_redis_is_slow_logins_are_refused_and_buyers_are_not(
    door: Throttle, redis: Redis
) -> None:
    """Whoever can make us slow must not guess in each process anew; but a code must be shown at the gate."""
    for opens in (door.login("gina", "10.0.0.1"), door.qr("T1")):
        await opens  # connections are there
    acts = (
        door.login("gina", "10.0.0.1"),
        door.login("gina", "10.0.0.1", "device"),
        door.guest("10.0.0.1"),
        door.qr("T1"),
        door.inquiry("O1"),
        door.wechat_code("10.0.0.1"),
    )
    async with redis_held(redis):
        with redis_given_up_after(0.5):
            told = await asyncio.gather(*acts, return_exceptions=True)
    assert [isinstance(each, Refusal) and each.code for each in told[:2]] == [ErrorCode.REDIS_UNAVAILABLE] * 2
    assert not any(isinstance(each, BaseException) for each in told[2:])
    assert len(door._here._levels) == 4, "counted here"


def test_what_a_process_counts_for_itself_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "LOCAL_BUCKETS_MAX", 100)
    here = LocalBuckets(lambda: 0.0)
    for number in range(1_000):
        assert here.count([(f"name-{number}", steady(1, 60))]) == 0
        assert len(here._levels) <= 100
    assert here.count([("name-999", steady(1, 60))]) == 60
    assert here.count([("name-0", steady(1, 60))]) == 0, "the oldest are forgotten"


async def test_a_redis_that_takes_no_writes_keeps_no_staff_out(door: Throttle, redis: Redis) -> None:
    await redis.config_set("maxmemory", 1)
    try:
        for _ in range(10):
            await (await door.login("gina", "10.0.0.1")).succeeded()
    finally:
        await redis.config_set("maxmemory", 0)


def test_every_pause_is_at_most_a_minute() -> None:
    paces = [each for each in vars(throttle).values() if isinstance(each, Pace)]
    assert len(paces) == 7
    assert all(each.pause_s_max <= 60 for each in paces)
    assert all(one.arguments() != other.arguments() for one, other in pairwise(paces))
    assert {ErrorCode[name].status for name in vars(ErrorCode) if name.startswith("TOO_MANY_")} == {429}
