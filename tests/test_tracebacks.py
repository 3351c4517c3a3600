"""What of an exception comes into the log."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec
import pytest

from server import telemetry

OPENID = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"


def _logged(fault: BaseException) -> str:
    told: Any = telemetry._traces(None, "error", {"exc_info": (type(fault), fault, fault.__traceback__)})
    return msgspec.json.encode(told["exception"]).decode()


async def _refused_row(pg: asyncpg.Connection[Any]) -> asyncpg.PostgresError:
    with pytest.raises(asyncpg.NotNullViolationError) as caught:
        await pg.execute(
            "INSERT INTO wechat_identities (appid, openid, buyer_id) VALUES ('wx1', $1, NULL)", OPENID
        )
    assert OPENID in str(caught.value)  # or there would be nothing to see here
    return caught.value


async def test_the_row_that_postgres_refused_is_not_logged_but_which_rule_it_broke(
    pg: asyncpg.Connection[Any],
) -> None:
    fault = await _refused_row(pg)
    chained = RuntimeError("the order could not be made")
    chained.__cause__ = fault
    for each in (fault, chained, BaseExceptionGroup("two at once", [fault, chained])):
        logged = _logged(each)
        assert OPENID not in logged
        assert "NotNullViolationError" in logged and 'column \\"buyer_id\\"' in logged
