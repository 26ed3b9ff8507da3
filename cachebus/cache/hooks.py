"""Hooks: what a program may learn of its cache while it runs.

Reads are counted, not called: a hit from memory takes less time than a call of a hook would, so hooks get the counts of
an interval. A load is long enough to be called around. Names are templates of views, never keys: a million users are
one name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Protocol

from cachebus.cache.stats import CacheStats, ViewStats
from cachebus.durations import Duration, milliseconds
from cachebus.waiting import end

log = logging.getLogger("cachebus")

EVERY = "1s"

_COUNTERS = tuple(field.name for field in fields(ViewStats))


class Observer:
    """Derive from it and define what you need. Called where the thing happens; must not block."""

    def loading(self, view: str) -> contextlib.AbstractContextManager[object]:
        """Return what a load of *view* shall run within: entered before it, left after it or with its exception.

        What it raises is raised to whoever reads.
        """
        return contextlib.nullcontext()

    def hit_timed(self, view: str, seconds: float) -> None:
        """A memory hit of *view* took so long; one of 256 is timed."""

    def invalidating(self) -> None:
        """`invalidate`, `clear` or `delete` was called, in the caller's thread and context; nothing is sent yet."""


class Watched(Protocol):
    """What is asked of a cache that is watched."""

    def stats(self) -> CacheStats: ...
    def observed_by(self, observer: Observer) -> contextlib.AbstractContextManager[None]: ...


class Hooks(Observer):
    """What is called, always in the cache's event loop. Derive from it and define what you need.

    None of them may block. What `loading` raises is for whoever reads; what `counted` and `changed` raise is logged.
    """

    def counted(self, view: str, counts: ViewStats) -> None:
        """*view* was used: hits by layer, loads, waits, stale values, bytes, invalidations since the last time."""

    def changed(self, before: CacheStats, now: CacheStats) -> None:
        """The cache's state changed: Redis is unavailable or back, the journal had a gap, invalidations wait."""


@contextlib.asynccontextmanager
async def watching(cache: Watched, hooks: Hooks, *, every: Duration = EVERY) -> AsyncIterator[None]:
    """Call *hooks* while this block runs; what is left is counted at its end. Without it the cache pays nothing.

    Several may run at once and end in any order.
    """
    watch = _Watch(cache, hooks)
    ticking = asyncio.create_task(watch.run(milliseconds(every, "every") / 1000), name="cachebus hooks")
    try:
        with cache.observed_by(hooks):
            yield
    finally:
        await end([ticking])
        watch.look()


class _Watch:
    """One cache being watched."""

    def __init__(self, cache: Watched, hooks: Hooks) -> None:
        self._cache = cache
        self._hooks = hooks
        self._before = cache.stats()
        self._counted = {name: _copied(stats) for name, stats in self._before.views.items()}

    async def run(self, every_s: float) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(every_s)
            try:
                self.look()
            except Exception:
                log.exception("a hook of the cache failed")

    def look(self) -> None:
        """Report everything since the last look."""
        now = self._cache.stats()
        for name, stats in now.views.items():
            before, self._counted[name] = self._counted.get(name, ViewStats()), _copied(stats)
            counts = ViewStats(**{field: getattr(stats, field) - getattr(before, field) for field in _COUNTERS})
            if counts != ViewStats():
                self._hooks.counted(name, counts)
        before_all, self._before = self._before, now
        if (now.up, now.gaps, bool(now.queued)) != (before_all.up, before_all.gaps, bool(before_all.queued)):
            self._hooks.changed(before_all, now)


def _copied(stats: ViewStats) -> ViewStats:
    return ViewStats(**{field: getattr(stats, field) for field in _COUNTERS})
