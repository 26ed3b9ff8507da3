"""Counters on the server: one script a decision, refusals that are remembered, and what each rule does in an outage."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from cachebus.clock import now_s
from cachebus.errors import ServerError
from cachebus.limits.backend import LimitRequest, Verb
from cachebus.limits.local_counters import LocalCounters
from cachebus.limits.rules import CLOSED_RETRY_US, Limit, Look, RateLimitResult, RememberedRefusals, result_of
from cachebus.limits.seen import SeenLimits
from cachebus.redis.client import Client

log = logging.getLogger("cachebus.limits.limiter")

LISTEN_AGAIN_US = 30_000_000
"""How long after a failed subscription to resets the next one is tried."""


class ServerLimits:
    """Implements `LimitBackend` over a client. A decision never fails: in an outage each rule's `on_outage` decides."""

    def __init__(self, client: Client, *, instances: int, patience_s: float) -> None:
        self._client = client
        self._instances = instances
        self._patience_s = patience_s
        self._channel = client.names.bus("limit-resets")
        self._refusals = RememberedRefusals()
        self._local = LocalCounters()
        self._away = False
        self._listening = False
        self._listen_at_us = 0
        self._subscribing: asyncio.Task[None] | None = None
        self._seen = SeenLimits()
        client.tellers["limits"].append(lambda _: self._seen.told(int(now_s() * 1e6)))

    async def decide(self, request: LimitRequest, verb: Verb) -> list[RateLimitResult]:
        """See `LimitBackend.decide`. One round trip."""
        now_us = int(now_s() * 1e6)
        if verb == "peek":
            return await self._decided(request, verb, now_us)
        if known := self._refused_before(request, now_us):
            return known
        results = await self._decided(request, verb, now_us)
        for (counter, limit), result in zip(request.pairs(), results, strict=True):
            self._seen.note(counter, limit, now_us, allowed=result.allowed)
        return results

    async def _decided(self, request: LimitRequest, verb: Verb, now_us: int) -> list[RateLimitResult]:
        drops = self._refusals.drops
        try:
            looks = await self._ask(request, verb)
        except ServerError as reason:
            return self._decide_alone(request, verb, reason, now_us)
        results = [result_of(*answer, "server") for answer in zip(request.limits, looks, strict=True)]
        if verb == "take" and not all(results) and await self._hears_resets() and drops == self._refusals.drops:
            self._remember(request, looks, now_us)
        return results

    async def reset(self, counters: list[str]) -> bool:
        """See `LimitBackend.reset`. Raises: ServerError."""
        removed = await self._client.store.call("UNLINK", *counters, key=counters[0])
        self._refusals.drop(counters)
        await self._client.store.call("PUBLISH", self._channel, msgspec.json.encode(counters), key=self._channel)
        return bool(removed)

    async def _ask(self, request: LimitRequest, verb: Verb) -> list[Look]:
        arguments: list[str | int] = [request.cost, verb]
        for limit in request.limits:
            arguments += [limit.kind, limit.limit, limit.window_ms * 1000]
        reply = await self._client.store.run("limits/check", request.counters, arguments, timeout_s=self._patience_s)
        if self._away:
            self._away = False
            self._local.clear()
            log.warning("rate limits: server available again")
        return [(reply[i], reply[i + 1], reply[i + 2]) for i in range(1, len(reply), 3)]

    def _refused_before(self, request: LimitRequest, now_us: int) -> list[RateLimitResult]:
        results = []
        for counter, limit in request.pairs():
            look = self._refusals.find(counter, limit, request.cost, now_us)
            if look is not None:
                results.append(result_of(limit, look, "memory"))
                self._seen.note(counter, limit, now_us, allowed=False)
        return results

    def _remember(self, request: LimitRequest, looks: Sequence[Look], asked_us: int) -> None:
        for counter, limit, look in zip(request.counters, request.limits, looks, strict=True):
            if look[1] > 0:
                self._refusals.remember(counter, limit, request.cost, asked_us, look)

    async def _hears_resets(self) -> bool:
        """Listen to the resets of other processes, from the first refusal on; only then is one remembered.

        No decision waits longer for that than for the server.
        """
        now_us = int(now_s() * 1e6)
        if not self._listening and now_us >= self._listen_at_us:
            self._listen_at_us = now_us + LISTEN_AGAIN_US
            self._subscribing = asyncio.ensure_future(self._listen())
            await asyncio.wait([self._subscribing], timeout=self._patience_s)
        return self._listening

    async def _listen(self) -> None:
        try:
            await self._client.subscriptions.subscribe(self._channel, self._on_reset, on_gap=self._refusals.clear)
        except ServerError as reason:
            log.warning("rate limits: resets cannot be heard (%s), so refusals are not remembered", reason)
        else:
            self._listening = True

    def _on_reset(self, _channel: str, payload: bytes) -> None:
        self._refusals.drop(msgspec.json.decode(payload, type=list[str]))

    def _decide_alone(
        self, request: LimitRequest, verb: Verb, reason: ServerError, now_us: int
    ) -> list[RateLimitResult]:
        if not self._away:
            self._away = True
            log.warning("rate limits: server unavailable (%s); each rule's on_outage decides", reason)
        asked = [(counter, limit, self._share(limit, request.cost)) for counter, limit in request.pairs()]
        looks = [self._look_alone(counter, limit, most, request.cost, now_us) for counter, limit, most in asked]
        if verb == "take" and not any(retry_us for _, retry_us, _ in looks):
            for i, (counter, limit, most) in enumerate(asked):
                if limit.on_outage == "local":
                    looks[i] = self._local.take(counter, limit, most, request.cost, now_us)
        return [result_of(limit, look, limit.on_outage) for (_, limit, _), look in zip(asked, looks, strict=True)]

    def _share(self, limit: Limit, cost: int) -> int:
        """Return what this process admits of a limit, at least one request."""
        return max(limit.limit // self._instances, min(cost, limit.limit))

    def _look_alone(self, counter: str, limit: Limit, most: int, cost: int, now_us: int) -> Look:
        if limit.on_outage == "open":
            return limit.limit, 0, 0
        if limit.on_outage == "closed":
            return 0, CLOSED_RETRY_US, CLOSED_RETRY_US
        return self._local.look(counter, limit, most, cost, now_us)
