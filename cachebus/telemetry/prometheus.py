"""The cache's counters for Prometheus: `REGISTRY.register(CacheCollector(cache))`. Extra `prometheus`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cachebus.cache import Cache
from cachebus.telemetry.counters import GAUGES, HITS, TOTALS, VIEW_COUNTERS


class CacheCollector(Collector):
    """One process's cache, looked at when Prometheus asks. Labels are templates of views, never keys."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def describe(self) -> list[Metric]:
        """Return nothing: which views there are is known only later."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it is now."""
        stats = self._cache.stats()
        hits = CounterMetricFamily(*HITS, labels=["view", "layer"])
        for view, counts in stats.views.items():
            hits.add_metric([view, "memory"], counts.l1_hits)
            hits.add_metric([view, "redis"], counts.l2_hits)
        yield hits
        for counter in VIEW_COUNTERS:
            family = CounterMetricFamily(counter.name, counter.meaning, labels=["view"])
            for view, counts in stats.views.items():
                family.add_metric([view], counter.of(counts))
            yield family
        for gauge in GAUGES:
            if (value := gauge.of(stats)) is not None:
                yield GaugeMetricFamily(gauge.name, gauge.meaning, value=float(value))
        for total in TOTALS:
            yield CounterMetricFamily(total.name, total.meaning, value=float(total.of(stats) or 0))
