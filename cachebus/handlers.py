"""Handlers: what happens when an event comes. `@on(...)` makes one; the decorator line is its whole policy. Pure.

There is no registry. `find_handlers` collects the handlers that modules hold; a handler stays the function it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, ParamSpec, TypeVar

from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError
from cachebus.events import Pattern, decode, decoder
from cachebus.middleware import Middleware, surround

P = ParamSpec("P")
R = TypeVar("R")

RETRIES = 5
"""With the default backoff the last try comes half a minute after the first: long enough for a deploy or a failover."""
BACKOFF = "1s"
LONGEST_BACKOFF = "5m"
TIMEOUT = "5s"
"""An asynchronous handler that takes longer holds up the stream; the event goes to the retries instead."""
MOST_IN_A_BATCH = 100
"""A list that fails goes to the retries one by one, in the same commit; this many fit."""


@dataclass(frozen=True, slots=True)
class HandlerPolicy:
    """How often a handler is tried on one event, and how long it may take."""

    attempts: int
    backoff_ms: int
    longest_ms: int
    timeout_ms: int

    def delay_ms(self, attempt: int, draw: float) -> int:
        """Return how long to wait after attempt number *attempt* failed; *draw* in [0, 1) spreads retries apart.

        Doubles from `backoff_ms` to `longest_ms`; the wait is between half of that and all of it.
        """
        ceiling = min(self.longest_ms, self.backoff_ms * 2 ** min(attempt - 1, 40))
        return int(ceiling * (0.5 + draw / 2))


class Handler(Generic[P, R]):
    """A function from an event to effects, with its channel, its event type and its policy.

    Calling it calls the function: in a test, `list(trade_changed(TradeEvent(...)))` is the effects, with no Redis.
    """

    def __init__(  # noqa: PLR0913 - what the decorator line says
        self,
        function: Callable[P, R],
        pattern: Pattern,
        event_type: Any,
        policy: HandlerPolicy,
        *,
        batch: int = 0,
        name: str | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        self.function = function
        self.pattern = pattern
        self.event_type = event_type
        self.policy = policy
        self.batch = batch
        """How many events it takes in one call, as a list; 0: one event, not a list."""
        self.name = name or f"{function.__module__}.{function.__qualname__}"
        """Names it in retries, dead letters and metrics; it must outlive a deploy."""
        what = f"handler {self.name!r}"
        takes_envelope = _parameters(function, what) == 2
        self.run: Callable[..., Any] = function
        """What a worker calls: the function itself, or the middleware around it."""
        if middleware:
            self.run = surround(function, takes_envelope=takes_envelope, middleware=middleware, name=self.name)
        self.takes_envelope = takes_envelope or bool(middleware)
        """Whether `run` takes the envelope second."""
        self.asynchronous = inspect.iscoroutinefunction(self.run) or inspect.isasyncgenfunction(self.run)
        self._decoder = decoder(event_type, what)
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    def decode(self, payload: bytes) -> Any:
        """Return the event in *payload*. Raises: InvalidEvent whose message names the field."""
        return decode(self._decoder, payload)

    def __repr__(self) -> str:
        return f"<handler {self.name!r} on {self.pattern.text!r}>"


def on(  # noqa: PLR0913 - the decorator line is the whole policy
    channel: str,
    event: Any = Any,
    *,
    retries: int = RETRIES,
    backoff: Duration = BACKOFF,
    longest_backoff: Duration = LONGEST_BACKOFF,
    timeout: Duration = TIMEOUT,
    batch: int = 0,
    name: str | None = None,
    middleware: Sequence[Middleware] = (),
) -> Callable[[Callable[P, R]], Handler[P, R]]:
    """Make a function the handler of *channel*, or of every channel that a pattern such as `trade:*` matches.

    *event* is a msgspec Struct (or anything msgspec can check); unknown fields are ignored, anything else that does not
    fit makes a dead letter at once. The function takes the event, and second, if it wants it, the `Event` it came in.
    It may be plain, a generator, `async`, or an async generator. *timeout* binds asynchronous handlers only: a plain
    function runs to its end in the event loop, so it must not wait for anything.
    `retries` more attempts follow a failure, after `backoff`, doubling up to `longest_backoff`.
    With `batch=100` the function takes a list of up to 100 events.
    *middleware* surrounds each run in a worker, the first one outermost; its time counts towards *timeout*.

    Raises: ConfigurationError naming what cannot work.
    """

    def decorate(function: Callable[P, R]) -> Handler[P, R]:
        what = f"handler of {channel!r}"
        if retries < 0:
            raise ConfigurationError(f"{what}: retries={retries} must be 0 or more")
        if not 0 <= batch <= MOST_IN_A_BATCH:
            raise ConfigurationError(f"{what}: batch={batch} must be 1 to {MOST_IN_A_BATCH}, or 0 for one at a time")
        policy = HandlerPolicy(
            retries + 1,
            milliseconds(backoff, f"{what}: backoff"),
            milliseconds(longest_backoff, f"{what}: longest_backoff"),
            milliseconds(timeout, f"{what}: timeout"),
        )
        return Handler(function, Pattern(channel), event, policy, batch=batch, name=name, middleware=middleware)

    return decorate


def find_handlers(modules: Iterable[ModuleType]) -> tuple[Handler[..., Any], ...]:
    """Return the handlers that *modules* hold, in the order they are written; one imported twice counts once.

    Raises: ConfigurationError when two handlers have one name.
    """
    found: dict[str, Handler[..., Any]] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Handler) and found.setdefault(value.name, value) is not value:
                raise ConfigurationError(f"two handlers are called {value.name!r}; give one of them name=")
    return tuple(found.values())


class Routes:
    """Which handlers a channel has. Remembers the answer for channels it has seen, a bounded number of them."""

    MOST_REMEMBERED = 10_000

    def __init__(self, handlers: Iterable[Handler[..., Any]]) -> None:
        self.handlers = tuple(handlers)
        self.by_name = {handler.name: handler for handler in self.handlers}
        if len(self.by_name) != len(self.handlers):
            raise ConfigurationError("two handlers have one name; give one of them name=")
        self._known: dict[bytes, tuple[Handler[..., Any], ...]] = {}

    def of(self, channel: bytes) -> tuple[Handler[..., Any], ...]:
        """Return the handlers of *channel*, in the order they were given."""
        handlers = self._known.get(channel)
        if handlers is None:
            if len(self._known) >= self.MOST_REMEMBERED:
                self._known.clear()
            name = channel.decode(errors="replace")
            handlers = tuple(handler for handler in self.handlers if handler.pattern.matches(name))
            self._known[channel] = handlers
        return handlers


def _parameters(function: Callable[..., Any], what: str) -> int:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    count = sum(1 for parameter in parameters if parameter.kind in positional)
    needed = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if count not in (1, 2) or needed:
        raise ConfigurationError(f"{what}: it must take the event, or the event and its envelope, and nothing else")
    return count
