"""Handlers: what happens when an event comes. `@on(...)` makes one; the decorator line is its whole policy. Pure.

There is no registry: the worker looks for `Handler` objects in modules. A handler stays the function it was.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Generic, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from cachebus.bus.events import Event, InvalidEvent, Pattern, decode, decoder
from cachebus.bus.middleware import Middleware, surround
from cachebus.durations import Duration, backoff_s, milliseconds
from cachebus.errors import ConfigurationError
from cachebus.foreign import is_validated

P = ParamSpec("P")
R = TypeVar("R")

RETRIES = 5
"""With the default backoff the last try comes half a minute after the first: long enough for a deploy or a failover."""
BACKOFF = "1s"
LONGEST_BACKOFF = "5m"
TIMEOUT = "5s"
"""An asynchronous handler that takes longer holds up the stream; the event goes to the retries instead."""
AT_MOST = 5
"""A window lasts so many times `debounce` unless `at_most` says otherwise: events that never cease are handled, too."""
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
        return int(backoff_s(attempt, self.backoff_ms / 1000, self.longest_ms / 1000, draw) * 1000)


@dataclass(frozen=True, slots=True)
class Debounce:
    """When events of one kind have come to rest, and which ones are of one kind."""

    quiet_ms: int
    """A window closes so long after its newest event …"""
    most_ms: int
    """… and at the latest so long after its first one."""
    by: str | None
    """The field that tells events apart; None: the key they were published with."""

    def group(self, decoded: Any, event: Event) -> str:
        """Return what distinguishes *event* from others on its channel. Raises: InvalidEvent without such a field."""
        if self.by is None:
            return event.key
        try:
            return str(decoded[self.by] if isinstance(decoded, dict) else getattr(decoded, self.by))
        except (AttributeError, KeyError):
            raise InvalidEvent(f"by: the event has no field {self.by!r}") from None


class Handler(Generic[P, R]):
    """A function from an event to effects, with its channel, its event type and its policy.

    Calling it calls the function: in a test, `list(order_placed(OrderPlaced(...)))` is the effects, with no Redis.
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
        debounce: Debounce | None = None,
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
        _refuse_another_class(function, pattern.text, event_type, batch=batch, what=what)
        self.run: Callable[..., Any] = function
        """What a worker calls: the function itself, or the middleware around it."""
        if middleware:
            self.run = surround(function, takes_envelope=takes_envelope, middleware=middleware, name=self.name)
        self.takes_envelope = takes_envelope or bool(middleware)
        """Whether `run` takes the envelope second."""
        self.asynchronous = inspect.iscoroutinefunction(self.run) or inspect.isasyncgenfunction(self.run)
        self.debounce = debounce
        """When it runs once for many events; None: it runs for each."""
        self.inline = not (self.asynchronous or batch or debounce)
        """Whether it runs where its event is met: it is plain, takes one event, and is not debounced."""
        self.decode: Callable[[bytes], Any] = partial(decode, decoder(event_type, what))
        """Returns the event in a payload. Raises: InvalidEvent whose message names the field."""
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self.function(*args, **kwargs)

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
    debounce: Duration | None = None,
    at_most: Duration | None = None,
    by: str | None = None,
    name: str | None = None,
    middleware: Sequence[Middleware] = (),
) -> Callable[[Callable[P, R]], Handler[P, R]]:
    """Make a function the handler of *channel*, or of every channel that a pattern such as `orders:*` matches.

    *event* is a msgspec Struct, a Pydantic model, or anything else msgspec can check; unknown fields are ignored,
    anything else that does not fit makes a dead letter at once. The function takes the event, and second, if it wants
    it, the `Event` it came in.
    It may be plain, a generator, `async`, or an async generator. *timeout* is for asynchronous handlers only: a plain
    function runs to its end in the event loop, so it must not wait for anything.
    `retries` more attempts follow a failure, after `backoff`, doubling up to `longest_backoff`.
    With `batch=100` the function takes a list of up to 100 events.
    With `debounce="2s"` it runs once for all events that follow one another within 2 s, on the last of them, at the
    latest `at_most` (five times as long) after the first. Events are told apart by channel and key, or by channel and
    the field *by*: `by="user_id"` is one run a user.
    *middleware* surrounds each run in a worker, the first one outermost; its time counts towards *timeout*.

    Raises: ConfigurationError naming what cannot work.
    """

    if not isinstance(channel, str):
        raise ConfigurationError(f'on: {channel!r} is no channel; write @on("orders", OrderPlaced)')

    def decorate(function: Callable[P, R]) -> Handler[P, R]:
        what = f"handler of {channel!r}"
        if not _is_within(retries, 0, math.inf):
            raise ConfigurationError(f"{what}: retries={retries!r} must be a whole number, 0 or more")
        if not _is_within(batch, 0, MOST_IN_A_BATCH):
            raise ConfigurationError(f"{what}: batch={batch!r} must be 1 to {MOST_IN_A_BATCH}, or 0 for one at a time")
        if debounce is not None and batch:
            raise ConfigurationError(f"{what}: debounce= keeps the last event, batch= all of them; use one of the two")
        policy = HandlerPolicy(
            retries + 1,
            milliseconds(backoff, f"{what}: backoff"),
            milliseconds(longest_backoff, f"{what}: longest_backoff"),
            milliseconds(timeout, f"{what}: timeout"),
        )
        handler = Handler(
            function,
            Pattern(channel),
            event,
            policy,
            batch=batch,
            name=name,
            middleware=middleware,
            debounce=_debounce(what, debounce, at_most, by, event),
        )
        if timeout != TIMEOUT and not handler.asynchronous:
            raise ConfigurationError(
                f"{what}: timeout={timeout!r} ends only what is asynchronous, and {handler.name} is plain; "
                "write it as `async def`, or leave timeout= out"
            )
        return handler

    return decorate


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


def _is_within(number: object, least: int, most: float) -> bool:
    return isinstance(number, int) and least <= number <= most


def _debounce(
    what: str, quiet: Duration | None, most: Duration | None, by: str | None, event_type: Any
) -> Debounce | None:
    if quiet is None:
        if most is not None or by is not None:
            raise ConfigurationError(f"{what}: at_most= and by= belong to debounce=; add it, or leave them out")
        return None
    quiet_ms = milliseconds(quiet, f"{what}: debounce")
    most_ms = AT_MOST * quiet_ms if most is None else milliseconds(most, f"{what}: at_most")
    if most_ms < quiet_ms:
        raise ConfigurationError(f"{what}: at_most={most!r} must not be shorter than debounce={quiet!r}")
    known = _fields_of(event_type)
    if by is not None and known is not None and by not in known:
        raise ConfigurationError(f"{what}: by={by!r} is no field of {_named(event_type)}; it has {', '.join(known)}")
    return Debounce(quiet_ms, most_ms, by)


def _fields_of(kind: Any) -> list[str] | None:
    """Return the names of a structure's fields; None where that is nothing with fields of its own."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return list(kind.__struct_fields__)
    return [each.name for each in fields(kind)] if isinstance(kind, type) and is_dataclass(kind) else None


def _parameters(function: Callable[..., Any], what: str) -> int:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    count = sum(1 for parameter in parameters if parameter.kind in positional)
    needed = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if count not in (1, 2) or needed:
        raise ConfigurationError(f"{what}: it must take the event, or the event and its envelope, and nothing else")
    return count


def _refuse_another_class(
    function: Callable[..., Any], channel: str, event_type: Any, *, batch: int, what: str
) -> None:
    """Refuse a function that is annotated for other events than it will get. What cannot be compared passes."""
    first = next(iter(inspect.signature(function).parameters.values()))
    try:
        # Only this one: others may name what is imported for type checkers alone.
        declared = get_type_hints(SimpleNamespace(__annotations__={"event": first.annotation}), _globals_of(function))
    except Exception:  # noqa: BLE001 - an annotation that cannot be evaluated says nothing
        return
    annotated = declared["event"]
    if annotated in (Any, object, inspect.Parameter.empty):
        return
    listed = get_origin(annotated) in (list, Sequence) or annotated is list
    fix = ""
    if batch and not listed:
        fix = f"with batch={batch} it gets a list: annotate list[{_named(event_type)}]"
    elif not batch and get_origin(annotated) is list and get_args(annotated) == (event_type,):
        fix = f"it gets one event at a time: annotate {_named(event_type)}, or write batch=100"
    else:
        wanted = (get_args(annotated) or (Any,))[0] if batch else annotated
        if isinstance(wanted, type) and wanted is not object and _is_structure(wanted):
            if event_type is Any:
                fix = f"write @on({channel!r}, {wanted.__name__})"
            elif isinstance(event_type, type) and not issubclass(event_type, wanted):
                fix = f"write @on({channel!r}, {wanted.__name__}), or annotate {event_type.__name__}"
    if fix:
        raise ConfigurationError(f"{what}: {first.name} is annotated {_named(annotated)}, but {fix}")


def _is_structure(kind: type) -> bool:
    """Whether *kind* has fields of its own: plain JSON never decodes to it by chance."""
    return (
        issubclass(kind, msgspec.Struct) or is_dataclass(kind) or hasattr(kind, "__attrs_attrs__") or is_validated(kind)
    )


def _globals_of(function: Callable[..., Any]) -> dict[str, Any]:
    found: dict[str, Any] = getattr(inspect.unwrap(function), "__globals__", {})
    return found


def _named(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")
