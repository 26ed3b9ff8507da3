"""Handlers and effects: plain functions and values that need no Redis."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from cachebus.effects import Broadcast, Effect, Effects, Invalidate, Refresh, Retry
from cachebus.errors import ConfigurationError
from cachebus.events import Event
from cachebus.handlers import Handler, HandlerPolicy, Routes, find_handlers, on


class TradeEvent(msgspec.Struct):
    user_id: int


@on("trade:updates", TradeEvent)
def trade_changed(event: TradeEvent) -> Effects:
    """A trade changed."""
    yield Invalidate(tags=[f"user:{event.user_id}"])
    yield Broadcast(f"user:{event.user_id}", "trade.new", {"n": 1})


def test_a_handler_is_still_the_function_it_was() -> None:
    """A test calls it with an event and compares effects, with no worker and no Redis."""
    assert list(trade_changed(TradeEvent(7)) or ()) == [
        Invalidate(tags=["user:7"]),
        Broadcast("user:7", "trade.new", {"n": 1}),
    ]
    assert trade_changed.__doc__ == "A trade changed."


def test_equal_refreshes_are_equal() -> None:
    """Refreshes compare by view and arguments, so a test can say what it expects."""
    view: Any = types.SimpleNamespace(name="v:{a}")
    assert Refresh(view, 1) == Refresh(view, 1) != Refresh(view, 2)
    assert repr(Refresh(view, 1, b=2)) == "Refresh('v:{a}', 1, b=2)"


def test_the_loader_finds_handlers_and_counts_an_imported_one_once() -> None:
    """Modules hold handlers; nothing is registered anywhere."""
    first, second = types.ModuleType("first"), types.ModuleType("second")
    first.trade_changed = second.imported = trade_changed  # type: ignore[attr-defined] # a module made by hand
    first.other = 5  # type: ignore[attr-defined] # a module made by hand
    assert find_handlers([first, second]) == (trade_changed,)


def test_two_handlers_of_one_name_are_refused() -> None:
    """Names stand in retries and dead letters, so they must tell handlers apart."""
    module = types.ModuleType("m")
    module.a, module.b = (on("a:b", name="same")(lambda _event: None) for _ in range(2))  # type: ignore[attr-defined] # a module made by hand
    with pytest.raises(ConfigurationError, match="same"):
        find_handlers([module])


def test_routes_give_every_matching_handler_in_order() -> None:
    """An exact channel and a pattern may both be meant."""
    wild = on("trade:*", name="wild")(lambda _event: None)
    routes = Routes([trade_changed, wild])
    assert routes.of(b"trade:updates") == (trade_changed, wild)
    assert routes.of(b"trade:other") == (wild,)
    assert routes.of(b"other") == ()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"retries": -1}, "retries"),
        ({"batch": 5000}, "batch"),
        ({"timeout": "soon"}, "timeout"),
        ({"backoff": 0}, "backoff"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_at_the_decorator_line(options: dict[str, Any], field: str) -> None:
    """The error names the option."""
    with pytest.raises(ConfigurationError, match=field):
        on("a:b", **options)(lambda _event: None)


def test_a_handler_takes_an_event_and_perhaps_its_envelope() -> None:
    """Anything else is refused when it is written, not when the first event comes."""

    def both(event: Any, envelope: Event) -> None: ...
    def none() -> None: ...
    def keyword(event: Any, *, needed: int) -> None: ...

    assert on("a:b")(both).takes_envelope
    assert not trade_changed.takes_envelope
    for function in (none, keyword):
        with pytest.raises(ConfigurationError, match="must take the event"):
            on("a:b")(function)


def test_a_type_that_json_cannot_carry_is_refused_at_the_decorator_line() -> None:
    """A handler that could never be called is a configuration error."""
    with pytest.raises(ConfigurationError, match="cannot be read from JSON"):
        on("a:b", dict[tuple[int, int], str] | dict[str, str])(lambda _event: None)


def test_async_functions_and_generators_are_known_as_such() -> None:
    """All four shapes of a handler are told apart."""

    async def coroutine(event: Any) -> None:
        return None

    async def generator(event: Any) -> AsyncIterator[Effect]:
        yield Invalidate(tags=["x"])

    handlers: list[Handler[..., Any]] = [on("a:b")(coroutine), on("a:b")(generator), trade_changed]
    assert [handler.asynchronous for handler in handlers] == [True, True, False]


def test_backoff_doubles_up_to_its_limit_and_is_spread() -> None:
    """The wait is between half the ceiling and the ceiling, and never overflows."""
    policy = HandlerPolicy(attempts=6, backoff_ms=1000, longest_ms=300_000, timeout_ms=5000)
    assert [policy.delay_ms(attempt, 0.999999) for attempt in (1, 2, 3, 10)] == [999, 1999, 3999, 299_999]
    assert policy.delay_ms(1, 0) == 500
    assert policy.delay_ms(10_000, 0) == 150_000


def test_retry_reads_durations_as_people_write_them() -> None:
    """`Retry("5s")` is five seconds; without one it is the handler's backoff."""
    assert (Retry("5s").after_ms, Retry().after_ms) == (5000, None)
