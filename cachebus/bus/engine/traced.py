"""Handlers within spans."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from typing import Any

from cachebus.bus.engine.commit import TracedEffects
from cachebus.bus.engine.runs import AnyHandler
from cachebus.bus.middleware import Handling, Middleware, surround
from cachebus.tracing import Tracer, installed


def traced(handlers: Iterable[AnyHandler]) -> Iterable[AnyHandler]:
    """Return *handlers* as they are where nobody traces, else copies whose runs are spans."""
    tracer = installed.tracer
    return handlers if tracer is None else [_traced(handler, tracer) for handler in handlers]


def _traced(handler: AnyHandler, tracer: Tracer) -> AnyHandler:
    around = copy(handler)
    middleware = _asynchronous(tracer) if handler.asynchronous else _plain(tracer)
    around.run = surround(
        handler.run, takes_envelope=handler.takes_envelope, middleware=(middleware,), name=handler.name
    )
    around.takes_envelope = True
    return around


def _asynchronous(tracer: Tracer) -> Middleware:
    async def within(handling: Handling, call_next: Callable[[], Any]) -> Any:
        with _span(tracer, handling) as traceparent:
            return _marked(await call_next(), traceparent)

    return within


def _plain(tracer: Tracer) -> Middleware:
    def within(handling: Handling, call_next: Callable[[], Any]) -> Any:
        with _span(tracer, handling) as traceparent:
            return _marked(call_next(), traceparent)

    return within


def _span(tracer: Tracer, handling: Handling) -> Any:
    first = handling.events[0]
    ids, parents = [event.id for event in handling.events], [event.traceparent for event in handling.events]
    return tracer.handling(handling.handler, first.channel, ids, parents, first.attempt)


def _marked(answer: Any, traceparent: str) -> Any:
    """Leave what is no answer for whoever refuses it."""
    return TracedEffects(answer, traceparent) if isinstance(answer, list) else answer
