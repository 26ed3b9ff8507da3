"""The cache's metrics for Prometheus: `REGISTRY.register(CacheCollector(cache))`. Extra `prometheus`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, chain

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from cachebus.cache.cache import Cache
from cachebus.integrations.metric_table import PREFIX, TABLE
from cachebus.integrations.readings import Histogram, Reading, Timings, counted, timed

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class CacheCollector(Collector):
    """One process's cache, looked at when Prometheus asks; times its loads from now on.

    *more* are readings beside those of the cache. Labels are templates of views, never keys.
    """

    def __init__(self, cache: Cache, more: Callable[[], Iterable[Reading]] = tuple) -> None:
        self._cache = cache
        self._more = more
        self._timings = Timings()
        cache.observers = (*cache.observers, self._timings)

    def describe(self) -> list[Metric]:
        """Return nothing: which views there are is known only later."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it is now."""
        return families(chain(counted(self._cache), timed(self._timings), self._more()))


class MetricsPage:
    """`/metrics` of a process: its cache, *more*, and what the process itself is like."""

    def __init__(self, cache: Cache, more: Callable[[], Iterable[Reading]]) -> None:
        self._registry = CollectorRegistry()
        own = CacheCollector(cache, more)
        for collector in (own, ProcessCollector(registry=None), PlatformCollector(registry=None)):
            self._registry.register(collector)

    def text(self) -> bytes:
        """Return the page that Prometheus reads."""
        return generate_latest(self._registry)


def families(readings: Iterable[Reading]) -> Iterator[Metric]:
    """Yield readings as Prometheus' client has them, one family for each metric."""
    found: dict[str, CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily] = {}
    for name, value, labels in readings:
        family = found.get(name)
        if family is None:
            row = TABLE[name]
            kind = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
            family = found[name] = kind[row.kind](f"{PREFIX}{name}", row.meaning, labels=row.labels)
        if isinstance(family, HistogramMetricFamily):
            assert isinstance(value, Histogram)  # noqa: S101 - the table says so
            bounds = (*(str(bound) for bound in value.bounds), "+Inf")
            family.add_metric(labels, list(zip(bounds, accumulate(value.counts), strict=True)), value.total)
        else:
            assert not isinstance(value, Histogram)  # noqa: S101 - likewise
            family.add_metric(labels, value)
    yield from found.values()
