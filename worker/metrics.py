"""Prometheus metrics, collected when they are asked for: nothing is counted twice, and the hot path pays nothing.

Labels are the templates of views and the names of services, never keys: a million users are one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cachebus import Cache, CacheStats, ViewStats
from worker.health import Health
from worker.supervisor import Supervisor

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_VIEW_COUNTERS: tuple[tuple[str, str, Callable[[ViewStats], float]], ...] = (
    ("loads", "Times the loader ran.", lambda stats: stats.loads),
    ("load_errors", "Times the loader raised.", lambda stats: stats.load_errors),
    ("load_seconds", "Time spent in the loader.", lambda stats: stats.load_ms / 1000),
    ("waits", "Times this process waited for another one's load.", lambda stats: stats.waits),
    ("stale", "Values served past their TTL, within a window the view declares.", lambda stats: stats.stale),
    ("bypassed", "Calls that were not cached: no identity, or caching switched off.", lambda stats: stats.bypassed),
    ("fill_errors", "Loaded values that could not be stored.", lambda stats: stats.fill_errors),
    ("raw_bytes", "Bytes of values before compression.", lambda stats: stats.bytes_raw),
    ("stored_bytes", "Bytes of values as stored.", lambda stats: stats.bytes_stored),
    ("invalidations", "Times a view was invalidated by name.", lambda stats: stats.invalidations),
)


class Metrics(Collector):
    """What this worker knows about itself, for Prometheus."""

    def __init__(self, cache: Cache, health: Health, supervisor: Supervisor) -> None:
        self._cache = cache
        self._health = health
        self._supervisor = supervisor
        self._registry = CollectorRegistry()
        for collector in (self, ProcessCollector(registry=None), PlatformCollector(registry=None)):
            self._registry.register(collector)

    def text(self) -> bytes:
        """Return the page that Prometheus reads."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it is now."""
        stats = self._cache.stats()
        yield from _views(stats)
        yield from _cache(stats)
        yield _gauge("worker_ready", "1 while this worker does all its work.", self._health.state().word == "ready")
        restarts = CounterMetricFamily(
            "worker_restarts", "Times a service broke and was started again.", labels=["service"]
        )
        for service in self._supervisor.services:
            restarts.add_metric([service.name], service.restarts)
        yield restarts


def _views(stats: CacheStats) -> Iterator[Metric]:
    hits = CounterMetricFamily("cache_hits", "Reads answered without a load.", labels=["view", "layer"])
    for name, view in stats.views.items():
        hits.add_metric([name, "memory"], view.l1_hits)
        hits.add_metric([name, "redis"], view.l2_hits)
    yield hits
    for metric, meaning, of in _VIEW_COUNTERS:
        yield _counter(f"cache_{metric}", meaning, ((name, of(view)) for name, view in stats.views.items()))


def _cache(stats: CacheStats) -> Iterator[Metric]:
    yield _gauge("cache_memory_entries", "Entries in this process's memory.", stats.entries)
    yield _gauge("cache_memory_bytes", "Bytes of the entries in this process's memory.", stats.bytes)
    yield _gauge("cache_queued_invalidations", "Invalidations that wait for Redis.", stats.queued)
    yield _gauge("redis_up", "1 while Redis answers.", stats.up)
    if stats.journal_lag_ms is not None:
        yield _gauge("cache_journal_age_seconds", "Since the journal was last heard of.", stats.journal_lag_ms / 1000)
    yield CounterMetricFamily("cache_evictions", "Entries that left memory for want of room.", value=stats.evictions)
    yield CounterMetricFamily("cache_journal_gaps", "Times invalidations may have been missed.", value=stats.gaps)


def _counter(name: str, meaning: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=["view"])
    for view, value in values:
        family.add_metric([view], value)
    return family


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=float(value))
