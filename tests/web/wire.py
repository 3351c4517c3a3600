"""HTTP spoken byte by byte over a socket of our own: clients that are less polite than the libraries."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from multidict import CIMultiDict
from yarl import URL

from tests.road import PATIENCE_S, Answer

NARROW_BYTES = 4_096


class Wire:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes, pause_s: float = 0.0) -> None:
        """Sends the parts as packets of their own."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(pause_s)

    async def answer(self) -> Answer:
        """The next answer, an interim one too. Raises IncompleteReadError when the connection ends instead."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
            pairs = [tuple(line.split(": ", 1)) for line in lines]
            headers: CIMultiDict[str] = CIMultiDict(pairs)  # type: ignore[arg-type]
            assert len(headers) == len({name.lower() for name in headers}), pairs
            raw = await self.reader.readexactly(int(headers.get("Content-Length", "0")))
        _, status, *_ = first.split(" ", 2)
        parsed: Any = None
        if headers.get("Content-Type") == "application/json":
            parsed = msgspec.json.decode(raw)
        return Answer(int(status), parsed, raw, dict(headers))

    async def answers(self, number: int) -> list[Answer]:
        """So many answers."""
        return [await self.answer() for _ in range(number)]

    async def closed(self) -> bool:
        """Whether the server ends the connection now, without another byte."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read(1) == b""

    async def alive(self) -> bool:
        """Whether the connection answers another request."""
        try:
            await self.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            return (await self.answer()).json == {"status": "alive"}
        except (asyncio.IncompleteReadError, OSError):
            return False


@asynccontextmanager
async def wire(url: str, *, settled: bool = True, deaf: bool = False) -> AsyncIterator[Wire]:
    """A connection to the server of this address.

    `settled`: the server already waits for a request; what comes with the accept itself may go the ordinary way.
    `deaf`: hardly a byte fits between the server and a client that does not read (with the fixture `narrow`).
    """
    address = URL(url)
    assert address.host is not None and address.port is not None
    plug = socket.socket()
    if deaf:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BYTES)
    plug.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plug, (address.host, address.port))
    reader, writer = await asyncio.open_connection(sock=plug)
    line = Wire(reader, writer)
    try:
        assert not settled or await line.alive()
        yield line
    finally:
        writer.close()


def posted(
    body: bytes | dict[str, Any],
    authorization: dict[str, str],
    *more: str,
    first: str = "POST /venue/scan HTTP/1.1",
    kind: str | None = "application/json",
    length: int | None = None,
) -> bytes:
    """The bytes of a scan; `more` are lines of the head, `length` belies the body's own."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    lines = [first, "Host: x", *(f"{name}: {value}" for name, value in authorization.items())]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    if length is None or length >= 0:
        lines.append(f"Content-Length: {len(raw) if length is None else length}")
    return "\r\n".join([*lines, *more, "", ""]).encode() + raw
