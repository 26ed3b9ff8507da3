"""`cache_manager`: plain values by key, from anywhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

from cachebus import Clock
from cachebus.durations import Duration
from tradesense.caching.plain import from_plain, to_plain
from tradesense.caching.shared import facade

MOST_MISSES = 100

_missed: ContextVar[tuple[object, dict[str, int]]] = ContextVar("tradesense_missed", default=(None, {}))
_MISSING = object()


class CacheManager:
    """Get, set and delete values under keys of the caller's choice, everywhere at once.

    Every call blocks its caller for at most one round trip; in an event loop that is the loop, so code that must not
    block awaits a `cachebus.Cache` instead.
    """

    def __init__(self) -> None:
        self._misses = 0

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under *key*, or *default*.

        A miss is remembered by the thread or task: what it sets under the key next counts as read now, and does not
        outlive an invalidation that comes in between.
        """
        value, known = facade.run(self._look(key))
        if value is not _MISSING:
            return from_plain(value)
        self._misses += 1
        misses = missed()
        if len(misses) >= MOST_MISSES:
            del misses[next(iter(misses))]
        misses[key] = known
        return default

    @staticmethod
    async def _look(key: str) -> tuple[Any, int]:
        known = (await facade.cache.connected()).freshness.seen
        return await facade.cache.get(key, _MISSING), known

    def set(self, key: str, value: Any, ttl: Duration | None = None, *, tags: Iterable[str] = ()) -> None:
        """Store *value* for *ttl* (`CACHE_DEFAULT_TTL` otherwise): the newest there is, or after a miss what was read.

        Rows, decimals, dates and tuples come back as such. Raises: NotCacheable.
        """
        facade.set(key, to_plain(value), ttl, tags=tags, born=missed().pop(key, None))

    def delete(self, key: str) -> Clock:
        """Make *key* unreadable everywhere."""
        forget_misses()
        return facade.delete(key)

    def clear(self) -> Clock:
        """Make everything cached by this deployment unreadable, everywhere. Sessions, limits and locks stay."""
        forget_misses()
        return facade.clear()

    def get_stats(self) -> dict[str, Any]:
        """Return what this process has counted. No round trip.

        `hits`, `misses`, `hit_rate` (0.0 to 1.0), `entries` and `bytes` in memory, `evictions`, `connected`, `backend`
        ("redis", or "memory" where Redis is off or away), and `views`: the same by cached function.
        """
        stats = facade.stats()
        hits, misses = stats.totals.l1_hits + stats.totals.l2_hits, stats.totals.loads + self._misses
        return {
            **stats.as_dict(),
            "backend": "redis" if stats.up else "memory",
            "connected": stats.up,
            "enabled": facade.cache.enabled,
            "hits": hits,
            "misses": misses,
            "hit_rate": round(hits / (hits + misses), 4) if hits + misses else 0.0,
        }


def missed() -> dict[str, int]:
    """Return what this thread or task looked for in vain, and the newest clock known then."""
    owner, misses = _missed.get()
    if owner is not _here():
        owner, misses = _here(), {}
        _missed.set((owner, misses))
    return misses


def forget_misses() -> None:
    """What this thread or task sets from now on was read after its own invalidation, or is meant to be the newest."""
    missed().clear()


def _here() -> object:
    try:
        return asyncio.current_task() or threading.current_thread()
    except RuntimeError:
        return threading.current_thread()


cache_manager = CacheManager()
