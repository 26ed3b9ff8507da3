"""Rate limits for code without an event loop: Flask, Django, Celery, `def` endpoints."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

from cachebus.durations import Duration
from cachebus.errors import ConfigurationError, RateLimited
from cachebus.keys import Template, escape
from cachebus.limits import Limit, RateLimitResult
from cachebus.ratelimit import RateLimiter
from cachebus.sync import SyncCache
from cachebus.syncpart import SyncPart, needed

P = ParamSpec("P")
R = TypeVar("R")


class SyncRateLimiter:
    """A `RateLimiter` for callers without a loop, over the connections of a `SyncCache`. Thread-safe; fork-safe.

    Raises in a process without Redis: ConfigurationError, at the first decision.
    """

    def __init__(self, cache: SyncCache, *, instances: int = 1) -> None:
        self._part = SyncPart(cache, lambda link: RateLimiter(needed(link), instances=instances))

    def check(
        self,
        key: str,
        *,
        limit: int,
        window: Duration,
        strategy: str = "sliding_window",
        cost: int = 1,
        on_outage: str = "local",
    ) -> RateLimitResult:
        """Count a request against *key* if it fits the limit. See `RateLimiter.check`."""
        return self._part.run(
            lambda limiter: limiter.check(
                key, limit=limit, window=window, strategy=strategy, cost=cost, on_outage=on_outage
            )
        )

    def check_all(self, key: str, limits: Mapping[str, Limit], *, cost: int = 1) -> RateLimitResult:
        """Count a request against several limits, or none. See `RateLimiter.check_all`."""
        return self._part.run(lambda limiter: limiter.check_all(key, limits, cost=cost))

    def peek(
        self,
        key: str,
        *,
        limit: int,
        window: Duration,
        strategy: str = "sliding_window",
        cost: int = 1,
        on_outage: str = "local",
    ) -> RateLimitResult:
        """Return what `check` would decide. See `RateLimiter.peek`."""
        return self._part.run(
            lambda limiter: limiter.peek(
                key, limit=limit, window=window, strategy=strategy, cost=cost, on_outage=on_outage
            )
        )

    def reset(self, key: str, *counters: str) -> bool:
        """Forget what was counted for *key*. See `RateLimiter.reset`."""
        return self._part.run(lambda limiter: limiter.reset(key, *counters))

    def limited(
        self,
        key: str,
        *,
        limit: int,
        window: Duration,
        strategy: str = "sliding_window",
        cost: int = 1,
        on_outage: str = "local",
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a plain function: a call beyond the limit raises RateLimited and does not run.

        *key* is a template of its parameters: `"export:{user_id}"`. Raises: ConfigurationError, here.
        """
        rule = Limit(limit, window, strategy, on_outage)
        if cost > limit:
            raise ConfigurationError(f"cost: {cost} is more than the limit of {limit}; no call could ever run")

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            if inspect.iscoroutinefunction(function):
                raise ConfigurationError(f"{function!r}: an async function is limited by `RateLimiter.limited`")
            signature = inspect.signature(function)
            template = Template(key, signature.parameters, what="key", word=escape)

            @wraps(function)
            def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
                call = signature.bind(*args, **kwargs)
                call.apply_defaults()
                result = self.check_all(template.format(call.arguments), {"": rule}, cost=cost)
                if not result:
                    raise RateLimited(result)
                return function(*args, **kwargs)

            return wrapper

        return decorate
