"""How the simulated WeChat misbehaves: rates, drawn by a seed, so that a run can be had again.

Each kind of thing has dice of its own: the third prepay for JSAPI meets the same fault in every run with this
seed, whatever else goes on between.
"""

from __future__ import annotations

import enum
import random
from typing import Any, Final

import msgspec

from server.limits import SIMULATED_HANG_S

EVERYTHING: Final = "everything"


class CallFault(enum.Enum):
    """What happens to one call of the merchant."""

    HANG = "hang"  # done, and no answer for longer than any client waits
    FAIL_BEFORE = "fail_before"  # 500 SYSTEM_ERROR and nothing was done; a login is told errcode -1
    FAIL_AFTER = "fail_after"  # done, and then 502 by something on the way that knows no JSON
    LIMITED = "limited"  # 429 FREQUENCY_LIMITED; a login is told errcode 45011
    BAD_SIGNATURE = "bad_signature"  # done, and the answer's signature is of other words
    # only by WeChat.fail_next:
    DROPPED = "dropped"  # the connection is cut and nothing was done
    STALE = "stale"  # done, and the answer was signed ten minutes ago
    UNKNOWN_SERIAL = "unknown_serial"  # done, and signed by a key that nobody has heard of
    UNSIGNED = "unsigned"  # done, and the answer has no signature
    BLOCKED = "blocked"  # a login is told errcode 40226: a user of high risk
    USER_PAYING = "user_paying"  # a close is told 202: nothing was done, the buyer types the password


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """Rates, each 0 to 1, and how they are drawn. Without arguments: a WeChat that behaves."""

    notify_lost: float = 0.0  # of payments: nobody is ever told of them
    notify_reordered: float = 0.0  # of payments: told after the one that comes next
    notify_late: float = 0.0  # of payments: told up to a minute later (scaled)
    notify_twice: float = 0.0  # of deliveries: the same one once more, at the same time
    notify_corrupted: float = 0.0  # of deliveries: one byte of body or signature is another
    notify_signtest: float = 0.0  # of deliveries: a probe that must be refused comes before it
    call_hangs: float = 0.0  # of calls
    call_fails_before: float = 0.0
    call_fails_after: float = 0.0
    call_limited: float = 0.0
    call_badly_signed: float = 0.0
    seed: int = 0
    hang_s: float = SIMULATED_HANG_S  # how long a call hangs

    def calls(self) -> dict[CallFault, float]:
        """The rates of calls: at most one fault for each call."""
        return {
            CallFault.HANG: self.call_hangs,
            CallFault.FAIL_BEFORE: self.call_fails_before,
            CallFault.FAIL_AFTER: self.call_fails_after,
            CallFault.LIMITED: self.call_limited,
            CallFault.BAD_SIGNATURE: self.call_badly_signed,
        }


def everything(seed: int = 0) -> Faults:
    """All of it at once, at rates at which two of three calls still work and most payments are told of in the end."""
    return Faults(
        notify_lost=0.2,
        notify_reordered=0.2,
        notify_late=0.2,
        notify_twice=0.3,
        notify_corrupted=0.2,
        notify_signtest=0.2,
        call_hangs=0.03,
        call_fails_before=0.08,
        call_fails_after=0.08,
        call_limited=0.08,
        call_badly_signed=0.06,
        seed=seed,
    )


def parse(text: str) -> Faults:
    """`name=rate,...`, also `seed=7` and `hang_s=12`; `everything` first sets all. Empty: none.

    Raises ValueError that says what is wrong and what is legal.
    """
    given: dict[str, Any] = {}
    for number, each in enumerate(part.strip() for part in text.split(",") if part.strip()):
        name, equals, value = each.partition("=")
        if each == EVERYTHING and number == 0:
            given = msgspec.structs.asdict(everything())
        elif not equals or name not in Faults.__struct_fields__:
            legal = ", ".join(Faults.__struct_fields__)
            raise ValueError(f"{each!r} is no fault. Legal: {EVERYTHING} (first), or name=rate of {legal}.")
        else:
            given[name] = _value(name, value)
    faults = Faults(**given)
    if sum(faults.calls().values()) > 1:
        raise ValueError("The rates of call_... add up to more than 1: a call meets one fault at most.")
    return faults


def _value(name: str, text: str) -> float | int:
    kind = int if name == "seed" else float
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"{name}={text} is not a number.") from None
    if name == "hang_s" and not 0 < value <= SIMULATED_HANG_S:
        raise ValueError(f"hang_s={text} is not in 0 to {SIMULATED_HANG_S:g} seconds.")
    if name not in ("seed", "hang_s") and not 0 <= value <= 1:
        raise ValueError(f"{name}={text} is not a rate: 0 to 1.")
    return value


class Dice:
    """Draws the faults. One stream of numbers for each kind of thing."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._streams: dict[str, random.Random] = {}

    def call(self, name: str) -> CallFault | None:
        """The fault of the next call of this name."""
        drawn = self.stream(name).random()
        for fault, rate in self._faults.calls().items():
            if drawn < rate:
                return fault
            drawn -= rate
        return None

    def happens(self, name: str) -> bool:
        """Whether the fault of this rate befalls the next thing."""
        rate: float = getattr(self._faults, name)
        return self.stream(name).random() < rate

    def stream(self, name: str) -> random.Random:
        """The numbers of this kind of thing."""
        if name not in self._streams:
            self._streams[name] = random.Random(f"{self._faults.seed} {name}")  # noqa: S311  (no secret)
        return self._streams[name]
