"""Traces and metrics for OpenTelemetry. Extra `otel`; which SDK exports them is the program's choice.

`instrument(cache)` once gives traces: spans for what is published, handled, loaded, refreshed and broadcast, joined by
the `traceparent` that travels with events. `observe(cache)` once gives metrics.
Source: OpenTelemetry semantic conventions for messaging spans; W3C Trace Context.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter

from opentelemetry import metrics, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation
from opentelemetry.trace import Link, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cachebus.bus.effects import Signal
from cachebus.cache.cache import Cache
from cachebus.cache.hooks import Hooks, Observer
from cachebus.integrations.metric_table import BOUNDS_S, HIT_BOUNDS_S, TABLE, MetricRow
from cachebus.integrations.readings import counted
from cachebus.tracing import installed

SCOPE = "cachebus"
"""The instrumentation scope, and the messaging system."""

Callback = Callable[[CallbackOptions], Iterable[Observation]]
Attributes = dict[str, str | int]

_w3c = TraceContextTextMapPropagator()


class Spans(Hooks):
    """The spans of a process: a tracer for `cachebus.tracing`, and for the loads of the caches it observes."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer or trace.get_tracer(SCOPE)

    def loading(self, view: str) -> contextlib.AbstractContextManager[object]:
        """Open a span around a load, a child of the reader's; an exception of the loader is recorded in it."""
        return self._span(f"load {view}", SpanKind.INTERNAL, {"cachebus.cache.view": view})

    def current(self) -> str:
        """See `cachebus.tracing.Tracer`."""
        return _traceparent()

    @contextlib.contextmanager
    def continuing(self, parent: str) -> Iterator[None]:
        """See `cachebus.tracing.Tracer`."""
        token = attach(_context(parent))
        try:
            yield
        finally:
            detach(token)

    def publishing(self, channel: str, ids: Sequence[str]) -> contextlib.AbstractContextManager[str]:
        """See `cachebus.tracing.Tracer`."""
        return self._span(f"publish {channel}", SpanKind.PRODUCER, _messaging("publish", "send", channel, ids))

    def handling(
        self, handler: str, channel: str, ids: Sequence[str], parents: Sequence[str], attempt: int
    ) -> contextlib.AbstractContextManager[str]:
        """See `cachebus.tracing.Tracer`. A list of events is a child of the first one, linked to the others."""
        attributes = _messaging("process", "process", channel, ids) | {
            "messaging.consumer.group.name": handler,
            "cachebus.bus.attempt": attempt,
        }
        first, *others = parents
        linked = (trace.get_current_span(_context(parent)).get_span_context() for parent in others if parent)
        links = [Link(context) for context in linked if context.is_valid]
        return self._span(f"process {channel}", SpanKind.CONSUMER, attributes, _context(first), links)

    def refreshing(self, view: str, parent: str) -> contextlib.AbstractContextManager[str]:
        """See `cachebus.tracing.Tracer`."""
        return self._span(f"refresh {view}", SpanKind.INTERNAL, {"cachebus.cache.view": view}, _context(parent))

    def delivering(self, topic: str, parent: str, clients: int) -> contextlib.AbstractContextManager[str]:
        """See `cachebus.tracing.Tracer`."""
        attributes = _messaging("deliver", "process", topic, ()) | {"cachebus.gateway.clients": clients}
        return self._span(f"deliver {topic}", SpanKind.CONSUMER, attributes, _context(parent))

    @contextlib.contextmanager
    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        context: Context | None = None,
        links: Sequence[Link] = (),
    ) -> Iterator[str]:
        """Make a span current; *context* None: a child of the current one. `Retry` and `Drop` are no errors."""
        with self._tracer.start_as_current_span(
            name,
            context,
            kind,
            attributes,
            links,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield _traceparent()
            except Signal:
                raise
            except BaseException as error:
                span.record_exception(error)
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}")
                raise


def instrument(*caches: Cache, tracer: Tracer | None = None) -> None:
    """Trace this process from now on: its buses, and the loads of *caches*. Safe to repeat.

    Call it where the SDK is set up, before workers and gateways are made. `cachebus worker` and `cachebus gateway` call
    it themselves where an SDK is set up by then, as `opentelemetry-instrument` does.
    """
    spans = Spans(tracer)
    installed.tracer = spans
    for cache in caches:
        others = tuple(observer for observer in cache.observers if not isinstance(observer, Spans))
        cache.observers = (*others, spans)


def _messaging(operation: str, kind: str, destination: str, ids: Sequence[str]) -> Attributes:
    attributes: Attributes = {
        "messaging.system": SCOPE,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": destination,
    }
    if len(ids) == 1:
        attributes["messaging.message.id"] = ids[0]
    elif ids:
        attributes["messaging.batch.message_count"] = len(ids)
    return attributes


def _context(traceparent: str) -> Context:
    """Return the context that a `traceparent` names; an empty one, which begins a trace, where it names none."""
    return _w3c.extract({"traceparent": traceparent}, Context())


def _traceparent() -> str:
    """Return that of the current span, '' where there is none."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier)
    return carrier.get("traceparent", "")


def observe(cache: Cache, meter: Meter | None = None) -> None:
    """Publish what *cache* counts as observable instruments, read when they are exported; call it once a cache.

    Names are those of Prometheus with dots, `cachebus.cache.hits`; attributes are its labels. Times of loads and hits
    are histograms.
    """
    meter = meter or metrics.get_meter(SCOPE)
    for row in TABLE.values():
        if row.part != "cache" or row.kind == "histogram":
            continue
        create = meter.create_observable_counter if row.kind == "counter" else meter.create_observable_gauge
        create(_dotted(row.name), [_observations(cache, row)], unit=row.unit, description=row.meaning)
    cache.observers = (*cache.observers, _Durations(meter))


class _Durations(Observer):
    """Records how long loads and hits take."""

    def __init__(self, meter: Meter) -> None:
        self._loads, self._hits = (_histogram(meter, name) for name in ("cache_load_seconds", "cache_hit_seconds"))

    @contextlib.contextmanager
    def loading(self, view: str) -> Iterator[None]:
        """Time a load."""
        began = perf_counter()
        try:
            yield
        finally:
            self._loads.record(perf_counter() - began, {"view": view})

    def hit_timed(self, view: str, seconds: float) -> None:
        """Record a hit whose time was taken."""
        self._hits.record(seconds, {"view": view})


def _histogram(meter: Meter, name: str) -> Histogram:
    row = TABLE[name]
    bounds = HIT_BOUNDS_S if name == "cache_hit_seconds" else BOUNDS_S
    return meter.create_histogram(
        _dotted(name), row.unit, row.meaning, explicit_bucket_boundaries_advisory=list(bounds)
    )


def _observations(cache: Cache, row: MetricRow) -> Callback:
    def observed(_options: CallbackOptions) -> Iterable[Observation]:
        for name, value, labels in counted(cache):
            if name == row.name and isinstance(value, int | float):
                yield Observation(value, dict(zip(row.labels, labels, strict=True)))

    return observed


def _dotted(name: str) -> str:
    """Return `cachebus.cache.load.seconds` for `cache_load_seconds`."""
    return f"{SCOPE}.{name.replace('_', '.')}"
