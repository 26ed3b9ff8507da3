"""Prometheus metrics, collected when they are asked for: nothing is counted twice, and the hot path pays nothing.

Labels are templates of views and names of handlers and services, never keys: a million users are one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cachebus import Cache, CacheStats, ViewStats
from cachebus.consumer import Consumer, ConsumerStats
from worker.engines import Engines
from worker.health import Health

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

_BUS_COUNTERS: tuple[tuple[str, str, Callable[[ConsumerStats], float]], ...] = (
    ("events", "Events whose effects are written.", lambda stats: stats.events),
    ("commits", "Batches of effects written.", lambda stats: stats.commits),
    ("retries", "Events run once more.", lambda stats: stats.retries),
    ("handled", "Runs of a handler that ended well.", lambda stats: stats.handlers.handled),
    ("dead_letters", "Events given up on.", lambda stats: stats.handlers.dead_lettered),
    ("skipped", "Events on channels without a handler.", lambda stats: stats.handlers.skipped),
    ("takeovers", "Times this worker took a shard.", lambda stats: stats.takeovers),
    ("gaps", "Times events may have been lost to somebody else's trim.", lambda stats: stats.gaps),
)


class Metrics(Collector):
    """What this worker knows about itself, for Prometheus."""

    def __init__(self, cache: Cache, engines: Engines, health: Health) -> None:
        self._cache = cache
        self._engines = engines
        self._health = health
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
        yield from _events(self._engines.consumers)
        yield from _plumbing(self._engines)
        yield _gauge("worker_ready", "1 while this worker does all its work.", self._health.state().word == "ready")
        restarts = CounterMetricFamily(
            "worker_restarts", "Times a service broke and was started again.", labels=["service"]
        )
        for service in self._health.supervisor.services:
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
    yield _total("cache_evictions", "Entries that left memory for want of room.", stats.evictions)
    yield _total("cache_journal_gaps", "Times invalidations may have been missed.", stats.gaps)


def _events(consumers: list[Consumer]) -> Iterator[Metric]:
    """Counters of this process; gauges are of the shards it holds."""
    counters = {
        metric: CounterMetricFamily(f"bus_{metric}", meaning, labels=["shard"]) for metric, meaning, _ in _BUS_COUNTERS
    }
    active = GaugeMetricFamily("bus_active", "1 while this worker handles the shard's events.", labels=["shard"])
    waiting = GaugeMetricFamily("bus_waiting", "Events not handled yet.", labels=["shard"])
    latency = GaugeMetricFamily("bus_latency_seconds", "Publication to commit, of the last commit.", labels=["shard"])
    failures = CounterMetricFamily("bus_handler_failures", "Runs of a handler that failed.", labels=["handler"])
    for shard, consumer in enumerate(consumers):
        stats = consumer.stats
        for metric, _, of in _BUS_COUNTERS:
            counters[metric].add_metric([str(shard)], of(stats))
        active.add_metric([str(shard)], float(consumer.active))
        if consumer.active:
            waiting.add_metric([str(shard)], stats.waiting)
            latency.add_metric([str(shard)], stats.latency_ms / 1000)
        for handler, count in stats.handlers.failures.items():
            failures.add_metric([handler], count)
    yield from (*counters.values(), active, waiting, latency, failures)


def _plumbing(engines: Engines) -> Iterator[Metric]:
    if engines.bridge is not None:
        bridge = engines.bridge.stats
        yield _total("bridge_heard", "Plain messages heard.", bridge.heard)
        yield _total("bridge_appended", "Plain messages this worker brought into the stream.", bridge.appended)
        yield _total("bridge_gaps", "Times this worker did not hear for a while.", bridge.gaps)
    if engines.refresher is not None:
        refreshes = engines.refresher.stats
        yield _total("refresh_loaded", "Entries loaded because an event asked for it.", refreshes.loaded)
        yield _total("refresh_fresh", "Entries that were fresh already.", refreshes.fresh)
        yield _total("refresh_failed", "Loads that failed.", refreshes.failed)
    if engines.scheduler is not None:
        yield _total("schedule_started", "Runs of jobs begun by this worker.", engines.scheduler.started)


def _total(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(name, meaning, value=value)


def _counter(name: str, meaning: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=["view"])
    for view, value in values:
        family.add_metric([view], value)
    return family


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=float(value))
