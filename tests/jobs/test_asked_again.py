"""A reading of Redis that had no answer is tried again, a few times."""

from __future__ import annotations

import pytest

from server.domain.errors import ErrorCode, Refusal
from server.jobs.catch_up import again
from server.limits import CHECK_ASKS


class Reading:
    """Has no answer for so many calls, then one."""

    def __init__(self, silent: int, code: ErrorCode = ErrorCode.REDIS_UNAVAILABLE) -> None:
        self.calls = 0
        self._silent = silent
        self._code = code

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._silent:
            raise Refusal(self._code)
        return "answer"


async def test_what_had_no_answer_is_asked_again() -> None:
    reading = Reading(CHECK_ASKS - 1)

    assert await again(reading) == "answer"
    assert reading.calls == CHECK_ASKS


async def test_who_never_answers_is_given_up() -> None:
    reading = Reading(99)
    with pytest.raises(Refusal) as caught:
        await again(reading)

    assert (caught.value.code, reading.calls) == (ErrorCode.REDIS_UNAVAILABLE, CHECK_ASKS)


async def test_what_was_refused_for_another_reason_is_not_asked_again() -> None:
    reading = Reading(1, ErrorCode.GATE_CLOSED)
    with pytest.raises(Refusal) as caught:
        await again(reading)

    assert (caught.value.code, reading.calls) == (ErrorCode.GATE_CLOSED, 1)
