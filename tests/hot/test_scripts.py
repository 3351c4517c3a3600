"""Running scripts on connections of our own: nobody ever gets another's answer, whatever breaks in between."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from yarl import URL

from server.config import Ack
from server.dev.embedded import EmbeddedValkey
from server.domain.errors import ErrorCode, Refusal
from server.hot import scripts
from server.hot.connection import CONNECTIONS_MAX, connect
from server.hot.scripts import Script, ScriptRunner


class Echo(Script):
    """A script of the test: says what it was given, and counts how often it ran."""

    def __init__(self, text: str = "redis.call('INCR', KEYS[1]) return {ARGV[1], KEYS[1]}") -> None:
        self.name = "echo"
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


ECHO = Echo()


@asynccontextmanager
async def runner(url: str, ack: Ack = Ack.MEMORY) -> AsyncIterator[ScriptRunner]:
    redis = connect(url)
    running = ScriptRunner(redis, ack)
    try:
        yield running
    finally:
        await running.aclose()
        await redis.aclose(close_connection_pool=True)


async def asked(running: ScriptRunner, word: str) -> list[str] | None:
    """The answer, which is the asker's own; None when it was refused."""
    try:
        answer: list[str] = await running.run(ECHO, [f"k:{word}"], [word])
    except Refusal as refusal:
        assert refusal.code is ErrorCode.REDIS_UNAVAILABLE
        return None
    assert answer == [word, f"k:{word}"], "another's answer"
    return answer


async def ask_many(running: ScriptRunner, number: int) -> list[list[str] | None]:
    return await asyncio.gather(*(asked(running, uuid4().hex) for _ in range(number)))


class Proxy:
    """Between us and Redis: answers pass when they are let, whole or in parts, or not at all."""

    def __init__(self, url: str) -> None:
        self._address = URL(url)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.delay_s = 0.0
        self.part: int | None = None  # so many bytes at once, the rest after `delay_s`
        self.made = 0

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return str(self._address.with_port(port))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        assert self._address.host is not None
        there, back = await asyncio.open_connection(self._address.host, self._address.port)
        self._writers += [writer, back]
        for task in (
            asyncio.create_task(self._pipe(reader, back, slow=False)),
            asyncio.create_task(self._pipe(there, writer, slow=True)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, slow: bool) -> None:
        try:
            while data := await source.read(65_536):
                if slow and self.delay_s:
                    now = data[: self.part or 0]
                    if now:
                        sink.write(now)
                    await asyncio.sleep(self.delay_s)
                    data = data[len(now) :]
                sink.write(data)
        except OSError:
            pass
        finally:
            sink.close()


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    between = Proxy(redis_url)
    yield between, await between.start()
    await between.stop()


class Bound:
    """How long a call may take: by default longer than any does here."""

    seconds = 10.0

    @contextmanager
    def of(self, seconds: float) -> Iterator[None]:
        """So short for a while that a test can wait for it."""
        self.seconds, before = seconds, self.seconds
        yield
        self.seconds = before


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> Bound:
    original, bound = scripts.ask, Bound()

    async def ask(call: Any) -> Any:
        return await original(call, seconds=bound.seconds)

    monkeypatch.setattr(scripts, "ask", ask)
    return bound


# --- Whose answer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [None, 1, 5, 20], ids=lambda part: f"{part} bytes first")
async def test_answers_that_come_past_the_bound_reach_nobody_else(
    proxy: tuple[Proxy, str], bound: Bound, part: int | None
) -> None:
    """The answers that were given up come while the next calls run: on whose connection, must not matter."""
    between, url = proxy
    async with runner(url) as running:
        assert None not in await ask_many(running, 50)
        for _ in range(4):
            between.delay_s, between.part = 0.12, part
            with bound.of(0.1):
                assert await ask_many(running, 40) == [None] * 40
            between.delay_s = 0.0
            assert None not in await ask_many(running, 100)


async def test_delays_about_as_long_as_the_bound_mix_no_answers(
    proxy: tuple[Proxy, str], bound: Bound
) -> None:
    """Some answers come just before the end, some just after, some in the same turn of the loop."""
    between, url = proxy
    async with runner(url) as running:
        outcomes = []
        for step in range(21):
            between.delay_s = 0.1 + step * 0.005
            with bound.of(0.2):
                outcomes += await ask_many(running, 20)
            between.delay_s = 0.0
            assert None not in await ask_many(running, 20)
        assert None in outcomes and any(outcomes)


async def test_callers_that_are_cancelled_at_any_moment_leave_no_answer_behind(redis_url: str) -> None:
    async with runner(redis_url) as running:
        for turns in range(60):
            tasks = [asyncio.create_task(asked(running, uuid4().hex)) for _ in range(5)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            kept = await asyncio.gather(*tasks[1::2])
            assert None not in kept
            await asyncio.gather(*tasks, return_exceptions=True)
            assert all(task.cancelled() or task.result() for task in tasks)
        assert None not in await ask_many(running, 100)


async def test_connections_cut_in_the_middle_are_replaced_and_no_answer_is_mixed(
    proxy: tuple[Proxy, str],
) -> None:
    between, url = proxy
    async with runner(url) as running:
        for turn in range(30):
            asking = asyncio.create_task(ask_many(running, 40))
            await asyncio.sleep(0.0005 * turn)
            between.cut()
            await asking
        assert None not in await ask_many(running, 40)


# --- What breaks --------------------------------------------------------------------------------------------


async def test_scripts_that_redis_forgets_under_load_are_sent_again(redis_url: str, redis: Redis) -> None:
    async with runner(redis_url) as running:
        ended = False

        async def forget() -> None:
            while not ended:
                await redis.script_flush()
                await asyncio.sleep(0)

        forgetting = asyncio.create_task(forget())
        for _ in range(10):
            assert None not in await ask_many(running, 40)
        ended = True
        await forgetting


async def test_connections_that_died_while_idle_cost_the_caller_nothing(
    proxy: tuple[Proxy, str], redis: Redis
) -> None:
    between, url = proxy
    async with runner(url) as running:
        assert None not in await ask_many(running, 40)
        between.cut()
        assert None not in await ask_many(running, 40)
        await redis.client_kill_filter(_type="normal", skipme=True)
        assert None not in await ask_many(running, 40)


async def test_an_error_of_a_script_leaves_the_connection_as_good_as_before(proxy: tuple[Proxy, str]) -> None:
    between, url = proxy
    broken = Echo("return redis.call('HGET', KEYS[1])")
    async with runner(url) as running:
        for _ in range(5):
            with pytest.raises(Refusal) as refused:
                await running.run(broken, ["k"], [])
            assert refused.value.code is ErrorCode.REDIS_UNAVAILABLE
            assert await asked(running, "next")
        assert between.made == 1


async def test_more_callers_than_connections_wait_and_all_are_answered(proxy: tuple[Proxy, str]) -> None:
    between, url = proxy
    async with runner(url) as running:
        between.delay_s = 0.02
        assert None not in await ask_many(running, 5 * CONNECTIONS_MAX)
        assert between.made <= CONNECTIONS_MAX


async def test_a_redis_that_hangs_is_told_within_the_bound_to_those_who_wait_for_a_place_too(
    proxy: tuple[Proxy, str], bound: Bound
) -> None:
    between, url = proxy
    async with runner(url) as running:
        between.delay_s = 60
        with bound.of(0.1):
            async with asyncio.timeout(30):
                assert await ask_many(running, 3 * CONNECTIONS_MAX) == [None] * 3 * CONNECTIONS_MAX
        between.delay_s = 0.0
        assert None not in await ask_many(running, 3 * CONNECTIONS_MAX)


# --- Addresses ----------------------------------------------------------------------------------------------


@pytest.fixture
def socket_valkey(tmp_path: Path) -> Any:
    path = tmp_path / "valkey.sock"
    with EmbeddedValkey(tmp_path / "data", extra=("--unixsocket", str(path))) as valkey:
        yield valkey, path


async def test_password_and_database_of_the_address_are_used(redis_url: str, redis: Redis) -> None:
    url = redis_url.removesuffix("/0") + "/3"
    async with runner(url) as running:
        assert await asked(running, "third")
    assert await redis.get("k:third") is None
    async with Redis.from_url(url, decode_responses=True) as third:
        assert await third.get("k:third") == "1"
    async with runner(str(URL(redis_url).with_password("wrong"))) as running:
        assert await asked(running, "stranger") is None
    assert await redis.get("k:stranger") is None


async def test_a_socket_of_the_file_system_is_an_address_too(
    socket_valkey: tuple[EmbeddedValkey, Path],
) -> None:
    valkey, path = socket_valkey
    async with runner(f"unix://:{valkey.password}@{path}?db=2") as running:
        assert await asked(running, "by file")
    async with Redis.from_url(valkey.url.removesuffix("/0") + "/2") as second:
        assert await second.get("k:by file") == b"1"


async def test_an_address_with_tls_is_spoken_to_by_tls_and_never_in_clear() -> None:
    """Nobody here has a certificate: what the first bytes are says enough."""
    first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(3)
        if not first.done():
            first.set_result(data)
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0, family=socket.AF_INET)
    port = server.sockets[0].getsockname()[1]
    async with runner(f"rediss://:secret@127.0.0.1:{port}/0") as running:
        assert await asked(running, "sealed") is None
    assert (await first)[:2] == b"\x16\x03"  # a TLS handshake
    server.close()
    await server.wait_closed()
