"""What must not stand in any log, error or metric: built from what the processes were given, said and heard."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from tests.payment.market import Market

_PIECE = 24  # longer ones are looked for by two pieces of this length, so that one that was cut is found too
_HEAD = 6
_WORDS = (
    *(
        "Authorization",
        "Bearer ",
        "WECHATPAY2-SHA256-RSA2048 ",
        "Wechatpay-Signature",
        "X-Signature",
        "PRIVATE KEY",
    ),
    *("paySign", "session_key", "prepay_id", "code_url", "h5_url", "js_code", "jscode2session?"),
)


async def needles_of(market: Market) -> dict[str, set[str]]:
    """Kind -> the pieces to look for."""
    values: defaultdict[str, set[str]] = defaultdict(set)
    given = market.environment
    for name in ("API_V3_KEY", "MINIPROGRAM_SECRET", "SECRET"):
        values[name].add(given[f"GATELINE_WECHAT_{name}"])
    values["MCH_KEY"] = {line for line in given["GATELINE_WECHAT_MCH_KEY"].splitlines() if len(line) > 20}
    for name in ("JWT_KEYS", "QR_KEYS", "GATEWAY_SECRETS"):
        values[name].add(given[f"GATELINE_{name}"].rpartition(":")[2])
    for kind, heard in (market.heard.heard | market.road.handed_out).items():
        values[kind] |= heard
    for row in await market.pg.fetch("SELECT openid, unionid FROM wechat_identities"):
        values["openid"].add(row["openid"])
        values["unionid"].add(row["unionid"])
    values["launch"] = {
        row["launch"]
        for row in await market.pg.fetch("SELECT launch FROM payment_attempts WHERE launch IS NOT NULL")
    }
    return {"words": set(_WORDS)} | {kind: set(_pieces(each)) for kind, each in values.items()}


def _pieces(values: Iterable[str]) -> Iterable[str]:
    for value in values:
        inner = re.search(r"(?:pr|prepay_id)=([\w-]+)", value)
        if inner is not None:  # an address that leads to the payment: what is secret of it is in its query
            yield inner.group(1)
        elif len(value) <= _PIECE:
            yield value
        else:
            middle = len(value) // 2
            yield from (value[:_PIECE], value[middle - _PIECE // 2 : middle + _PIECE // 2])


def found(text: str, needles: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """Which needles stand in the text, as (kind, needle)."""
    by_head: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for kind, pieces in needles.items():
        for piece in pieces:
            by_head[piece[:_HEAD]].append((kind, piece))
    return {
        (kind, piece)
        for start in range(len(text))
        if (head := text[start : start + _HEAD]) in by_head
        for kind, piece in by_head[head]
        if text.startswith(piece, start)
    }
