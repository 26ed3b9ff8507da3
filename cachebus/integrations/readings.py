"""What the metrics of a process are now: readings, looked at when somebody asks. Nothing is counted for them alone.

Only load times are measured while a collector exists: `Timings` observes the loads of its cache.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from types import MappingProxyType
from typing import NamedTuple

from cachebus.cache.cache import Cache
from cachebus.cache.hooks import Observer
from cachebus.cache.stats import CacheStats, ViewStats
from cachebus.cache.upkeep.reporter import BOUNDS_MS
from cachebus.integrations.metric_table import BOUNDS_S, HIT_BOUNDS_S


class Histogram:
    """How many values lie within each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """One for each bound, and one for what is beyond."""
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Reading(NamedTuple):
    """One series of a metric, as it is now."""

    name: str
    value: float | Histogram
    labels: tuple[str, ...] = ()
    """In the order of the table."""


class Timings(Observer):
    """How long loads and memory hits take, by view."""

    def __init__(self) -> None:
        self.loads: dict[str, Histogram] = {}
        self.hits: dict[str, Histogram] = {}

    @contextlib.contextmanager
    def loading(self, view: str) -> Iterator[None]:
        """Time a load."""
        began = perf_counter()
        try:
            yield
        finally:
            self.loads.setdefault(view, Histogram(BOUNDS_S)).add(perf_counter() - began)

    def hit_timed(self, view: str, seconds: float) -> None:
        """Count a hit whose time was taken."""
        self.hits.setdefault(view, Histogram(HIT_BOUNDS_S)).add(seconds)


_OF_VIEWS: Mapping[str, Callable[[ViewStats], float]] = MappingProxyType(
    {
        "cache_loads": lambda stats: stats.loads,
        "cache_load_errors": lambda stats: stats.load_errors,
        "cache_misses": lambda stats: stats.misses,
        "cache_refreshes": lambda stats: stats.refreshes,
        "cache_warms": lambda stats: stats.warms,
        "cache_background_errors": lambda stats: stats.background_errors,
        "cache_joined": lambda stats: stats.joined,
        "cache_waits": lambda stats: stats.waits,
        "cache_stale": lambda stats: stats.stale,
        "cache_bypassed": lambda stats: stats.bypassed,
        "cache_direct": lambda stats: stats.direct,
        "cache_uncacheable": lambda stats: stats.uncacheable,
        "cache_dropped": lambda stats: stats.dropped,
        "cache_fill_errors": lambda stats: stats.fill_errors,
        "cache_raw_bytes": lambda stats: stats.bytes_raw,
        "cache_stored_bytes": lambda stats: stats.bytes_stored,
        "cache_invalidations": lambda stats: stats.invalidations,
        "cache_samples": lambda stats: stats.samples,
        "cache_stale_detected": lambda stats: stats.stale_detected,
        "cache_ahead_loads": lambda stats: stats.ahead_loads,
        "cache_ahead_used": lambda stats: stats.ahead_used,
        "cache_ahead_wasted": lambda stats: stats.ahead_wasted,
        "cache_ahead_refused": lambda stats: stats.ahead_refused,
        "cache_ahead_saved_seconds": lambda stats: stats.ahead_saved_ms / 1000,
        "cache_shadow_right": lambda stats: stats.shadow_right,
        "cache_shadow_wrong": lambda stats: stats.shadow_wrong,
    }
)
_OF_PROCESS: Mapping[str, Callable[[CacheStats], float | None]] = MappingProxyType(
    {
        "cache_memory_entries": lambda stats: stats.entries,
        "cache_memory_bytes": lambda stats: stats.bytes,
        "cache_queued_invalidations": lambda stats: stats.queued,
        "cache_journal_age_seconds": lambda s: None if s.journal_lag_ms is None else s.journal_lag_ms / 1000,
        "cache_ledger_seconds": lambda stats: stats.ledger_s,
        "cache_outlived": lambda stats: stats.outlived,
        "cache_redis_up": lambda stats: stats.up,
        "cache_redis_refuses": lambda stats: bool(stats.refused),
        "cache_evictions": lambda stats: stats.evictions,
        "cache_journal_gaps": lambda stats: stats.gaps,
    }
)


def counted(cache: Cache) -> Iterator[Reading]:
    """Yield what *cache* counts."""
    stats = cache.stats()
    for view, counts in stats.views.items():
        yield Reading("cache_hits", counts.l1_hits, (view, "memory"))
        yield Reading("cache_hits", counts.l2_hits, (view, "redis"))
        for name, of in _OF_VIEWS.items():
            yield Reading(name, of(counts), (view,))
    for name, figure in _OF_PROCESS.items():
        if (value := figure(stats)) is not None:
            yield Reading(name, float(value))


def timed(timings: Timings) -> Iterator[Reading]:
    """Yield how long loads and hits took."""
    for name, histograms in (("cache_load_seconds", timings.loads), ("cache_hit_seconds", timings.hits)):
        for view, histogram in histograms.items():
            yield Reading(name, histogram, (view,))


def freshness(cache: Cache) -> Reading:
    """Return how long events took, from their publication until no process reads older values any more."""
    histogram = Histogram(tuple(bound / 1000 for bound in BOUNDS_MS))
    histogram.counts = [cache.observed.latencies[str(bound)] for bound in (*BOUNDS_MS, "more")]
    histogram.total = cache.observed.latency_ms / 1000
    return Reading("bus_fresh_seconds", histogram)
