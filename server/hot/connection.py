"""The Redis connections: every call has a bound, and an absent Redis is one clear refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from server.config import Ack
from server.domain.errors import ErrorCode, Refusal
from server.limits import REDIS_CALL_S_MAX, REDIS_CONNECT_S_MAX

T = TypeVar("T")
# Enough for every loop of a process and the calls of one turn; a pool that is empty waits, bounded, then refuses.
CONNECTIONS_MAX: Final = 32
_log: Final = structlog.get_logger(__name__)


class Slow(Refusal):
    """Redis was not heard within the bound: it, the way to it, or this very process is slow; or it is away."""


class AckError(Exception):
    """Redis does not run in the way that the acknowledgement level needs; the message says what to change."""


def connect(url: str) -> Redis:
    """A client with a bounded pool. Connects when first used, so a server starts while Redis is away.

    A call that finds its connection dead (Redis was restarted) is tried once more: every script is safe to repeat.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS_MAX,
        timeout=REDIS_CALL_S_MAX,
        socket_timeout=REDIS_CALL_S_MAX,
        socket_connect_timeout=REDIS_CONNECT_S_MAX,
        decode_responses=True,
        encoding_errors="backslashreplace",  # a stranger's bytes in a stream must not keep the flusher from reading on
        protocol=2,
        retry=Retry(ConstantBackoff(0.01), 1, supported_errors=(RedisConnectionError,)),
    )
    return Redis.from_pool(pool)


async def ask(call: Awaitable[T], *, seconds: float = REDIS_CALL_S_MAX) -> T:
    """Await a Redis call within its bound.

    Raises Refusal(REDIS_UNAVAILABLE) when Redis is away, loading, full or read-only; Slow when it is too slow. What was
    sent may or may not have been done: the caller's ids make a retry safe.

    A cancellation is never lost: before Python 3.12 `asyncio.wait_for`, by which the client sends, swallows one that
    comes as the bytes go out, and a loop that was told to end would go on for ever.
    """
    task = asyncio.current_task()
    cancelling = task.cancelling() if task is not None else 0
    try:
        async with asyncio.timeout(seconds):
            answer = await call
    except ResponseError as fault:
        _log.warning("redis_refused", error=str(fault))
        raise Refusal(ErrorCode.REDIS_UNAVAILABLE) from fault
    except (TimeoutError, RedisTimeoutError) as fault:
        raise Slow(ErrorCode.REDIS_UNAVAILABLE) from fault
    except (RedisError, OSError) as fault:
        raise Refusal(ErrorCode.REDIS_UNAVAILABLE) from fault
    if task is not None and task.cancelling() > cancelling:
        raise asyncio.CancelledError
    return answer


async def verify_ack(redis: Redis, ack: Ack) -> None:
    """Hold the acknowledgement level against what Redis really does.

    Raises AckError when Redis's own policy is weaker than the level promises. A Redis that hides its
    configuration (some managed services), or is away now, is trusted, with a warning in the log.
    """
    if ack is Ack.MEMORY:
        return
    try:
        policy = await redis.config_get("append*")
    except (RedisError, OSError, TimeoutError) as fault:
        _log.warning("ack_not_verified", ack=ack.value, reason=type(fault).__name__)
        return
    if policy.get("appendonly") != "yes" or policy.get("appendfsync") != "always":
        raise AckError(
            f"GATELINE_ACK={ack.value} needs Redis with `appendonly yes` and `appendfsync always`; it runs with "
            f"appendonly={policy.get('appendonly')}, appendfsync={policy.get('appendfsync')}. Change Redis, or accept "
            "with GATELINE_ACK=memory that a crash of its host may lose what Redis had not written."
        )
