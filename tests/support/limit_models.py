"""What each strategy must answer, in exact rational numbers and the plainest words."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction

Look = tuple[int, int, int]
"""Units free, us until this cost passes (0 it does, -1 never), us until more is free."""


@dataclass
class LogModel:
    """Every admitted unit counts from its time until a window later."""

    limit: int
    window: int
    admitted: deque[int] = field(default_factory=deque)

    def take(self, now: int, cost: int) -> Look:
        live = [t for t in self.admitted if t + self.window > now]
        free = self.limit - len(live)
        if cost > self.limit:
            retry = -1
        elif cost > free:
            retry = live[cost - free - 1] + self.window - now
        else:
            retry = 0
            live += [now] * cost
            free -= cost
        self.admitted = deque(live)
        return free, retry, (live[0] + self.window - now if live else 0)


@dataclass
class WindowsModel:
    """The window is ten parts of the epoch; what was admitted in one counts until ten more have begun and ended."""

    limit: int
    window: int
    admitted: dict[int, int] = field(default_factory=dict)

    def take(self, now: int, cost: int) -> Look:
        part = Fraction(self.window, 10)
        self.admitted = {p: n for p, n in self.admitted.items() if self._leaves(p) > now}
        free = self.limit - sum(self.admitted.values())
        retry = -1 if cost > self.limit else self._until(free, cost, now)
        if retry == 0:
            index = math.floor(now / part)
            self.admitted[index] = self.admitted.get(index, 0) + cost
            free -= cost
        return free, retry, self._until(free, free + 1, now) if self.admitted else 0

    def _leaves(self, part: int) -> Fraction:
        return (part + 11) * Fraction(self.window, 10)

    def _until(self, free: int, units: int, now: int) -> int:
        wait = Fraction(0)
        for part in sorted(self.admitted):
            if free >= units:
                break
            free += self.admitted[part]
            wait = self._leaves(part) - now
        return int(wait)


@dataclass
class BucketModel:
    """A token comes back every window/limit; time is in whole milliseconds."""

    limit: int
    window: int
    full_at: Fraction = Fraction(0)

    def take(self, now: int, cost: int) -> Look:
        token = Fraction(self.window // 1000, self.limit)
        tick = Fraction(now // 1000)
        self.full_at = max(self.full_at, tick)
        free = math.floor(self.limit - (self.full_at - tick) / token)
        retry = -1 if cost > self.limit else self._until(cost, tick, token)
        if retry == 0:
            self.full_at += cost * token
            free -= cost
        return free, retry, self._until(free + 1, tick, token) if self.full_at > tick else 0

    def _until(self, units: int, tick: Fraction, token: Fraction) -> int:
        return 1000 * max(0, math.ceil(self.full_at - tick - (self.limit - units) * token))


@dataclass
class FixedModel:
    """Each window of the epoch counts for itself."""

    limit: int
    window: int
    index: int = -1
    used: int = 0

    def take(self, now: int, cost: int) -> Look:
        if now // self.window != self.index:
            self.index, self.used = now // self.window, 0
        left = (self.index + 1) * self.window - now
        free = self.limit - self.used
        retry = -1 if cost > self.limit else 0 if cost <= free else left
        if retry == 0:
            self.used += cost
            free -= cost
        return free, retry, left if self.used else 0


MODELS = {"log": LogModel, "windows": WindowsModel, "bucket": BucketModel, "fixed": FixedModel}
