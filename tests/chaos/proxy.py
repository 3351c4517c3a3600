"""A TCP way through the harness, which can be cut, refused, delayed, swallowed, or cut after so many bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from server.dev.embedded_server import HOST, free_port

CHUNK_BYTES = 64 * 1024
CONNECT_S_MAX = 5.0
PORT_TRIES = 50


class Link:
    """From a port of its own to a target that may change: what stands behind a virtual address.

    `delay_s` holds every chunk in either direction; while it is swallowing, connections are taken and nothing passes,
    as behind a dead switch, and what was sent meanwhile passes afterwards, late.
    """

    def __init__(self, name: str, target: int) -> None:
        """`target`: a port of this machine."""
        self.name = name
        self._held: socket.socket | None = (
            held_port()
        )  # from now on, so that no one takes the port before it is opened
        self.port = self._held.getsockname()[1]
        self.target = target
        self.delay_s = 0.0
        self._left: int | None = None  # bytes until the cut
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._ways: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen; the port stays the same for life."""
        if self._server is None:
            self._let_go()
            self._server = await asyncio.start_server(self._carry, HOST, self.port)

    async def close(self) -> None:
        """Refuse connections, and end those that are there."""
        self._let_go()
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        for way in list(self._ways):
            way.cancel()
        await asyncio.gather(*self._ways, return_exceptions=True)

    refuse = close

    def _let_go(self) -> None:
        # It is not handed to the loop: uvloop keeps a socket that it was given open, and listening, after the end.
        if self._held is not None:
            self._held.close()
            self._held = None

    def cut(self) -> None:
        """End every connection at once, without a goodbye."""
        for writer in list(self._writers):
            writer.transport.abort()

    def cut_after(self, bytes_left: int) -> None:
        """Let so many more bytes pass, counted over all connections and directions, then cut: amid a message."""
        self._left = bytes_left

    def swallow(self) -> None:
        """Take everything, and pass nothing on."""
        self._passing.clear()

    async def heal(self) -> None:
        """As if nothing had been."""
        self.delay_s = 0.0
        self._left = None
        self._passing.set()
        await self.open()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._ways.add(task)
        self._writers.add(writer)
        onward: asyncio.StreamWriter | None = None
        try:
            await self._passing.wait()
            async with asyncio.timeout(CONNECT_S_MAX):
                back, onward = await asyncio.open_connection(HOST, self.target)
            self._writers.add(onward)
            pumps = [
                asyncio.create_task(self._pump(reader, onward)),
                asyncio.create_task(self._pump(back, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # what is behind is away, or the way is closed: this side is told by its end
        finally:
            for end in (writer, onward):
                if end is not None:
                    self._writers.discard(end)
                    with contextlib.suppress(RuntimeError):  # the loop may be closing
                        end.transport.abort()
            self._ways.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._passing.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self._left is not None:
                    data, self._left = data[: self._left], self._left - len(data)
                    writer.write(data)
                    if self._left <= 0:
                        await writer.drain()
                        self._left = None
                        self.cut()
                        return
                else:
                    writer.write(data)
                await writer.drain()


def held_port() -> socket.socket:
    """A free port, bound and not yet listened at: who connects is refused. Raises OSError when none was found."""
    for _ in range(PORT_TRIES):
        # Without SO_REUSEADDR: with it on both sides, Linux lets another one bind to it too.
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            held.bind((HOST, free_port()))
            return held
        except OSError:
            held.close()
    raise OSError("no free port found")
