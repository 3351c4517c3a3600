"""How often something may happen, and the buckets of this process alone, which count it while Redis is away."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from server.limits import LOCAL_BUCKETS_MAX


class Pace(msgspec.Struct, frozen=True):
    """So many at once; behind each more a pause that doubles up to a longest one; one is forgotten every so often."""

    free: int
    forget_s: float
    pause_s_min: float
    pause_s_max: float
    turns: bool = False  # strangers share the bucket: see `limit.lua`

    def arguments(self) -> list[str | int]:
        """As the script takes them."""
        seconds = (self.forget_s, self.pause_s_min, self.pause_s_max)
        return [self.free, *(math.ceil(each * 1000) for each in seconds), int(self.turns)]


def steady(free: int, every_s: float) -> Pace:
    """So many at once, and from then on one in every so many seconds."""
    return Pace(free, every_s, every_s, every_s)


Bucket = tuple[str, Pace]


class LocalBuckets:
    """What `limit.lua` counts, in the memory of this process.

    Buckets that strangers share are left out: without turns whoever asks most often would keep an account's owner out.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._levels: dict[str, tuple[float, float]] = {}  # attempts that were not forgotten at a moment (s)

    def count(self, buckets: Sequence[Bucket]) -> float:
        """Seconds to wait; 0: it may happen, and is counted in all of them."""
        now, wait, counted = self._now(), 0.0, {}
        for name, pace in buckets:
            if pace.turns:
                continue
            level, at = self._levels.get(name, (0.0, now))
            over = math.ceil(level) - pace.free
            if over >= 0:
                wait = max(wait, at + min(pace.pause_s_max, pace.pause_s_min * 2**over) - now)
            counted[name] = (max(0.0, level - (now - at) / pace.forget_s) + 1, now)
        if wait == 0:
            if len(self._levels) + len(counted) > LOCAL_BUCKETS_MAX:
                for old in list(self._levels)[: LOCAL_BUCKETS_MAX // 2]:
                    del self._levels[old]
            for name in counted:
                self._levels.pop(name, None)  # to the end: the busiest are forgotten last
            self._levels |= counted
        return wait

    def give_back(self, buckets: Sequence[Bucket]) -> None:
        """Take one from each that is counted here."""
        for name, _ in buckets:
            if name in self._levels:
                level, at = self._levels[name]
                self._levels[name] = (max(0.0, level - 1), at)

    def forget(self, bucket: Bucket) -> None:
        """Empty it."""
        self._levels.pop(bucket[0], None)
