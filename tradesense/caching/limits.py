"""`rate_limiter`: may this request pass? For code without an event loop. The rules are `cachebus.ratelimit`'s."""

from __future__ import annotations

from cachebus.durations import Duration
from cachebus.limits import RateLimitResult
from cachebus.synclimits import SyncRateLimiter
from tradesense.caching.shared import primitives


class Limits(SyncRateLimiter):
    """Limits that all processes share. A check is one round trip, none while a refusal stands."""

    def check_rate_limit(
        self,
        key: str,
        limit: int,
        window: Duration,
        strategy: str = "sliding_window",
        *,
        cost: int = 1,
        on_outage: str = "local",
    ) -> RateLimitResult:
        """Count a request if it fits, and return the decision, which unpacks to `(allowed, remaining)`.

        *strategy* is `sliding_window`, `token_bucket` or `fixed_window`. While the server is away, *on_outage* decides
        within 50 ms: `local`, `open` or `closed`. Raises: ConfigurationError (a ValueError) for what cannot be.
        """
        return self.check(key, limit=limit, window=window, strategy=strategy, cost=cost, on_outage=on_outage)

    reset_limit = SyncRateLimiter.reset


rate_limiter = Limits(primitives)
