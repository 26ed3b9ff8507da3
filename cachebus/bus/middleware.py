"""Middleware: code around the runs of handlers, for what concerns many of them (traces, logs, tenants). Pure."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from cachebus.bus.effects import Effect
from cachebus.bus.events import Event
from cachebus.errors import ConfigurationError


class Handling(NamedTuple):
    """What is about to be handled: by whom, and which events."""

    handler: str
    """The handler's name, as in retries, dead letters and metrics."""
    events: Sequence[Event]
    """One envelope; of a handler of lists, one for each event in the list."""


Middleware = Callable[[Handling, Callable[[], Any]], Any]
"""`async def traced(handling, call_next)`: `await call_next()` runs what is inside and returns its effects, a list;
what it returns itself takes their place. Without `async` (and `await`) it surrounds plain handlers only."""


def surround(
    function: Callable[..., Any], *, takes_envelope: bool, middleware: Sequence[Middleware], name: str
) -> Callable[[Any, Any], Any]:
    """Return *function* within *middleware*, the first one outermost; it takes the event and its envelope.

    Raises: ConfigurationError when a plain middleware surrounds something asynchronous, or it is no list of functions.
    """
    given: object = middleware
    if not isinstance(given, Sequence) or not all(map(callable, given)):
        raise ConfigurationError(f"handler {name!r}: middleware={given!r} must be a list of functions: [traced]")
    asynchronous = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)

    def innermost(event: Any, envelope: Any) -> Any:
        return function(event, envelope) if takes_envelope else function(event)

    run: Callable[[Any, Any], Any] = innermost
    for around in reversed(middleware):
        if _is_asynchronous(around):
            run = _asynchronous(around, run, name, awaits=asynchronous)
            asynchronous = True
        elif asynchronous:
            raise ConfigurationError(
                f"handler {name!r}: middleware {getattr(around, '__qualname__', around)} is plain, but what it "
                "surrounds is asynchronous; write it as `async def`"
            )
        else:
            run = _plain(around, run, name)
    return run


def _asynchronous(
    around: Middleware, inner: Callable[[Any, Any], Any], name: str, *, awaits: bool
) -> Callable[[Any, Any], Any]:
    async def run(event: Any, envelope: Any) -> Any:
        async def call_next() -> Any:
            answer = inner(event, envelope)
            if isinstance(answer, AsyncIterator):
                return [effect async for effect in answer]
            return _listed(await answer if awaits else answer)

        return await around(Handling(name, _envelopes(envelope)), call_next)

    return run


def _plain(around: Middleware, inner: Callable[[Any, Any], Any], name: str) -> Callable[[Any, Any], Any]:
    def run(event: Any, envelope: Any) -> Any:
        return around(Handling(name, _envelopes(envelope)), lambda: _listed(inner(event, envelope)))

    return run


def _envelopes(envelope: Any) -> Sequence[Event]:
    return (envelope,) if isinstance(envelope, Event) else envelope


def _listed(answer: Any) -> Any:
    """Run a generator to its end, so that it ran inside; leave what is no answer for whoever refuses it."""
    if answer is None:
        return []
    if isinstance(answer, Effect):
        return [answer]
    return list(answer) if isinstance(answer, Iterable) and not isinstance(answer, str | bytes) else answer


def _is_asynchronous(around: Middleware) -> bool:
    """Whether calling it gives something to await; an instance counts by its `__call__`."""
    return inspect.iscoroutinefunction(around) or inspect.iscoroutinefunction(type(around).__call__)
