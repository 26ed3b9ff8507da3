"""Rate limits for code without an event loop: Flask, Django, Celery, `def` endpoints."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from cachebus.durations import Duration
from cachebus.errors import ConfigurationError
from cachebus.limits.limiter import RateLimiter as AsyncRateLimiter
from cachebus.limits.rules import Limit
from cachebus.sync.forwarders import RateLimiterForwarders
from cachebus.sync.part import SyncCache, asynchronous
from cachebus.templates import Template, escape

P = ParamSpec("P")
R = TypeVar("R")


class RateLimiter(RateLimiterForwarders):
    """A `cachebus.RateLimiter` for callers without a loop, over a `Cache`. Thread-safe; works after a fork."""

    def __init__(self, cache: SyncCache, **options: Any) -> None:
        """*options* are those of `cachebus.RateLimiter`."""
        super().__init__(cache, AsyncRateLimiter(asynchronous(cache, "RateLimiter"), **options))

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
                raise ConfigurationError(f"{function!r}: an async function is limited by `cachebus.RateLimiter`")
            signature = inspect.signature(function)
            template = Template(key, signature.parameters, what="key", word=escape)

            @wraps(function)
            def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
                call = signature.bind(*args, **kwargs)
                call.apply_defaults()
                result = self.check_all(template.format(call.arguments), {"": rule}, cost=cost)
                if not result:
                    raise result.refusal()
                return function(*args, **kwargs)

            return wrapper

        return decorate
