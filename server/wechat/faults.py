"""What can go wrong with a call to WeChat Pay, in the three kinds that a caller acts on (pure).

Every code of the API belongs to one kind. Codes come with and without underscores, and are told in one spelling here.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from server.wechat.sealed import NOT_JSON

CODES: Final = frozenset(
    {
        *("PARAM_ERROR", "INVALID_REQUEST", "APPID_MCHID_NOT_MATCH", "MCH_NOT_EXISTS", "ORDER_CLOSED"),
        "SIGN_ERROR",
        *("NO_AUTH", "OUT_TRADE_NO_USED", "RULE_LIMIT", "TRADE_ERROR", "ACCOUNT_ERROR", "NOT_ENOUGH"),
        "ORDER_NOT_EXIST",
        "FREQUENCY_LIMITED",
        *("SYSTEM_ERROR", "BANK_ERROR", "OPENID_MISMATCH", "INVALID_TRANSACTIONID"),
    }
)
NETWORK: Final = "NETWORK"  # nothing came back: no connection, or one that broke
TIMEOUT: Final = "TIMEOUT"  # nothing came back in time
UNVERIFIED: Final = "UNVERIFIED"  # what came is not signed by WeChat
UNREADABLE: Final = "UNREADABLE"  # it is signed, and is not what the API promises
OTHER: Final = "OTHER"

_REPEATABLE: Final = frozenset({"SYSTEM_ERROR", "BANK_ERROR", "FREQUENCY_LIMITED"})
_NO_WITH_500: Final = frozenset({"OPENID_MISMATCH", "INVALID_TRANSACTIONID"})
_SPELLINGS: Final = {code.replace("_", ""): code for code in CODES}


class WeChatError(Exception):
    """A call that was not answered with success; `status` is HTTP's, 0 when there was no answer.

    Holds a code and nothing else that was sent or came: neither a body nor an address, an openid or a key.
    """

    def __init__(self, code: str, status: int) -> None:
        super().__init__(f"{code} ({status})")
        self.code = code
        self.status = status


class Retryable(WeChatError):
    """WeChat was asked and says: not now. It may be sent again under the same number."""


class Rejected(WeChatError):
    """A clear no: sent again, it would be no again."""


class Unknown(WeChatError):
    """It was sent, and what became of it was not told, or not by WeChat: query."""


class _Fault(msgspec.Struct):
    """The body of an answer that is no success; its message is for people and may repeat what was sent."""

    code: Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9_]{0,63}\Z")]


_fault: Final = msgspec.json.Decoder(_Fault)


def fault_of(status: int, raw: bytes | None, *, verified: bool) -> WeChatError:
    """What an answer that is no success means; `raw` None: a body too long to be one of WeChat's.

    401, 429 and 5xx also come from the edge of WeChat's network, unsigned. They say that nothing was done, so that
    believing a forged one costs no more than a failed call. Any other no must be signed.
    """
    code = _code(raw)
    if status == 429 or status >= 500:
        return (Rejected if code in _NO_WITH_500 else Retryable)(code or OTHER, status)
    if not (verified or status == 401):
        return Unknown(UNVERIFIED, status)
    if code is None:
        return Unknown(UNREADABLE, status)
    return (Retryable if code in _REPEATABLE else Rejected)(code, status)


def outcome_of(fault: WeChatError) -> str:
    """The fault as a metric's label: one of a bounded set, whatever was sent to us."""
    known = {NETWORK, TIMEOUT, UNVERIFIED} if isinstance(fault, Unknown) else CODES
    return fault.code if fault.code in known else OTHER


def may_be_sent_again(fault: WeChatError) -> bool:
    """Whether another sending may help, and does no harm under the same number."""
    return isinstance(fault, Retryable) or fault.status == 0


def _code(raw: bytes | None) -> str | None:
    try:
        code = _fault.decode(raw or b"").code
    except NOT_JSON:
        return None
    return _SPELLINGS.get(code.replace("_", ""), code)
