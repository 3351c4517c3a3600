"""From a row of the route table to an aiohttp handler: who asks, decode, call, encode."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from server.domain.catalog import Operator
from server.domain.errors import ErrorCode, Refusal
from server.web import appkeys
from server.web.auth import Audience, Caller, authorization, staff
from server.web.body import read_json, read_query
from server.web.routes import Access, Route
from server.web.slow_clients import PatientConnection

_encode: Final = msgspec.json.Encoder().encode
_AUDIENCES: Final = {
    Access.BUYER: frozenset({Audience.BUYER}),
    Access.OPERATOR: frozenset({Audience.GATE}),
    Access.OWNER_OR_OPERATOR: frozenset({Audience.BUYER, Audience.GATE}),
    Access.ANALYST: frozenset({Audience.ANALYST}),
}


def endpoint(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler of a route: authorises first, so that a stranger learns nothing of what a body must be."""
    audiences = _AUDIENCES.get(route.access)

    async def handle(request: web.Request) -> web.StreamResponse:
        caller = None if audiences is None else _caller(request, audiences)
        asked: Any = None
        if route.body is not None:
            asked = await read_json(
                request, route.body, required=route.body_required, bytes_max=route.body_bytes_max
            )
        elif route.query is not None:
            asked = read_query(request, route.query)
        answer = await route.handler(request, caller, asked)
        if isinstance(answer, web.StreamResponse):
            return answer
        return web.Response(status=route.status, body=_encode(answer), content_type="application/json")

    return handle


def _caller(request: web.Request, audiences: frozenset[Audience]) -> Caller | Operator:
    """A buyer as their token says; staff as the directory knows them at this moment."""
    caller = request.app[appkeys.TOKENS].verify(authorization(request.headers))
    if caller.audience not in audiences:
        raise Refusal(ErrorCode.FORBIDDEN)
    if caller.audience is Audience.BUYER:
        return caller
    operator = staff(caller, request.app[appkeys.DIRECTORY].current)
    if isinstance(request.protocol, PatientConnection):
        request.protocol.keep()
    return operator
