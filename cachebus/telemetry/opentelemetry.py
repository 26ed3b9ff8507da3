"""The cache's counters and loads for OpenTelemetry. Extra `otel`; which SDK exports them is the program's choice.

`observe(cache)` once gives metrics; `async with watching(cache, Spans()):` gives a span around each load, a child of
whatever span the reader was in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.trace import Tracer

from cachebus.cache import Cache
from cachebus.hooks import Hooks
from cachebus.telemetry.counters import GAUGES, HITS, TOTALS, VIEW_COUNTERS, Counter, Gauge

SCOPE = "cachebus"
"""The instrumentation scope."""

Callback = Callable[[CallbackOptions], Iterable[Observation]]


class Spans(Hooks):
    """A span around each load, named after the view; an exception of the loader is recorded in it."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer or trace.get_tracer(SCOPE)

    def loading(self, view: str) -> contextlib.AbstractContextManager[object]:
        """Open a span."""
        return self._tracer.start_as_current_span(f"load {view}", attributes={"cachebus.view": view})


def observe(cache: Cache, meter: Meter | None = None) -> None:
    """Publish what *cache* counts as observable instruments, read when they are exported; call it once a cache.

    Names are those of Prometheus with dots, `cachebus.cache.hits`; attributes `view` and `layer`.
    """
    meter = meter or metrics.get_meter(SCOPE)
    name, meaning = HITS
    meter.create_observable_counter(_dotted(name), [_hits(cache)], description=meaning)
    for counter in VIEW_COUNTERS:
        callback = _of_views(cache, counter)
        meter.create_observable_counter(
            _dotted(counter.name), [callback], unit=counter.unit, description=counter.meaning
        )
    for gauge in GAUGES:
        meter.create_observable_gauge(
            _dotted(gauge.name), [_of_process(cache, gauge)], unit=gauge.unit, description=gauge.meaning
        )
    for total in TOTALS:
        meter.create_observable_counter(
            _dotted(total.name), [_of_process(cache, total)], unit=total.unit, description=total.meaning
        )


def _hits(cache: Cache) -> Callback:
    def observed(_options: CallbackOptions) -> Iterable[Observation]:
        for view, counts in cache.stats().views.items():
            yield Observation(counts.l1_hits, {"view": view, "layer": "memory"})
            yield Observation(counts.l2_hits, {"view": view, "layer": "redis"})

    return observed


def _of_views(cache: Cache, counter: Counter) -> Callback:
    def observed(_options: CallbackOptions) -> Iterable[Observation]:
        for view, counts in cache.stats().views.items():
            yield Observation(counter.of(counts), {"view": view})

    return observed


def _of_process(cache: Cache, gauge: Gauge) -> Callback:
    def observed(_options: CallbackOptions) -> Iterable[Observation]:
        value = gauge.of(cache.stats())
        return [] if value is None else [Observation(float(value))]

    return observed


def _dotted(name: str) -> str:
    """Return `cachebus.cache.load.seconds` for `cache_load_seconds`."""
    return f"{SCOPE}.{name.replace('_', '.')}"
