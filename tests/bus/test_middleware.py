"""Middleware: code around handlers. It sees every run, and none of its absence is paid for."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Drop, Effect, Effects, Retry
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.events import Event
from cachebus.bus.handlers import on
from cachebus.bus.middleware import Handling, Middleware
from cachebus.errors import ConfigurationError
from cachebus.redis.client import Client
from tests.support.serving import add, data, number, running

Until = Callable[..., Any]


class Number(msgspec.Struct):
    n: int


class Notes:
    """A middleware of each kind, and what they noted, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def plain(self, name: str = "plain") -> Middleware:
        """Return one that surrounds plain handlers."""

        def around(handling: Handling, call_next: Callable[[], Effects]) -> Effects:
            self.lines.append(f"{name} {handling.handler} {len(handling.events)} {handling.events[0].attempt}")
            effects = call_next()
            self.lines.append(f"{name} end")
            return effects

        return around

    def waiting(self, name: str = "waiting") -> Middleware:
        """Return one that surrounds any handler."""

        async def around(handling: Handling, call_next: Callable[[], Awaitable[Effects]]) -> Effects:
            self.lines.append(f"{name} {handling.handler} {len(handling.events)} {handling.events[0].attempt}")
            effects = await call_next()
            self.lines.append(f"{name} end")
            return effects

        return around


@pytest.fixture
def notes() -> Notes:
    """Nothing noted yet."""
    return Notes()


async def test_a_generator_runs_to_its_end_inside(client: Client, until: Until, notes: Notes) -> None:
    """What a handler does between its effects is surrounded, too; its effects are those it yielded."""

    @on("numbers", Number, name="h", middleware=[notes.plain()])
    def handler(event: Number) -> Effects:
        notes.lines.append("begin")
        yield Broadcast("numbers", "n", event.n)
        notes.lines.append("done")

    await add(client, "numbers", number(1))
    consumer = Consumer(client, [handler])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 1)
    assert notes.lines == ["plain h 1 1", "begin", "done", "plain end"]
    assert await data(client) == [1]


def plain_handler(event: Number) -> Effects:
    """Answer with a list."""
    return [Broadcast("numbers", "n", event.n)]


def single_handler(event: Number) -> Effect:
    """Answer with one effect."""
    return Broadcast("numbers", "n", event.n)


def enveloped_handler(event: Number, envelope: Event) -> Effects:
    """Take the envelope."""
    yield Broadcast("numbers", "n", event.n if envelope.channel == "numbers" else -1)


async def coroutine_handler(event: Number) -> Effects:
    """Answer when it has waited."""
    return [Broadcast("numbers", "n", event.n)]


async def generator_handler(event: Number) -> AsyncIterator[Effect]:
    """Yield when it has waited."""
    yield Broadcast("numbers", "n", event.n)


@pytest.mark.parametrize(
    "function", [plain_handler, single_handler, enveloped_handler, coroutine_handler, generator_handler]
)
async def test_asynchronous_middleware_surrounds_any_handler(
    client: Client, until: Until, notes: Notes, function: Callable[..., Any]
) -> None:
    """Plain, asynchronous, with an envelope or yielding: the effects arrive, in the order of the events."""
    handler = on("numbers", Number, name="h", middleware=[notes.waiting()])(function)
    await add(client, "numbers", *map(number, range(40)))
    consumer = Consumer(client, [handler])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 40)
    assert await data(client) == list(range(40))
    assert notes.lines.count("waiting h 1 1") == notes.lines.count("waiting end") == 40


async def test_the_first_one_is_outermost(client: Client, until: Until, notes: Notes) -> None:
    """They nest in the order they are written, plain ones inside asynchronous ones."""
    around = [notes.waiting("outer"), notes.plain("middle"), notes.plain("inner")]
    handler = on("numbers", Number, name="h", middleware=around)(plain_handler)
    await add(client, "numbers", number(1))
    consumer = Consumer(client, [handler])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 1)
    ends = ["inner end", "middle end", "outer end"]
    assert notes.lines == ["outer h 1 1", "middle h 1 1", "inner h 1 1", *ends]
    assert await data(client) == [1]


@pytest.mark.parametrize("kind", ["plain", "waiting"])
async def test_every_attempt_is_surrounded_and_sees_what_was_raised(
    client: Client, until: Until, notes: Notes, kind: str
) -> None:
    """A retry runs inside as the first run did; exceptions and signals pass through."""

    @on("numbers", Number, name="h", backoff="1ms", middleware=[getattr(notes, kind)()])
    def handler(_event: Number, envelope: Event) -> Effects:
        if envelope.attempt == 1:
            raise Retry("1ms")
        if envelope.attempt == 2:
            raise RuntimeError("again")
        raise Drop

    await add(client, "numbers", number(1))
    consumer = Consumer(client, [handler])
    async with running(consumer):
        await until(lambda: consumer.stats.handlers.dropped == 1)
    assert notes.lines == [f"{kind} h 1 {attempt}" for attempt in (1, 2, 3)]
    assert consumer.stats.handlers.failed == 2


@pytest.mark.parametrize("kind", ["plain", "waiting"])
async def test_a_list_of_events_is_surrounded_once(client: Client, until: Until, notes: Notes, kind: str) -> None:
    """A handler of lists is one run; its middleware sees every envelope."""

    @on("numbers", Number, name="h", batch=100, middleware=[getattr(notes, kind)()])
    def handler(events: list[Number]) -> Effects:
        yield Broadcast("numbers", "n", [event.n for event in events])

    await add(client, "numbers", *map(number, range(20)))
    consumer = Consumer(client, [handler])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 20)
    assert notes.lines == [f"{kind} h 20 1", f"{kind} end"]
    assert await data(client) == [list(range(20))]


async def test_it_may_answer_instead_add_or_refuse(client: Client, until: Until) -> None:
    """What it returns is what is written; without `call_next` the handler does not run; raising ends the run."""

    def guard(handling: Handling, call_next: Callable[[], list[Effect]]) -> Effects:
        (event,) = handling.events
        if event.payload == b'{"n":1}':
            return [Broadcast("numbers", "n", "instead")]
        if event.payload == b'{"n":2}':
            raise Drop("not ours")
        return [*call_next(), Broadcast("numbers", "n", "added")]

    handler = on("numbers", Number, middleware=[guard])(plain_handler)
    await add(client, "numbers", *map(number, (1, 2, 3)))
    consumer = Consumer(client, [handler])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 3)
    assert await data(client) == ["instead", 3, "added"]
    assert consumer.stats.handlers.dropped == 1


async def test_the_handler_sees_what_it_has_set(client: Client, until: Until) -> None:
    """A context variable bound around a handler is there inside, and gone for the next event."""
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")

    async def bound(handling: Handling, call_next: Callable[[], Awaitable[Effects]]) -> Effects:
        if handling.events[0].payload == b'{"n":1}':
            tenant.set("first")
        return await call_next()

    @on("numbers", Number, middleware=[bound])
    async def handler(_event: Number) -> Effects:
        return [Broadcast("numbers", "n", tenant.get())]

    await add(client, "numbers", *map(number, (1, 2)))
    consumer = Consumer(client, [handler])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 2)
    assert await data(client) == ["first", "nobody"]


async def test_its_time_counts_towards_the_timeout(client: Client, until: Until) -> None:
    """One that never ends holds up nothing: the event becomes a dead letter and the next is handled."""

    async def stuck(handling: Handling, call_next: Callable[[], Awaitable[Effects]]) -> Effects:
        if handling.events[0].payload == b'{"n":1}':
            await asyncio.get_running_loop().create_future()
        return await call_next()

    handler = on("numbers", Number, retries=0, timeout="50ms", middleware=[stuck])(plain_handler)
    await add(client, "numbers", *map(number, (1, 2)))
    consumer = Consumer(client, [handler])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 2)
    (letter,) = await DeadLetters(client).list()
    assert "not done within 0.05 s" in letter.reason
    assert await data(client) == [2]


@pytest.mark.parametrize(("function", "count"), [(single_handler, 1), (plain_handler, 1), (lambda _event: None, 0)])
async def test_what_is_inside_answers_with_a_list(
    client: Client, until: Until, function: Callable[..., Any], count: int
) -> None:
    """One effect is a list of one, and nothing an empty list: middleware can count and add."""
    counted: list[int] = []

    def counting(_handling: Handling, call_next: Callable[[], list[Effect]]) -> Effects:
        effects = call_next()
        counted.append(len(effects))
        return [*effects, Broadcast("numbers", "n", "added")]

    handler = on("numbers", Number, middleware=[counting])(function)
    await add(client, "numbers", number(1))
    consumer = Consumer(client, [handler])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 1)
    assert counted == [count]
    assert (await data(client))[-1] == "added"


@pytest.mark.parametrize("answer", ["text", 5])
async def test_an_answer_that_is_none_is_still_refused(client: Client, until: Until, notes: Notes, answer: Any) -> None:
    """Middleware that hands on whatever it got does not turn nonsense into effects."""
    handler = on("numbers", Number, middleware=[notes.plain()])(lambda _event: answer)
    await add(client, "numbers", number(1))
    consumer = Consumer(client, [handler])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 1)
    (letter,) = await DeadLetters(client).list()
    assert (letter.kind, letter.attempts) == ("unfit", 1)
    assert f"the handler returned {type(answer).__name__}" in letter.reason


def test_plain_middleware_around_an_asynchronous_handler_is_refused(notes: Notes) -> None:
    """The error says what to write; it comes at import, not with the first event."""
    with pytest.raises(ConfigurationError, match="async def"):
        on("numbers", Number, middleware=[notes.plain()])(coroutine_handler)
    with pytest.raises(ConfigurationError, match="async def"):
        on("numbers", Number, middleware=[notes.plain(), notes.waiting()])(plain_handler)


def test_an_instance_counts_by_its_call() -> None:
    """An object whose `__call__` is asynchronous is asynchronous middleware."""

    class Around:
        async def __call__(self, _handling: Handling, call_next: Callable[[], Awaitable[Effects]]) -> Effects:
            return await call_next()

    assert on("numbers", Number, middleware=[Around()])(coroutine_handler).asynchronous
    assert on("numbers", Number, middleware=[Around()])(plain_handler).asynchronous


def test_a_handler_without_any_is_called_itself() -> None:
    """No wrapper, no envelope that nobody asked for: nothing is paid for what is not used."""
    handler = on("numbers", Number)(plain_handler)
    assert handler.run is plain_handler
    assert not handler.takes_envelope


def test_calling_a_handler_calls_the_function_alone(notes: Notes) -> None:
    """A test of a handler needs no envelope and meets no middleware."""
    handler = on("numbers", Number, middleware=[notes.plain()])(plain_handler)
    assert handler(Number(1)) == [Broadcast("numbers", "n", 1)]
    assert notes.lines == []
