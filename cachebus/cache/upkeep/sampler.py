"""The consistency sampler: asks the source again, now and then, whether what was served is still true.

The freshness rule guarantees that nothing invalidated is served. It cannot know of a change that nobody announced: a
write path that forgot its event, a cron job, a hand in the database. The sampler finds those.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from time import perf_counter
from typing import Any

from cachebus.cache.call import AnyCodec
from cachebus.cache.hooks import Observer
from cachebus.cache.stats import ViewStats
from cachebus.cache.tiers.s3fifo import CachedValue
from cachebus.cache.view import View
from cachebus.errors import ServerError
from cachebus.freshness.ledger import Ledger
from cachebus.waiting import end

log = logging.getLogger("cachebus")

SETTLE_S = 1.0
"""How long an invalidation may trail the change it announces before the difference counts as stale."""
AT_ONCE = 2
"""Checks under way at the same time; more are skipped, they are only samples."""
TIMED_HITS = 256
"""One of this many memory hits is timed."""


def _time_hit(view: View[Any, Any], args: tuple[Any, ...], observers: Iterable[Observer]) -> None:
    """Answer a hit once more and take the time: the hits themselves need not look at a clock."""
    began = perf_counter()
    held = view.held(args, {})
    if held is not None:
        if held.payload is not None:
            view.codec.decode(held.payload)
        took_s = perf_counter() - began
        view.stats.hits_timed += 1
        view.stats.hit_us += took_s * 1e6
        for observer in observers:
            observer.hit_timed(view.name, took_s)


class ConsistencySampler:
    """Compares one in *every* memory hits with a fresh load, in the background."""

    def __init__(self, every: int, held: Mapping[str, CachedValue], ledger: Ledger | None) -> None:
        self._every = every
        self._held = held
        self._ledger = ledger
        self._checks: set[asyncio.Task[None]] = set()

    def noticed(
        self, view: View[Any, Any], args: tuple[Any, ...], held: CachedValue, observers: Iterable[Observer]
    ) -> None:
        """Look at a hit: time it, or compare it, where its number says so."""
        hits = view.stats.l1_hits
        if hits % TIMED_HITS == 0:
            _time_hit(view, args, observers)
        if self._every > 0 and hits % self._every == 0 and len(self._checks) < AT_ONCE:
            self.check(view.key(*args), held, view.codec, view.stats, partial(view.load, *args))

    def check(
        self,
        key: str,
        held: CachedValue,
        codec: AnyCodec,
        stats: ViewStats,
        load: Callable[[], Awaitable[Any]],
    ) -> None:
        """Compare *held* with what *load* returns now; a difference that nobody announced is counted and told."""
        task = asyncio.ensure_future(self._check(key, held, codec, stats, load))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    async def close(self) -> None:
        """Give up the checks under way."""
        await end(self._checks)

    async def _check(
        self,
        key: str,
        held: CachedValue,
        codec: AnyCodec,
        stats: ViewStats,
        load: Callable[[], Awaitable[Any]],
    ) -> None:
        served = held.payload if held.payload is not None else codec.settle(held.value)[1]
        try:
            _, truth = codec.settle(await load())
        except Exception as failed:  # noqa: BLE001 - a sample that cannot be taken is no sample
            log.debug("%s: no consistency sample: %r", key, failed)
            return
        stats.samples += 1
        if truth == served:
            return
        await asyncio.sleep(SETTLE_S)
        if self._held.get(key) is held and await self._still_valid(held):
            stats.stale_detected += 1
            log.warning("%s: the source has changed and nothing invalidated it; does every write path say so?", key)

    async def _still_valid(self, held: CachedValue) -> bool:
        if self._ledger is None:
            return True
        try:
            answer = await self._ledger.ask(held.scopes)
        except ServerError:
            return False
        return answer.allows(held.as_of, held.scopes)
