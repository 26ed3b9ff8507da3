"""Which limits this process enforces, and how often it refused lately: for who looks at the live page."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from cachebus.limits.rules import Limit

MOST_SEEN = 1000
"""Counters that are remembered; of more, those that were asked longest ago are dropped."""
MOST_TOLD = 200
SLOTS, SLOT_US = 6, 10_000_000
"""A minute of refusals, in parts of ten seconds."""


class SeenLimit(msgspec.Struct, frozen=True):
    """A counter as one process knows it."""

    counter: str
    """Its key in Redis."""
    limit: int
    window_ms: int
    refused: int
    """Requests refused in the last minute, from memory or not."""


class RefusedLately:
    """How many there were in the last minute, to within ten seconds."""

    __slots__ = ("_counts", "_newest")

    def __init__(self) -> None:
        self._counts = [0] * SLOTS
        self._newest = 0

    def add(self, now_us: int) -> None:
        """Count one."""
        self._move(now_us // SLOT_US)
        self._counts[self._newest % SLOTS] += 1

    def lately(self, now_us: int) -> int:
        """Return how many there were."""
        self._move(now_us // SLOT_US)
        return sum(self._counts)

    def _move(self, slot: int) -> None:
        for passed in range(min(SLOTS, slot - self._newest)):
            self._counts[(slot - passed) % SLOTS] = 0
        self._newest = max(self._newest, slot)


class SeenLimits:
    """The counters of one process."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[Limit, RefusedLately]] = OrderedDict()

    def note(self, counter: str, limit: Limit, now_us: int, *, allowed: bool) -> None:
        """Take note of a decision."""
        _, refusals = self._seen.get(counter) or (limit, RefusedLately())
        self._seen[counter] = (limit, refusals)  # a limit may have been changed: the last one is told
        self._seen.move_to_end(counter)
        if len(self._seen) > MOST_SEEN:
            self._seen.popitem(last=False)
        if not allowed:
            refusals.add(now_us)

    def told(self, now_us: int) -> list[SeenLimit]:
        """Return them, most refused first; of equals the newest."""
        rows: Iterator[SeenLimit] = (
            SeenLimit(counter, limit.limit, limit.window_ms, refusals.lately(now_us))
            for counter, (limit, refusals) in reversed(self._seen.items())
        )
        return heapq.nlargest(MOST_TOLD, rows, key=lambda row: row.refused)
