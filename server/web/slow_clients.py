"""How long a client may take, and how many may be here at once: a slow one costs a place, never more.

Half a head, an answer that is not taken, a connection that says nothing: each ends after a bound. (Bodies have theirs
in `body.py`, idle connections in `service.py`.) What cannot be read as HTTP is answered in the one shape of all errors.

Like `connection.py` this stands on a few names of aiohttp's connection that are not its public interface: `_messages`
(what was parsed and not yet handled) and `_waiter` (its loop waits on it for the next).

When places run short, the connection goes that is idle longest, of those that never showed a token of the staff:
anybody gets a buyer's. Staff's are kept, gates above all.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from server.domain.errors import ErrorCode, Refusal
from server.limits import ANSWER_TAKEN_BYTES_MIN, ANSWER_TAKEN_S_MAX, CONNECTIONS_MAX, HEAD_READ_S_MAX
from server.telemetry import CONNECTIONS_CUT
from server.web.deadline import ARRIVED
from server.web.errors import EVERY_ANSWER, error_response, new_id

_SENT_UNTAKEN: Final = getattr(
    socket, "TCP_USER_TIMEOUT", None
)  # Linux: also of what a closed connection still holds


class PatientConnection(RequestHandler):
    """A connection of aiohttp's, with bounds for a client that is slow."""

    __slots__ = ("_arrivals", "_deaf_due", "_head_due", "_heard", "_may_go", "_server", "arrived")

    def __init__(self, manager: PatientServer, **options: Any) -> None:
        super().__init__(manager, **options)
        self._server = manager
        self.arrived = 0.0  # when what is being read now came, by the loop's clock
        self._arrivals: deque[float] = deque()  # the same of each of `_messages`
        self._heard = False  # a whole head has come
        self._may_go = True  # for a newcomer, when places run short
        self._head_due: asyncio.TimerHandle | None = None  # while a part of a head is here
        self._deaf_due: asyncio.TimerHandle | None = None  # while more is written than the client takes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, if there is one."""
        super().connection_made(transport)
        plug = transport.get_extra_info("socket")
        if plug is not None and _SENT_UNTAKEN is not None and plug.family != socket.AF_UNIX:
            plug.setsockopt(socket.IPPROTO_TCP, _SENT_UNTAKEN, int(ANSWER_TAKEN_S_MAX * 1000))
        self._server.came(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Leave it."""
        for due in (self._head_due, self._deaf_due):
            if due is not None:
                due.cancel()
        self.keep()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        if data:
            self.arrived = self._loop.time()
        before = len(self._messages)
        super().data_received(data)
        self._note_arrivals(before)
        self._look_at_head(data)

    def _note_arrivals(self, before: int) -> None:
        """Of the messages that were parsed since there were so many."""
        for _ in range(len(self._messages) - before):
            self._arrivals.append(self.arrived)

    def take_arrival(self) -> float:
        """When the message arrived that is being taken from `_messages`; once for each."""
        # What comes behind an upgrade that was declined aiohttp parses by itself: it came with the last bytes at most.
        return self._arrivals.popleft() if self._arrivals else self.arrived

    def _look_at_head(self, data: bytes) -> None:
        """Begin or end the time of a head, after `data` was parsed."""
        if self._messages:
            if self._head_due is not None:
                self._head_due.cancel()
                self._head_due = None
            self._hear()
        elif self._head_due is None and (self._waiter is not None or not self._heard) and data.strip(b"\r\n"):
            self._head_due = self._loop.call_later(HEAD_READ_S_MAX, self._cut, "HALF_HEAD")

    def _hear(self) -> None:
        """A whole head has come: of all that may have to go, this one is now the last."""
        self._heard = True
        if self._may_go:
            self._server.may_go.move_to_end(self)

    def keep(self) -> None:
        """Close it for no newcomer: a good token of the staff was shown."""
        if self._may_go:
            self._may_go = False
            self._server.may_go.pop(self, None)

    def pause_writing(self) -> None:
        """The client does not take what was written."""
        super().pause_writing()
        if self.transport is not None:
            left = self.transport.get_write_buffer_size()
            self._deaf_due = self._loop.call_later(ANSWER_TAKEN_S_MAX, self._take, self.transport, left)

    def _take(self, transport: asyncio.Transport, was: int) -> None:
        """Look whether the client has taken enough of what was written."""
        left = transport.get_write_buffer_size()
        if was - left < ANSWER_TAKEN_BYTES_MIN:
            self._cut("DEAF", transport)
        else:
            self._deaf_due = self._loop.call_later(ANSWER_TAKEN_S_MAX, self._take, transport, left)

    def resume_writing(self) -> None:
        """It does again."""
        if self._deaf_due is not None:
            self._deaf_due.cancel()
            self._deaf_due = None
        super().resume_writing()

    def no_room(self) -> None:
        """End it: the place is needed."""
        self.keep()  # from another newcomer
        self._cut("NO_ROOM")

    def _cut(self, reason: str, transport: asyncio.Transport | None = None) -> None:
        """End the connection; what was not taken is thrown away."""
        transport = transport or self.transport
        CONNECTIONS_CUT.labels(reason).inc()
        self.force_close()
        if transport is not None:
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp answers by itself: to what is no HTTP, and when even our error handling fails."""
        super().handle_error(request, status, exc, message)
        response = error_response(
            Refusal(ErrorCode.BAD_REQUEST if status < 500 else ErrorCode.INTERNAL), request_id := new_id()
        )
        response.headers.update({"X-Request-Id": request_id, **EVERY_ANSWER})
        response.force_close()
        return response


class PatientServer(web.Server):
    """Makes the connections, and a place for those who come."""

    def __init__(self, made: web.Server, *, connections_max: int) -> None:
        """`made`: as aiohttp made it."""
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
        self._connections_max = connections_max
        # The one that is idle longest comes first: who said nothing yet is idle since it came.
        self.may_go: OrderedDict[PatientConnection, None] = OrderedDict()

    def __call__(self) -> RequestHandler:
        """A connection."""
        return PatientConnection(self, loop=self._loop, **self._kwargs)

    def came(self, connection: PatientConnection) -> None:
        """Make room if there is none; where all places are staff's, the newcomer goes."""
        self.may_go[connection] = None
        if len(self._connections) > self._connections_max:
            next(iter(self.may_go)).no_room()


class PatientRunner(web.AppRunner):
    """Runs an application on such connections."""

    def __init__(
        self, app: web.Application, *, connections_max: int = CONNECTIONS_MAX, **options: Any
    ) -> None:
        super().__init__(app, **options)
        self._connections_max = connections_max

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        made.request_factory = _arriving(made.request_factory)
        return PatientServer(made, connections_max=self._connections_max)


def _arriving(make: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    """Makes a request of what aiohttp parsed, with the time when it arrived."""

    def request(
        message: object, payload: object, connection: PatientConnection, *more: object
    ) -> web.BaseRequest:
        made = make(message, payload, connection, *more)
        made[ARRIVED] = connection.take_arrival()
        return made

    return request
