"""What `RateLimiter` asks of the place where counters are kept, and the place that is inside one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from cachebus.clock import now_s
from cachebus.limits.local_counters import LocalCounters
from cachebus.limits.rules import Limit, RateLimitResult, result_of

Verb = Literal["take", "peek"]


@dataclass(frozen=True, slots=True)
class LimitRequest:
    """A request of *cost* against some counters of one slot."""

    counters: tuple[str, ...]
    limits: tuple[Limit, ...]
    cost: int

    def pairs(self) -> list[tuple[str, Limit]]:
        """Return each counter with its limit."""
        return list(zip(self.counters, self.limits, strict=True))


class LimitBackend(Protocol):
    """Where counters are kept."""

    async def decide(self, request: LimitRequest, verb: Verb) -> list[RateLimitResult]:
        """Return each limit's decision; with `take`, count against all, or, if one refuses, against none."""
        ...

    async def reset(self, counters: list[str]) -> bool:
        """Forget counters, everywhere; return whether there was any."""
        ...


class LocalLimits:
    """Counters of this process alone, for `REDIS_ENABLED=false`; shared by every `RateLimiter` of its cache."""

    def __init__(self) -> None:
        self._counters = LocalCounters()

    async def decide(self, request: LimitRequest, verb: Verb) -> list[RateLimitResult]:
        """See `LimitBackend.decide`."""
        asked, cost, now_us = request.pairs(), request.cost, int(now_s() * 1e6)
        looks = [self._counters.look(counter, limit, limit.limit, cost, now_us) for counter, limit in asked]
        if verb == "take" and not any(retry_us for _, retry_us, _ in looks):
            looks = [self._counters.take(counter, limit, limit.limit, cost, now_us) for counter, limit in asked]
        return [result_of(limit, look, "local") for (_, limit), look in zip(asked, looks, strict=True)]

    async def reset(self, counters: list[str]) -> bool:
        """See `LimitBackend.reset`."""
        return bool(self._counters.drop(counters))
