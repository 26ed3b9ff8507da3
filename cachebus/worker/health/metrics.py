"""The metrics of a worker, collected when they are asked for: nothing is counted twice, no hot path pays."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from cachebus.bus.engine.consumer import Consumer, ConsumerStats
from cachebus.bus.engine.local_consumer import LocalConsumer
from cachebus.cache.cache import Cache
from cachebus.integrations.prometheus import MetricsPage
from cachebus.integrations.readings import Reading, freshness
from cachebus.worker.engines import Engines
from cachebus.worker.health.health import Health

_OF_SHARDS: Mapping[str, Callable[[ConsumerStats], float]] = MappingProxyType(
    {
        "bus_events": lambda stats: stats.events,
        "bus_commits": lambda stats: stats.commits,
        "bus_retries": lambda stats: stats.retries,
        "bus_handled": lambda stats: stats.handlers.handled,
        "bus_debounced": lambda stats: stats.handlers.debounced,
        "bus_dead_letters": lambda stats: stats.handlers.dead_lettered,
        "bus_skipped": lambda stats: stats.handlers.skipped,
        "bus_takeovers": lambda stats: stats.takeovers,
        "bus_gaps": lambda stats: stats.gaps,
    }
)


def metrics_page(cache: Cache, engines: Engines, health: Health) -> MetricsPage:
    """Return `/metrics` of a worker."""

    def readings() -> Iterator[Reading]:
        if engines.consumers:
            yield freshness(cache)
            yield from _events(engines.consumers)
        yield from _plumbing(engines)
        yield from _process(health)

    return MetricsPage(cache, readings)


def _events(consumers: Sequence[Consumer | LocalConsumer]) -> Iterator[Reading]:
    """Yield counters of this process; gauges are of the shards it holds."""
    for number, consumer in enumerate(consumers):
        shard, stats = (str(number),), consumer.stats
        for name, of in _OF_SHARDS.items():
            yield Reading(name, of(stats), shard)
        yield Reading("bus_active", float(consumer.active), shard)
        if consumer.active:
            yield Reading("bus_waiting", stats.waiting, shard)
            yield Reading("bus_latency_seconds", stats.latency_ms / 1000, shard)
        for handler, count in stats.handlers.failures.items():
            yield Reading("bus_handler_failures", count, (handler,))


def _plumbing(engines: Engines) -> Iterator[Reading]:
    if engines.bridge is not None:
        bridge = engines.bridge.stats
        yield Reading("bridge_heard", bridge.heard)
        yield Reading("bridge_appended", bridge.appended)
        yield Reading("bridge_gaps", bridge.gaps)
    if engines.refresher is not None:
        refreshes = engines.refresher.stats
        yield Reading("refresh_loaded", refreshes.loaded)
        yield Reading("refresh_fresh", refreshes.fresh)
        yield Reading("refresh_not_worth", refreshes.not_worth)
        yield Reading("refresh_failed", refreshes.failed)
        yield Reading("refresh_dead_letters", refreshes.dead_lettered)
    if engines.mover is not None:
        yield Reading("delayed_published", engines.mover.stats.moved)
    if engines.relay is not None:
        outbox = engines.relay.stats
        yield Reading("outbox_relayed", outbox.relayed)
        yield Reading("outbox_refused", outbox.refused)
        yield Reading("outbox_waiting", outbox.waiting)
        yield Reading("outbox_lag_seconds", outbox.lag_s)
    if engines.scheduler is not None:
        yield Reading("schedule_started", engines.scheduler.started)


def _process(health: Health) -> Iterator[Reading]:
    yield Reading("worker_ready", float(health.state().word == "ready"))
    yield Reading("worker_tasks", len(asyncio.all_tasks()))
    yield Reading("worker_threads", threading.active_count())
    yield Reading("worker_allocated_blocks", sys.getallocatedblocks())
    for service in health.supervisor.services:
        yield Reading("worker_restarts", service.restarts, (service.name,))
