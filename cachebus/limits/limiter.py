"""Rate limits that all processes share: one script, one round trip, the server's time, whole numbers.

A refusal writes nothing, and until it can pass the same request is refused from memory, without a command. No key is
without a TTL. What happens while the server is unavailable is each rule's own choice.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError
from cachebus.limits.backend import LimitBackend, LimitRequest, LocalLimits, Verb
from cachebus.limits.rules import Limit, RateLimitResult, tightest
from cachebus.limits.server_backend import ServerLimits
from cachebus.redis.client import Connector
from cachebus.redis.part import Part
from cachebus.templates import NO_UTF8, Template, escape, has_surrogate, stored_name

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = "25ms"
"""With the 25 ms in which a late answer is noticed, a decision takes at most 50 ms."""
KINDS = ("log", "windows", "bucket", "fixed")


class RateLimiter:
    """Decides whether requests may pass, over a `Cache` or a `Client`; created at import time too. One for all tasks.

    Without a server (`Cache.memory()`, `REDIS_ENABLED=false`) it counts in this process, by the same strategies.

    *instances* is how many processes share the traffic: in an outage each admits its part of a `local` limit.
    `counts[rule name, outcome]` counts decisions: `allowed`, `refused`, `memory`, and in an outage `open allowed`,
    `local refused` and so on.
    """

    def __init__(self, connector: Connector, *, instances: int = 1, patience: Duration = PATIENCE) -> None:
        if type(instances) is not int or instances < 1:
            raise ConfigurationError(f"instances: {instances!r} must be a whole number, at least 1")
        patience_s = milliseconds(patience, "patience") / 1000
        self._connector = connector
        self._part: Part[LimitBackend] = Part(
            connector,
            lambda client: ServerLimits(client, instances=instances, patience_s=patience_s),
            lambda in_process: in_process.of(LocalLimits),
        )
        self.counts: Counter[tuple[str, str]] = Counter()

    async def check(
        self,
        key: str,
        *,
        limit: int,
        window: Duration,
        strategy: str = "sliding_window",
        cost: int = 1,
        on_outage: str = "local",
    ) -> RateLimitResult:
        """Count a request of *cost* against *key* if it fits the limit.

        One round trip; none while the same request is refused from memory.

        Never fails because of the server: `on_outage` decides then, within 50 ms. Not safe to repeat: it counts.
        A changed limit or window holds from the next call; another strategy begins a counter of its own.
        Raises: ConfigurationError (a ValueError) for a key, limit, window, strategy or cost that cannot work.
        """
        rule = _limit(limit, window, strategy, on_outage)
        return await self._decide(self._request(key, {"": rule}, cost), "take")

    async def check_all(self, key: str, limits: Mapping[str, Limit], *, cost: int = 1) -> RateLimitResult:
        """Count a request against several limits at once: against all, or, if any refuses, against none.

        `{"second": Limit(10, "1s"), "hour": Limit(1000, "1h")}` are two counters of *key*, which also names their slot.
        For limits of different subjects *key* is what they share: `("login", {"ip:1.2.3.4": …, "user:7": …})`.
        Returns: the tightest result, with `each`. Otherwise as `check`.
        """
        return await self._decide(self._request(key, limits, cost), "take")

    async def peek(
        self,
        key: str,
        *,
        limit: int,
        window: Duration,
        strategy: str = "sliding_window",
        cost: int = 1,
        on_outage: str = "local",
    ) -> RateLimitResult:
        """Return what `check` would decide, and count nothing. One round trip."""
        rule = _limit(limit, window, strategy, on_outage)
        return await self._decide(self._request(key, {"": rule}, cost), "peek")

    async def reset(self, key: str, *counters: str) -> bool:
        """Forget what was counted for *key*, whatever the strategy, also where a refusal is remembered.

        *counters* names those of `check_all`; without them it is the one of `check`. Returns whether there was any.
        Safe to repeat. Raises: ServerError while the server is unavailable.
        """
        names = [f"{self._counter(key, name)}:{kind}" for name in counters or ("",) for kind in KINDS]
        return await (await self._part.get()).reset(names)

    def limited(
        self,
        key: str,
        *,
        limit: int,
        window: Duration,
        strategy: str = "sliding_window",
        cost: int = 1,
        on_outage: str = "local",
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
        """Decorate an async function: a call beyond the limit raises RateLimited and does not run.

        *key* is a template of the function's parameters: `"export:{user_id}"`.
        Raises: ConfigurationError, here and not at the first call.
        """
        rule = _limit(limit, window, strategy, on_outage)
        if _checked_cost(cost) > limit:
            raise ConfigurationError(f"cost: {cost} is more than the limit of {limit}; no call could ever run")

        def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
            if not inspect.iscoroutinefunction(function):
                raise ConfigurationError(f"{function!r}: only an async function can be limited here")
            signature = inspect.signature(function)
            template = Template(key, signature.parameters, what="key", word=escape)

            @wraps(function)
            async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
                call = signature.bind(*args, **kwargs)
                call.apply_defaults()
                request = self._request(template.format(call.arguments), {"": rule}, cost)
                result = await self._decide(request, "take")
                if not result:
                    raise result.refusal()
                return await function(*args, **kwargs)

            return wrapper

        return decorate

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _decide(self, request: LimitRequest, verb: Verb) -> RateLimitResult:
        results = await (await self._part.get()).decide(request, verb)
        if verb == "take":
            for result in results:
                self.counts[result.policy.name, _outcome(result)] += 1
        return tightest(results)

    def _counter(self, key: str, name: str) -> str:
        if type(key) is not str or key == "":
            raise ConfigurationError(f"key: {key!r} must be a text that says who is limited")
        if has_surrogate(key):
            raise ConfigurationError(f"key: {key!r} {NO_UTF8}")
        slot = self._connector.names.spread("limit", stored_name(key))
        return f"{slot}:{stored_name(name)}" if name else slot

    def _request(self, key: str, limits: Mapping[str, Limit], cost: int) -> LimitRequest:
        if not limits:
            raise ConfigurationError("limits: there must be at least one")
        try:
            counters = tuple(f"{self._counter(key, name)}:{limit.kind}" for name, limit in limits.items())
        except AttributeError:
            raise ConfigurationError(
                f'limits: {limits!r} must have names and limits: {{"minute": Limit(60, "1m")}}'
            ) from None
        return LimitRequest(counters, tuple(limits.values()), _checked_cost(cost))


def _checked_cost(cost: int) -> int:
    if type(cost) is not int or cost < 1:
        raise ConfigurationError(f"cost: {cost!r} must be a whole number, at least 1")
    return cost


def _outcome(result: RateLimitResult) -> str:
    if result.source == "memory":
        return "memory"
    verdict = "allowed" if result.allowed else "refused"
    return verdict if result.source == "server" else f"{result.source} {verdict}"


@lru_cache(maxsize=1024, typed=True)
def _limit(limit: int, window: Duration, strategy: str, on_outage: str) -> Limit:
    return Limit(limit, window, strategy, on_outage)
