"""Prometheus metrics, collected when they are asked for: nothing is counted twice, and the hot path pays nothing.

Labels are templates of views and names of handlers and services, never keys: a million users are one line.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cachebus import Cache
from cachebus.consumer import Consumer, ConsumerStats
from cachebus.telemetry.prometheus import CacheCollector
from worker.engines import Engines
from worker.health import Health

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

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
        self._cache = CacheCollector(cache)
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
        yield from self._cache.collect()
        yield from _events(self._engines.consumers)
        yield from _plumbing(self._engines)
        yield _gauge("worker_ready", "1 while this worker does all its work.", self._health.state().word == "ready")
        yield _gauge("worker_tasks", "Tasks of the event loop that have not ended.", len(asyncio.all_tasks()))
        yield _gauge("worker_threads", "Threads of this process that Python knows.", threading.active_count())
        blocks = (
            "Blocks that Python's allocator has handed out: they grow with a leak of objects, and with nothing else."
        )
        yield _gauge("python_allocated_blocks", blocks, sys.getallocatedblocks())
        restarts = CounterMetricFamily(
            "worker_restarts", "Times a service broke and was started again.", labels=["service"]
        )
        for service in self._health.supervisor.services:
            restarts.add_metric([service.name], service.restarts)
        yield restarts


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
    if engines.relay is not None:
        outbox = engines.relay.stats
        yield _total("outbox_relayed", "Rows of the outbox this worker published.", outbox.relayed)
        yield _total("outbox_refused", "Rows of the outbox that can never be published.", outbox.refused)
        yield _gauge("outbox_waiting", "Rows of the outbox not published yet.", outbox.waiting)
        yield _gauge("outbox_lag_seconds", "How long the oldest of them has waited.", outbox.lag_s)
    if engines.scheduler is not None:
        yield _total("schedule_started", "Runs of jobs begun by this worker.", engines.scheduler.started)


def _total(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(name, meaning, value=value)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=float(value))
