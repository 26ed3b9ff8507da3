"""Handlers and effects: plain functions and values that need no Redis."""

from __future__ import annotations

import re
import types
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from cachebus import Cache
from cachebus.bus.effects import Broadcast, Effect, Effects, Invalidate, Refresh, Retry
from cachebus.bus.engine.commit import Plan, Unfit
from cachebus.bus.events import Event, Moment
from cachebus.bus.handlers import Handler, HandlerPolicy, Routes, on
from cachebus.errors import ConfigurationError


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


class ReportDone(msgspec.Struct):
    report_id: int


def _for_reports(event: ReportDone) -> None: ...


def _for_lists(events: list[TradeEvent]) -> None: ...


def _for_one(event: TradeEvent) -> None: ...


def _for_nobody_knows(event: "Unknown") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037 - the point of it


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: on("trade:updates", TradeEvent)(_for_reports),
            "ReportDone, but write @on('trade:updates', ReportDone)",
        ),
        (lambda: on("trade:updates")(_for_one), "write @on('trade:updates', TradeEvent)"),
        (lambda: on("trade:updates", TradeEvent)(_for_lists), "annotate TradeEvent, or write batch=100"),
        (lambda: on("trade:updates", TradeEvent, batch=10)(_for_one), "it gets a list: annotate list[TradeEvent]"),
        (lambda: on("trade:updates", dict[str, int], batch=10)(_for_one), "it gets a list"),
        (lambda: on(_for_one), "write @on("),
    ],
)
def test_a_handler_annotated_for_other_events_is_refused(make: Any, told: str) -> None:
    """At decoration, with what to write instead."""
    with pytest.raises(ConfigurationError) as refused:
        make()
    assert told in str(refused.value)


def test_annotations_that_fit_or_say_nothing_pass() -> None:
    """The same class, one above it, a union, what cannot be evaluated, none at all."""

    class Special(TradeEvent):
        pass

    def union(event: TradeEvent | None) -> None: ...

    def bare(event) -> None: ...  # type: ignore[no-untyped-def]

    on("trade:updates", TradeEvent)(_for_one)
    on("trade:updates", Special)(_for_one)
    on("trade:updates", TradeEvent, batch=10)(_for_lists)
    on("trade:updates", TradeEvent | None)(union)
    on("trade:updates", TradeEvent)(_for_nobody_knows)
    on("trade:updates", TradeEvent)(bare)


def test_a_lone_string_is_one_name() -> None:
    """`Invalidate(tags="user:7")` is what it looks like."""
    plan = Plan()
    plan.add([Invalidate(tags="user:7", keys="k")])
    assert list(plan.scopes) == ["t:user:7", "k:k"]


def test_a_refresh_reaches_whatever_has_the_plain_name_of_its_key() -> None:
    """An argument whose type is not declared is marked in the key: both entries are old."""
    cache = Cache.memory()

    @cache.view("row:{n}", ttl="1m")
    async def row(n) -> int:  # type: ignore[no-untyped-def]
        return int(n)

    plan = Plan()
    plan.add([Refresh(row, 7)])
    assert list(plan.scopes) == ["k:row:7"]
    assert list(plan.refreshes) == ["row:7%int"]


def test_a_method_cannot_be_refreshed_by_another_process() -> None:
    """Its object is here; the error says so, and what to do instead."""
    cache = Cache.memory()

    class Desk:
        @cache.view("desk:{n}", ttl="1m", not_in_key="self")
        async def row(self, n: int) -> int:
            return n

    with pytest.raises(Unfit, match=r"'desk:{n}' is a method: .* refresh it here"):
        Plan().add([Refresh(Desk().row, 7)])


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


class Opaque:
    """A class that says nothing of its fields."""


@pytest.mark.parametrize("declared", [Opaque, list[Opaque], dict[str, Opaque | None]])
def test_a_class_without_known_fields_is_refused_at_the_decorator_line(declared: Any) -> None:
    """It would make a dead letter of every event. The message says what to write."""
    with pytest.raises(ConfigurationError) as refused:
        on("a:b", declared, name="orders.placed")(lambda _event: None)
    assert str(refused.value) == (
        "handler 'orders.placed': Opaque cannot be read from JSON; "
        "make it a msgspec.Struct, a dataclass or a Pydantic model"
    )


def test_a_moment_is_read_wherever_it_stands() -> None:
    """The one class of ours that JSON does not know."""

    class Seen(msgspec.Struct):
        at: list[Moment]

    assert on("a:b", Seen)(lambda _event: None).decode(b'{"at": [0]}').at[0].year == 1970


def test_a_refresh_names_a_view() -> None:
    """Not its name, nor what a call of it returned."""
    with pytest.raises(TypeError, match=r"Refresh: 'orders' is not a view; write Refresh\(view, \*arguments\)"):
        Refresh("orders", 7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"retries": "x"}, "handler of 'c': retries='x' must be a whole number"),
        ({"batch": "x"}, "handler of 'c': batch='x' must be 1 to 100"),
        ({"middleware": 5}, "handle': middleware=5 must be a list of functions"),
        ({"middleware": [5]}, "handle': middleware=[5] must be a list of functions"),
        ({"timeout": "1s"}, "handler of 'c': timeout='1s' ends only what is asynchronous"),
    ],
)
def test_an_option_of_the_wrong_kind(wrong: dict[str, Any], named: str) -> None:
    """Refused where it is written, with what it belongs to; a timeout that could not end a plain function as well."""

    def handle(event: dict[str, int]) -> None: ...

    with pytest.raises(ConfigurationError, match=re.escape(named)):
        on("c", dict, **wrong)(handle)
