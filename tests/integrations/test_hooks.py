"""What a program is told of its cache: hooks, OpenTelemetry, Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from cachebus import Cache, CacheStats, ViewStats, sync
from cachebus.cache.hooks import Hooks, watching
from cachebus.integrations.opentelemetry import Spans, observe
from cachebus.integrations.prometheus import CacheCollector
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until


class Diary(Hooks):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.counts: dict[str, ViewStats] = {}
        self.states: list[bool] = []

    @contextlib.contextmanager
    def loading(self, view: str) -> Iterator[None]:
        self.loads.append(f"begin {view}")
        try:
            yield
        except ValueError:
            self.loads.append(f"failed {view}")
            raise
        self.loads.append(f"end {view}")

    def counted(self, view: str, counts: ViewStats) -> None:
        total = self.counts.setdefault(view, ViewStats())
        total.l1_hits += counts.l1_hits
        total.loads += counts.loads
        total.invalidations += counts.invalidations

    def changed(self, before: CacheStats, now: CacheStats) -> None:
        self.states.append(now.up)


async def test_hooks_hear_of_loads_and_counts_by_template() -> None:
    """Each load from both sides, each read once in a count; a view declared meanwhile too; nothing afterwards."""
    diary = Diary()
    async with Cache.memory() as cache:

        @cache.view("double:{n}", ttl="1m")
        async def double(n: int) -> int:
            if n < 0:
                raise ValueError(n)
            return n * 2

        assert await double(1) == 2
        async with watching(cache, diary, every="5ms"):
            assert [await double(1), await double(2), await double(2)] == [2, 4, 4]
            with pytest.raises(ValueError, match="-1"):
                await double(-1)

            @cache.view("later:{n}", ttl="1m")
            async def later(n: int) -> int:
                return n

            assert await later(5) == 5
            await double.invalidate(2)
        assert await double(3) == 6
    name = "double:{n}"
    assert diary.loads == [
        f"begin {name}",
        f"end {name}",
        f"begin {name}",
        f"failed {name}",
        "begin later:{n}",
        "end later:{n}",
    ]
    assert (diary.counts[name].l1_hits, diary.counts[name].loads, diary.counts[name].invalidations) == (2, 1, 1)
    assert diary.counts["later:{n}"].loads == 1


async def test_hooks_hear_when_redis_goes_and_comes(own_server: PrivateServer) -> None:
    """Once each."""
    diary = Diary()
    async with Cache(own_server.url) as cache, watching(cache, diary, every="5ms"):
        own_server.kill()
        await until(lambda: diary.states == [False], "told that it is away")
        own_server.restart()
        await until(lambda: diary.states == [False, True], "told that it is back")


async def test_observers_may_end_in_the_order_they_began() -> None:
    """Whoever has ended hears nothing more, the other hears everything, and nothing of either is left on the cache."""
    first, second = Diary(), Diary()
    async with Cache.memory() as cache:

        @cache.view("number:{n}", ttl="1m")
        async def number(n: int) -> int:
            return n

        before = dict(vars(number))
        outer, inner = watching(cache, first), watching(cache, second)
        await outer.__aenter__()
        await inner.__aenter__()
        await number(1)
        await outer.__aexit__(None, None, None)
        await number(2)
        await inner.__aexit__(None, None, None)
        await number(3)
        assert cache.observers == ()
        assert vars(number).keys() - {"policy"} == before.keys()
    assert (len(first.loads), len(second.loads)) == (2, 4)


async def test_a_hook_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; reads go on, and it is called again."""
    calls = 0

    class Broken(Hooks):
        def counted(self, view: str, counts: ViewStats) -> None:
            nonlocal calls
            calls += 1
            if calls < 3:
                raise RuntimeError("no disk")

    async with Cache.memory() as cache:

        @cache.view("n:{n}", ttl="1m")
        async def number(n: int) -> int:
            return n

        async with watching(cache, Broken(), every="5ms"):
            for n in range(3):
                assert await number(n) == n
                await until(lambda n=n: calls > n, "counted")
    assert "no disk" in caplog.text


def test_loads_of_a_synchronous_cache_are_hooked_too() -> None:
    """They run in the caller's thread; the hook runs where the cache does."""
    facade, diary = sync.Cache(Cache.memory()), Diary()

    @facade.view("sync:{n}", ttl="1m")
    def number(n: int) -> int:
        return n

    assert number(1) == 1
    watch = watching(facade.cache, diary)
    facade.portal.call(watch.__aenter__(), 20)
    assert number(2) == 2
    facade.portal.call(watch.__aexit__(None, None, None), 20)
    assert number(3) == 3
    assert diary.loads == ["begin sync:{n}", "end sync:{n}"]
    facade.close()


async def test_opentelemetry_gets_counters_and_a_span_around_each_load() -> None:
    """The span is a child of the reader's, and carries the loader's exception."""
    reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
    meter = MeterProvider([reader]).get_meter("test")
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(spans))
    tracer = traces.get_tracer("test")
    async with Cache.memory() as cache:

        @cache.view("half:{n}", ttl="1m")
        async def half(n: int) -> float:
            return 1 / n

        observe(cache, meter)
        async with watching(cache, Spans(tracer)):
            with tracer.start_as_current_span("request"):
                await half(2)
                await half(2)
            with pytest.raises(ZeroDivisionError):
                await half(0)
        found = metrics_of(reader)
        loads = histogram_of(reader, "cachebus.cache.load.seconds")
    assert (loads.count, loads.attributes) == (2, {"view": "half:{n}"})
    assert found["cachebus.cache.hits", "half:{n}", "memory"] == 1
    assert found["cachebus.cache.loads", "half:{n}", None] == 1
    assert found["cachebus.cache.load.errors", "half:{n}", None] == 1
    assert found["cachebus.cache.memory.entries", None, None] == 1
    load, request, failed = spans.get_finished_spans()
    assert (load.name, request.name) == ("load half:{n}", "request")
    assert load.parent is not None
    assert load.parent.span_id == request.context.span_id
    assert load.attributes == {"cachebus.cache.view": "half:{n}"}
    assert [event.name for event in failed.events] == ["exception"]


def metrics_of(reader: InMemoryMetricReader) -> dict[tuple[str, Any, Any], float]:
    """Return values by name, view and layer."""
    data = reader.get_metrics_data()
    assert data is not None
    return {
        (metric.name, (point.attributes or {}).get("view"), (point.attributes or {}).get("layer")): point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if isinstance(point, NumberDataPoint)
    }


def histogram_of(reader: InMemoryMetricReader, name: str) -> HistogramDataPoint:
    """Return the one series of a histogram."""
    data = reader.get_metrics_data()
    assert data is not None
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    (metric,) = [metric for scope in scopes for metric in scope.metrics if metric.name == name]
    (point,) = metric.data.data_points
    assert isinstance(point, HistogramDataPoint)
    return point


async def test_prometheus_collects_what_the_cache_counts() -> None:
    """By view and layer, in any registry."""
    async with Cache.memory() as cache:

        @cache.view("third:{n}", ttl="1m")
        async def third(n: int) -> int:
            return n // 3

        registry = CollectorRegistry()
        registry.register(CacheCollector(cache))
        await asyncio.gather(third(3), third(3))
        assert [await third(3), await third(3)] == [1, 1]

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(name, labels)

        assert value("cachebus_cache_hits_total", view="third:{n}", layer="memory") == 2
        assert value("cachebus_cache_joined_total", view="third:{n}") == 1
        assert value("cachebus_cache_loads_total", view="third:{n}") == 1
        assert value("cachebus_cache_memory_entries") == 1
        assert value("cachebus_cache_load_seconds_count", view="third:{n}") == 1
        assert value("cachebus_cache_load_seconds_bucket", view="third:{n}", le="+Inf") == 1
        assert value("cachebus_cache_redis_up") == 0
        assert value("cachebus_cache_journal_age_seconds") is None, "there is no journal without a server"


def test_the_library_needs_neither() -> None:
    """Without them everything but the two adapters can be imported."""
    program = (
        "import sys\n"
        "sys.modules['opentelemetry'] = sys.modules['prometheus_client'] = None\n"
        "import cachebus, cachebus.cache.hooks, cachebus.integrations.metric_table, cachebus.integrations.readings\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
