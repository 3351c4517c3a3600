"""How long a client waits: the header `X-Deadline-Ms`, on whatever waits for a decision of Redis."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from server.domain.errors import ErrorCode, Refusal
from server.limits import DEADLINE_MS_MAX

HEADER: Final = "X-Deadline-Ms"
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
