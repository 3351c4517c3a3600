"""Sends cases over sockets and judges what comes back: answers that are none, failures, silence, a held connection."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import msgspec
from multidict import CIMultiDict

from server.domain.errors import ErrorCode
from server.limits import BODY_BYTES_MAX
from tests.fuzz.case import Breach, Case, Hang, Way
from tests.fuzz.frames import CLOSE, frame
from tests.fuzz.raw import HEALTH

ANSWER_S_MAX = 20.0  # far above any honest answer, also on a machine that is busy with others
LET_GO_S_MAX = 8.0  # after the client has gone; below the 10 s for which a body is waited for
QUIET_S = 0.03  # a server that waits for more says nothing: an answer on loopback takes 2 ms
HEAD_BYTES_MAX = 2**16
PROBE_EVERY = 10  # so many requests of a connection, and then one that must be answered right
CLOSED = "closed"
GONE = (ConnectionError, RuntimeError)  # uvloop says the second of a connection that the server has ended
_STATUS = re.compile(rb"(?:^|\n|})HTTP/1\.[01] (\d{3}) ")
_TRACES = (b"Traceback (most", b'"code":"INTERNAL"', b'File "/')


class Answer(msgspec.Struct, frozen=True):
    """A whole answer. `last`: the connection ends with it."""

    status: int
    headers: CIMultiDict[str]
    body: bytes
    last: bool


class Driver:
    """One client: a connection for requests that goes on, and others for what ends them."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._asked = 0

    async def send(self, case: Case) -> list[str]:
        """Send a case: the statuses that came. Raises Breach."""
        try:
            if case.way is Way.REQUEST:
                return await self._request(case)
            if case.way is Way.SOCKET:
                return await self._socket(case)
            return await self._raw(case)
        except ConnectionRefusedError:
            raise Breach("the server is gone") from None

    async def close(self) -> None:
        """End the connection that is kept."""
        if self._kept is not None:
            await _close(self._kept[1])
            self._kept = None

    # --- Requests ----------------------------------------------------------------------------------------------

    async def _request(self, case: Case) -> list[str]:
        reused = self._kept is not None
        reader, writer = self._kept or await asyncio.open_connection(*self._address, limit=2**22)
        self._kept = None
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                answer = await _ask(reader, writer, case.packets, case.method == b"HEAD")
            judge(answer)
        except TimeoutError:
            writer.transport.abort()
            raise Hang(f"no answer in {ANSWER_S_MAX:.0f} s") from None
        except (asyncio.IncompleteReadError, *GONE):
            await _close(writer)
            if sum(map(len, case.packets)) > BODY_BYTES_MAX:
                return [CLOSED]  # refused by its length: what was still under way may have cost the answer
            raise Breach(
                f"the connection ended without an answer (it was {'an old' if reused else 'a new'} one)"
            ) from None
        except Breach:
            await _close(writer)
            raise
        except ValueError as fault:  # of a parser here: msgspec's are such too
            await _close(writer)
            raise Breach(f"an answer that cannot be read: {fault}") from None
        if answer.last or answer.status == 101:
            await _close(writer)
        else:
            self._kept = (reader, writer)
            await self._probe()
        return [str(answer.status)]

    async def _probe(self) -> None:
        """Whether the connection is still in step: the next answer is that of the next request."""
        self._asked += 1
        if self._asked % PROBE_EVERY or self._kept is None:
            return
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                answer = await _ask(*self._kept, (HEALTH,), False)
        except (TimeoutError, asyncio.IncompleteReadError, *GONE) as fault:
            await self.close()
            raise Breach(f"an honest request after it was not answered: {fault!r}") from None
        if (answer.status, answer.body) != (200, b'{"status":"alive"}'):
            await self.close()
            raise Breach("an honest request after it got another answer", answer.body)

    # --- Bytes ---------------------------------------------------------------------------------------------------

    async def _raw(self, case: Case) -> list[str]:
        reader, writer = await asyncio.open_connection(*self._address, limit=2**22)
        try:
            said = bytearray()
            ended = await _talk(
                reader, writer, case.packets, said, ANSWER_S_MAX if case.way is Way.RAW else QUIET_S
            )
            if case.way is Way.RAW and not said and not ended:
                raise Hang(f"neither an answer nor an end in {ANSWER_S_MAX:.0f} s")
            await _part(reader, writer, said, abruptly=len(case.packets[0]) % 3 == 0, ended=ended)
        finally:
            writer.transport.abort()
        statuses = [status.decode() for status in _STATUS.findall(bytes(said))]
        if any(status.startswith("5") and status != "503" for status in statuses):
            raise Breach(f"answered {statuses}", bytes(said), statuses)
        look_for_failures(bytes(said))
        if case.wanted and statuses != [str(case.wanted)]:
            raise Breach(f"answered {statuses} and not {case.wanted} alone", bytes(said), statuses)
        return statuses or [CLOSED]

    # --- Frames --------------------------------------------------------------------------------------------------

    async def _socket(self, case: Case) -> list[str]:
        reader, writer = await asyncio.open_connection(*self._address, limit=2**22)
        try:
            writer.write(case.packets[0])
            async with asyncio.timeout(ANSWER_S_MAX):
                head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101 "):
                if head.startswith(b"HTTP/1.1 503 "):
                    return ["503"]
                raise Breach("an honest upgrade was refused", head)
            said = bytearray()
            ended = await _talk(reader, writer, case.packets[1:], said, QUIET_S)
            if not ended:
                with suppress(*GONE):
                    writer.write(frame((1000).to_bytes(2, "big"), CLOSE))
            await _part(reader, writer, said, abruptly=len(case.packets[-1]) % 5 == 0, ended=ended)
        except TimeoutError:
            raise Hang(f"no upgrade in {ANSWER_S_MAX:.0f} s") from None
        except (asyncio.IncompleteReadError, *GONE) as fault:
            raise Breach(f"an honest upgrade ended: {fault!r}") from None
        finally:
            writer.transport.abort()
        look_for_failures(bytes(said))
        read_frames(bytes(said))
        return ["101"]


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, packets: tuple[bytes, ...], without_body: bool
) -> Answer:
    """The final answer to one request."""
    for place, packet in enumerate(packets):
        if place:
            await asyncio.sleep(0.001)
        writer.write(packet)
        with suppress(*GONE):  # it may have been refused by its head: the answer is there to be read
            await writer.drain()
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        version, status, *_ = first.split(" ", 2)
        if not re.fullmatch(r"HTTP/1\.[01]", version) or not re.fullmatch(r"\d{3}", status):
            raise Breach("this is no answer", head)
        if status != "100":
            break
    headers: CIMultiDict[str] = CIMultiDict(tuple(line.split(": ", 1)) for line in lines)  # type: ignore[misc]
    chunked = headers.get("Transfer-Encoding") == "chunked"
    last = headers.get("Connection", "").lower() == "close" or (
        version == "HTTP/1.0" and "Connection" not in headers
    )
    if without_body or status in ("101", "204", "304"):
        body = b""
    elif chunked:
        body = await _chunks(reader)
    elif "Content-Length" in headers:
        body = await reader.readexactly(int(headers["Content-Length"]))
    else:
        body, last = await reader.read(), True
    return Answer(int(status), headers, body, last)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return body


async def _talk(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    packets: tuple[bytes, ...],
    said: bytearray,
    first_s: float,
) -> bool:
    """Send, and read until the server is quiet, the first time for `first_s`; whether it ended the connection."""
    with suppress(*GONE):
        for place, packet in enumerate(packets):
            if place:
                await asyncio.sleep(0.001)
            writer.write(packet)
            await writer.drain()
    quiet_s = first_s
    while True:
        try:
            async with asyncio.timeout(quiet_s):
                data = await reader.read(2**16)
        except TimeoutError:
            return False
        except GONE:
            return True
        if not data:
            return True
        said += data
        quiet_s = QUIET_S


async def _part(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    said: bytearray,
    *,
    abruptly: bool,
    ended: bool,
) -> None:
    """The client goes: the server must let go too. Raises Hang."""
    if ended or abruptly:
        writer.transport.abort()
        return
    try:
        writer.write_eof()
        data = b"?"
        while data:  # what it still has to say to a pipeline may come after the other
            async with asyncio.timeout(LET_GO_S_MAX):
                data = await reader.read(2**16)
            said += data
    except TimeoutError:
        raise Hang(
            f"the server held the connection for {LET_GO_S_MAX:.0f} s after its client had gone", bytes(said)
        ) from None
    except (OSError, RuntimeError):
        pass  # ended by the server meanwhile


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, RuntimeError):
        await writer.wait_closed()


# --- Judging -----------------------------------------------------------------------------------------------------


def judge(answer: Answer) -> None:
    """Raises Breach for a failure, or for a refusal in another shape than that of all errors."""
    if answer.status >= 500 and answer.status != 503:
        raise Breach(f"answered {answer.status}", answer.body, [str(answer.status)])
    look_for_failures(answer.body)
    if answer.status < 400 or not answer.body:
        return
    if answer.headers.get("Content-Type") != "application/json":
        if answer.status != 400:  # what the parser refuses never reaches us
            raise Breach(f"{answer.status} in another shape", answer.body)
        return
    told = msgspec.json.decode(answer.body)
    if "status" in told and "reasons" in told:
        return  # not ready: /readyz has a shape of its own
    code = ErrorCode.__members__.get(told.get("code"))
    if (
        code is None
        or code.status != answer.status
        or told["request_id"] != answer.headers.get("X-Request-Id")
    ):
        raise Breach(f"{answer.status} in another shape", answer.body)


def look_for_failures(said: bytes) -> None:
    """Raises Breach when an answer, or one inside of it, says that something failed."""
    for trace in _TRACES:
        if trace in said and b'"openapi":"3.0' not in said:  # the document shows each error, this one too
            raise Breach(f"an answer has {trace.decode()}", said)


def read_frames(said: bytes) -> int:
    """How many frames a server sent. Raises Breach for what no server may send (RFC 6455, 5)."""
    place = number = 0
    while len(said) - place >= 2:
        first, second = said[place], said[place + 1]
        head, length = place + 2, second & 0x7F
        if length >= 126:
            size = 2 if length == 126 else 8
            length = int.from_bytes(said[head : head + size], "big")
            head += size
        if second & 0x80 or first & 0x70 or first & 0x0F not in (1, 8, 9, 10) or length > 2**20:
            raise Breach("this is no frame of a server", said[place:])
        place, number = head + length, number + 1
    return number
