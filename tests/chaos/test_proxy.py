"""The harness's own ways: what passes, what is cut, refused, held back and swallowed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from server.dev.embedded_server import port_is_free
from tests.chaos.proxy import Link
from tests.road import PATIENCE_S


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    """A way to a server that says everything again."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    link = Link("test", server.sockets[0].getsockname()[1])
    await link.open()
    yield link
    await link.close()
    server.close()


async def through(link: Link, data: bytes, *, seconds: float = PATIENCE_S) -> bytes:
    """What comes back of what is sent; less than it when the way is cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    back = b""
    try:
        writer.write(data)
        async with asyncio.timeout(seconds):
            while len(back) < len(data) and (more := await reader.read(65536)):
                back += more
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return back


async def test_everything_passes_both_ways(link: Link) -> None:
    data = b"all of it " * 50_000

    assert await through(link, data) == data


async def test_a_cut_ends_what_is_there_and_nothing_else(link: Link) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    writer.write(b"here")
    assert await reader.read(4) == b"here"
    link.cut()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        async with asyncio.timeout(PATIENCE_S):
            await reader.readexactly(1)
    writer.transport.abort()

    assert await through(link, b"again") == b"again"


async def test_a_way_is_cut_amid_a_message(link: Link) -> None:
    link.cut_after(14)
    bystander, beside = await asyncio.open_connection("127.0.0.1", link.port)
    beside.write(b"12")
    assert await bystander.readexactly(2) == b"12"  # counted as 2 there and 2 back
    cut_off = await through(link, b"0123456789abcdef" * 100)

    assert b"0123456789".startswith(cut_off) and len(cut_off) < 10  # what went there is counted too
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):  # every way that led through it
        async with asyncio.timeout(PATIENCE_S):
            await bystander.readexactly(1)
    beside.transport.abort()
    assert await through(link, b"again") == b"again"


async def test_of_a_message_that_is_cut_only_the_beginning_arrives(link: Link) -> None:
    arrived = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            arrived.extend(data)
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    link.target = server.sockets[0].getsockname()[1]
    link.cut_after(10)
    await through(link, b"0123456789abcdef" * 100)
    await asyncio.sleep(0.05)
    server.close()

    assert b"0123456789".startswith(arrived)  # a cut without a goodbye may lose what was under way


async def test_what_is_healed_is_neither_slow_nor_about_to_be_cut(link: Link) -> None:
    link.delay_s = 10.0
    link.cut_after(10)
    await link.heal()
    began = time.monotonic()

    assert await through(link, b"0123456789abcdef" * 100) == b"0123456789abcdef" * 100
    assert time.monotonic() - began < 10.0


async def test_a_port_is_nobody_elses_before_its_way_is_opened_and_free_after_its_end() -> None:
    link = Link("test", 1)
    assert not port_is_free(link.port)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", link.port)
    await link.close()

    assert port_is_free(link.port)


async def test_a_refused_way_is_refused_at_once_and_comes_back_at_the_same_port(link: Link) -> None:
    port = link.port
    await link.refuse()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await link.heal()

    assert (link.port, await through(link, b"again")) == (port, b"again")


async def test_what_is_swallowed_passes_late(link: Link) -> None:
    link.swallow()
    with pytest.raises(TimeoutError):
        await through(link, b"lost?", seconds=0.2)
    waiting = asyncio.create_task(through(link, b"late"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await link.heal()

    assert await waiting == b"late"


async def test_a_slow_way_takes_its_time_in_both_directions(link: Link) -> None:
    link.delay_s = 0.1
    began = time.monotonic()

    assert await through(link, b"slow") == b"slow"
    assert time.monotonic() - began >= 0.2


async def test_a_way_leads_to_another_place_once_it_is_told(link: Link) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(65536)).upper())
        writer.close()

    other = await asyncio.start_server(shout, "127.0.0.1", 0)
    link.target = other.sockets[0].getsockname()[1]

    assert await through(link, b"promoted") == b"PROMOTED"
    other.close()
