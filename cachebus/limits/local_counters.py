"""Counters of one process: the strategies of the scripts, for outages and for processes without a server. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Protocol

from cachebus.limits.rules import KEPT, Limit, Look

PARTS = 10
"""Sub-windows of a window, as in `windows.lua`."""


class LocalCounter(Protocol):
    """What one key has used. Times are microseconds of one clock."""

    def look(self, limit: int, window_us: int, cost: int, now_us: int) -> Look:
        """Return what the counter answers to *cost* units. Counts nothing."""
        ...

    def add(self, limit: int, window_us: int, cost: int, now_us: int) -> None:
        """Count *cost* units."""
        ...


class SlidingCounter:
    """Admissions until they leave the window: each at its own time, or, in *parts*, with its tenth of the window.

    A tenth is counted in full until all of it has left. So no window ever holds more than the limit, and in parts an
    admission stops counting a tenth of a window late at most.
    """

    def __init__(self, *, parts: bool) -> None:
        self._parts = parts
        self._admitted: deque[tuple[int, int]] = deque()

    def look(self, limit: int, window_us: int, cost: int, now_us: int) -> Look:
        """See `LocalCounter.look`."""
        leaving = [(self._leaves(at, window_us), units) for at, units in self._admitted]
        leaving = [(at, units) for at, units in leaving if at > now_us]
        free = limit - sum(units for _, units in leaving)

        def until_free(wanted: int) -> int:
            freed, wait = free, 0
            for at, units in leaving:
                if freed < wanted:
                    freed, wait = freed + units, at - now_us
            return wait

        retry = 0 if cost <= free else -1 if cost > limit else until_free(cost)
        return free, retry, until_free(max(free, 0) + 1) if leaving else 0

    def add(self, limit: int, window_us: int, cost: int, now_us: int) -> None:
        """See `LocalCounter.add`."""
        while self._admitted and self._leaves(self._admitted[0][0], window_us) <= now_us:
            self._admitted.popleft()
        if self._admitted and self._leaves(self._admitted[-1][0], window_us) == self._leaves(now_us, window_us):
            cost += self._admitted.pop()[1]
        self._admitted.append((now_us, cost))

    def _leaves(self, at_us: int, window_us: int) -> int:
        if not self._parts:
            return at_us + window_us
        part_us = window_us // PARTS
        return (at_us // part_us + 1 + PARTS) * part_us


class BucketCounter:
    """A token bucket as GCRA: the level counts units times milliseconds of the window, and drains by the limit each."""

    def __init__(self) -> None:
        self._level = 0
        self._at_ms = 0
        self._window_ms = 0

    def look(self, limit: int, window_us: int, cost: int, now_us: int) -> Look:
        """See `LocalCounter.look`."""
        level, window_ms = self._drained(limit, window_us, now_us), window_us // 1000
        capacity = limit * window_ms
        free = (capacity - level) // window_ms

        def drained_to(target: int) -> int:
            return -((target - level) // limit) * 1000

        retry = 0 if cost <= free else -1 if cost > limit else drained_to(capacity - cost * window_ms)
        return free, retry, drained_to(capacity - (max(free, 0) + 1) * window_ms) if level else 0

    def add(self, limit: int, window_us: int, cost: int, now_us: int) -> None:
        """See `LocalCounter.add`."""
        self._level = self._drained(limit, window_us, now_us) + cost * (window_us // 1000)
        self._at_ms, self._window_ms = now_us // 1000, window_us // 1000

    def _drained(self, limit: int, window_us: int, now_us: int) -> int:
        level, window_ms = self._level, window_us // 1000
        if self._window_ms not in (0, window_ms):  # the window was changed: the same share of it is used
            level = -(-level * window_ms // self._window_ms)
        return max(0, level - (now_us // 1000 - self._at_ms) * limit)


class FixedCounter:
    """A count that begins at nothing with each window of the clock."""

    def __init__(self) -> None:
        self._ends_us = 0
        self._units = 0

    def look(self, limit: int, window_us: int, cost: int, now_us: int) -> Look:
        """See `LocalCounter.look`."""
        units = self._units if self._ends_us > now_us else 0
        left = (now_us // window_us + 1) * window_us - now_us
        free = limit - units
        return free, 0 if cost <= free else -1 if cost > limit else left, left if units else 0

    def add(self, limit: int, window_us: int, cost: int, now_us: int) -> None:
        """See `LocalCounter.add`."""
        self._units = cost + (self._units if self._ends_us > now_us else 0)
        self._ends_us = (now_us // window_us + 1) * window_us


class LocalCounters:
    """All counters of one process, by name; the least recently used are dropped beyond KEPT."""

    def __init__(self) -> None:
        self._counters: OrderedDict[str, LocalCounter] = OrderedDict()

    def look(self, name: str, limit: Limit, most: int, cost: int, now_us: int) -> Look:
        """Return what the counter answers to *cost* units where *most* are allowed."""
        counter = self._counters.get(name)
        if counter is None:
            return most, 0 if cost <= most else -1, 0
        return counter.look(most, limit.window_ms * 1000, cost, now_us)

    def take(self, name: str, limit: Limit, most: int, cost: int, now_us: int) -> Look:
        """Count *cost* units; return what is left."""
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = _counter(limit.kind)
        counter.add(most, limit.window_ms * 1000, cost, now_us)
        self._counters.move_to_end(name)
        if len(self._counters) > KEPT:
            self._counters.popitem(last=False)
        return counter.look(most, limit.window_ms * 1000, 0, now_us)

    def drop(self, names: list[str]) -> int:
        """Forget counters; return how many there were."""
        return sum(self._counters.pop(name, None) is not None for name in names)

    def clear(self) -> None:
        """Forget all."""
        self._counters.clear()

    def __len__(self) -> int:
        return len(self._counters)


def _counter(kind: str) -> LocalCounter:
    if kind == "bucket":
        return BucketCounter()
    return FixedCounter() if kind == "fixed" else SlidingCounter(parts=kind == "windows")
