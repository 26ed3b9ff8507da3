"""Rate limits that all processes share: one script, one round trip, the server's time, whole numbers.

A refusal costs nothing: it writes nothing, and while it stands the same request is refused from memory, without a
command. No key is without a TTL. What happens while the server is away is each rule's own choice.
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import msgspec

from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError, RateLimited, ServerError
from cachebus.keys import Template, escape, stored_name
from cachebus.limits import (
    CLOSED_RETRY_US,
    Limit,
    LocalCounters,
    Look,
    RateLimitResult,
    Refusals,
    result_of,
    tightest,
)
from cachebus.link import Link, now_s

log = logging.getLogger("cachebus.ratelimit")
P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = "25ms"
"""With the 25 ms in which a late answer is noticed, a decision takes at most 50 ms."""
LISTEN_AGAIN_US = 30_000_000
KINDS = ("log", "windows", "bucket", "fixed")


@dataclass(frozen=True, slots=True)
class _Question:
    """A request of *cost* against some counters of one slot."""

    counters: tuple[str, ...]
    limits: tuple[Limit, ...]
    cost: int


class RateLimiter:
    """Decides whether requests may pass. One for all tasks of a process; holds no connection of its own.

    *instances* is how many processes share the traffic: in an outage each admits its part of a `local` limit.
    `counts[rule name, outcome]` counts decisions: `allowed`, `refused`, `memory`, and in an outage `open allowed`,
    `local refused` and so on.
    """

    def __init__(self, link: Link, *, instances: int = 1, patience: Duration = PATIENCE) -> None:
        if type(instances) is not int or instances < 1:
            raise ConfigurationError(f"instances: {instances!r} must be a whole number, at least 1")
        self._link = link
        self._instances = instances
        self._patience_s = milliseconds(patience, "patience") / 1000
        self._channel = link.names.bus("limit-resets")
        self._refusals = Refusals()
        self._local = LocalCounters()
        self._away = False
        self._listening = False
        self._listen_at_us = 0
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
        """Count a request of *cost* against *key* if it fits the limit. One round trip; none while a refusal stands.

        Never fails because of the server: `on_outage` decides then, within 50 ms. Not safe to repeat: it counts.
        A changed limit or window holds from the next call; another strategy begins a counter of its own.
        Raises: ConfigurationError (a ValueError) for a key, limit, window, strategy or cost that cannot work.
        """
        rule = _limit(limit, window, strategy, on_outage)
        return await self._decide(self._question(key, {"": rule}, cost), "take")

    async def check_all(self, key: str, limits: Mapping[str, Limit], *, cost: int = 1) -> RateLimitResult:
        """Count a request against several limits at once: against all, or, if any refuses, against none.

        `{"second": Limit(10, "1s"), "hour": Limit(1000, "1h")}` are two counters of *key*, which also names their slot.
        For limits of different subjects *key* is what they share: `("login", {"ip:1.2.3.4": …, "user:7": …})`.
        Returns: the tightest result, with `each`. Otherwise as `check`.
        """
        return await self._decide(self._question(key, limits, cost), "take")

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
        return await self._decide(self._question(key, {"": rule}, cost), "peek")

    async def reset(self, key: str, *counters: str) -> bool:
        """Forget what was counted for *key*, whatever the strategy, also where a refusal is remembered.

        *counters* names those of `check_all`; without them it is the one of `check`. Returns whether there was any.
        Safe to repeat. Raises: ServerError when the server is away.
        """
        names = [f"{self._counter(key, name)}:{kind}" for name in counters or ("",) for kind in KINDS]
        removed = await self._link.store.call("UNLINK", *names, key=names[0])
        self._refusals.drop(names)
        await self._link.store.call("PUBLISH", self._channel, msgspec.json.encode(names), key=self._channel)
        return bool(removed)

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
                question = self._question(template.format(call.arguments), {"": rule}, cost)
                result = await self._decide(question, "take")
                if not result:
                    raise RateLimited(result)
                return await function(*args, **kwargs)

            return wrapper

        return decorate

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _decide(self, question: _Question, verb: str) -> RateLimitResult:
        now_us = int(now_s() * 1e6)
        results = self._refused_before(question, now_us) if verb == "take" else []
        if not results:
            drops = self._refusals.drops
            try:
                looks = await self._ask(question, verb)
            except ServerError as reason:
                results = self._decide_alone(question, verb, reason, now_us)
            else:
                results = [result_of(*answer, "server") for answer in zip(question.limits, looks, strict=True)]
                if verb == "take" and not all(results) and await self._hears_resets() and drops == self._refusals.drops:
                    self._remember(question, looks, now_us)
        if verb == "take":
            for result in results:
                self.counts[result.policy.name, _outcome(result)] += 1
        return tightest(results)

    async def _ask(self, question: _Question, verb: str) -> list[Look]:
        arguments: list[str | int] = [question.cost, verb]
        for limit in question.limits:
            arguments += [limit.kind, limit.limit, limit.window_ms * 1000]
        reply = await self._link.store.run("limit_check", question.counters, arguments, timeout_s=self._patience_s)
        if self._away:
            self._away = False
            self._local.clear()
            log.warning("rate limits: the server decides again")
        return [(reply[i], reply[i + 1], reply[i + 2]) for i in range(1, len(reply), 3)]

    def _refused_before(self, question: _Question, now_us: int) -> list[RateLimitResult]:
        results = []
        for counter, limit in zip(question.counters, question.limits, strict=True):
            look = self._refusals.find(counter, limit, question.cost, now_us)
            if look is not None:
                results.append(result_of(limit, look, "memory"))
        return results

    def _remember(self, question: _Question, looks: Sequence[Look], asked_us: int) -> None:
        for counter, limit, look in zip(question.counters, question.limits, looks, strict=True):
            if look[1] > 0:
                self._refusals.remember(counter, limit, question.cost, asked_us, look)

    async def _hears_resets(self) -> bool:
        """Listen to the resets of other processes, from the first refusal on; only then is one remembered."""
        now_us = int(now_s() * 1e6)
        if not self._listening and now_us >= self._listen_at_us:
            self._listen_at_us = now_us + LISTEN_AGAIN_US
            try:
                await self._link.subscriptions.subscribe(self._channel, self._on_reset, on_gap=self._refusals.clear)
            except ServerError as reason:
                log.warning("rate limits: resets cannot be heard (%s), so refusals are not remembered", reason)
            else:
                self._listening = True
        return self._listening

    def _on_reset(self, _channel: str, payload: bytes) -> None:
        self._refusals.drop(msgspec.json.decode(payload, type=list[str]))

    def _decide_alone(self, question: _Question, verb: str, reason: ServerError, now_us: int) -> list[RateLimitResult]:
        if not self._away:
            self._away = True
            log.warning("rate limits: the server cannot be asked (%s); each rule's on_outage decides", reason)
        asked = list(zip(question.counters, question.limits, strict=True))
        looks = [self._look_alone(counter, limit, question.cost, now_us) for counter, limit in asked]
        if verb == "take" and not any(retry_us for _, retry_us, _ in looks):
            for i, (counter, limit) in enumerate(asked):
                if limit.on_outage == "local":
                    reset_us = self._local.add(counter, limit.window_ms * 1000, question.cost, now_us)
                    looks[i] = (looks[i][0] - question.cost, 0, reset_us)
        return [result_of(limit, look, limit.on_outage) for (_, limit), look in zip(asked, looks, strict=True)]

    def _look_alone(self, counter: str, limit: Limit, cost: int, now_us: int) -> Look:
        if limit.on_outage == "open":
            return limit.limit, 0, 0
        if limit.on_outage == "closed":
            return 0, CLOSED_RETRY_US, CLOSED_RETRY_US
        share = max(limit.limit // self._instances, min(cost, limit.limit))
        return self._local.look(counter, share, limit.window_ms * 1000, cost, now_us)

    def _counter(self, key: str, name: str) -> str:
        if type(key) is not str or key == "":
            raise ConfigurationError(f"key: {key!r} must be a text that says who is limited")
        slot = self._link.names.spread("limit", stored_name(key))
        return f"{slot}:{stored_name(name)}" if name else slot

    def _question(self, key: str, limits: Mapping[str, Limit], cost: int) -> _Question:
        if not limits:
            raise ConfigurationError("limits: there must be at least one")
        counters = tuple(f"{self._counter(key, name)}:{limit.kind}" for name, limit in limits.items())
        return _Question(counters, tuple(limits.values()), _checked_cost(cost))


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
