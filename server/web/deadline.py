"""How long a client waits: the header `X-Deadline-Ms`, on whatever waits for a decision of Redis.

It counts from when the request was here: the last byte of its head had come, and waited for its turn. A frame counts
from when it is read; while 64 of its socket are under way, that is when answers are taken.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from server.domain.errors import ErrorCode, Refusal
from server.limits import DEADLINE_MS_MAX

HEADER: Final = "X-Deadline-Ms"
ARRIVED: Final = web.RequestKey("arrived", float)  # when a request was here, by the loop's clock
SCHEMA: Final[dict[str, Any]] = {"type": "integer", "minimum": 1, "maximum": DEADLINE_MS_MAX}
_number: Final = re.compile("[1-9][0-9]{0,8}").fullmatch


def patience_s(headers: Mapping[str, str]) -> float | None:
    """Seconds; None for a client that does not say. Raises Refusal(VALIDATION_FAILED) for no number or a wild one."""
    given = headers.get(HEADER)
    if given is None:
        return None
    if _number(given) is None or int(given) > DEADLINE_MS_MAX:
        message = f"{HEADER} takes milliseconds, an integer from 1 to {DEADLINE_MS_MAX}"
        raise Refusal(ErrorCode.VALIDATION_FAILED, message)
    return int(given) / 1000


def left_s(request: web.Request) -> float | None:
    """What is left of a request's patience. Raises Refusal(DEADLINE_PASSED) for nothing, and as `patience_s`."""
    patience = patience_s(request.headers)
    return None if patience is None else patience_left_s(patience, request[ARRIVED])


def patience_left_s(patience_s: float | None, arrived: float) -> float | None:
    """The same of what came then."""
    if patience_s is None:
        return None
    left = arrived + patience_s - asyncio.get_running_loop().time()
    if left <= 0:
        raise Refusal(ErrorCode.DEADLINE_PASSED)
    return left
