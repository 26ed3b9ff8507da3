"""The counters of a view under the names they are published by, whoever collects them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cachebus.stats import CacheStats, ViewStats


class Counter(NamedTuple):
    """One counter of a view."""

    name: str
    meaning: str
    unit: str
    """In UCUM, as OpenTelemetry wants it; '' for a count."""
    of: Callable[[ViewStats], float]


class Gauge(NamedTuple):
    """One figure of a process's cache; None where it has none."""

    name: str
    meaning: str
    unit: str
    of: Callable[[CacheStats], float | None]


def _age_s(stats: CacheStats) -> float | None:
    return None if stats.journal_lag_ms is None else stats.journal_lag_ms / 1000


HITS = "cache_hits", "Reads answered without a load."
"""By view and layer: "memory" or "redis"."""

VIEW_COUNTERS = (
    Counter("cache_loads", "Times the loader ran.", "", lambda stats: stats.loads),
    Counter("cache_load_errors", "Times the loader raised.", "", lambda stats: stats.load_errors),
    Counter("cache_load_seconds", "Time spent in the loader.", "s", lambda stats: stats.load_ms / 1000),
    Counter("cache_joined", "Calls answered by a read of the same key that was under way.", "", lambda s: s.joined),
    Counter("cache_waits", "Times this process waited for another one's load.", "", lambda stats: stats.waits),
    Counter("cache_stale", "Values served past their TTL, within a declared window.", "", lambda stats: stats.stale),
    Counter("cache_bypassed", "Calls not cached: no identity, or switched off.", "", lambda stats: stats.bypassed),
    Counter("cache_fill_errors", "Loaded values that could not be stored.", "", lambda stats: stats.fill_errors),
    Counter("cache_raw_bytes", "Bytes of values before compression.", "By", lambda stats: stats.bytes_raw),
    Counter("cache_stored_bytes", "Bytes of values as stored.", "By", lambda stats: stats.bytes_stored),
    Counter("cache_invalidations", "Times a view was invalidated by name.", "", lambda stats: stats.invalidations),
    Counter("cache_samples", "Hits compared with the source.", "", lambda stats: stats.samples),
    Counter("cache_stale_detected", "Samples that nobody had invalidated.", "", lambda stats: stats.stale_detected),
)

GAUGES = (
    Gauge("cache_memory_entries", "Entries in this process's memory.", "", lambda stats: stats.entries),
    Gauge("cache_memory_bytes", "Bytes of the entries in this process's memory.", "By", lambda stats: stats.bytes),
    Gauge("cache_queued_invalidations", "Invalidations that wait for Redis.", "", lambda stats: stats.queued),
    Gauge("redis_up", "1 while Redis answers.", "", lambda stats: stats.up),
    Gauge("cache_journal_age_seconds", "Since the journal was last heard of.", "s", _age_s),
)

TOTALS = (
    Gauge("cache_evictions", "Entries that left memory for want of room.", "", lambda stats: stats.evictions),
    Gauge("cache_journal_gaps", "Times invalidations may have been missed.", "", lambda stats: stats.gaps),
)
"""Counters of the process rather than of a view."""
