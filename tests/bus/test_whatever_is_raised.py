"""What no handler should raise, raised by each kind of handler: a failed attempt. Only a real Ctrl-C ends all."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Effect, Effects
from cachebus.bus.engine.commit import Plan
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.engine.dispatcher import Dispatcher
from cachebus.bus.events import EventRecord
from cachebus.bus.handlers import Handler, Routes, on
from cachebus.redis.client import Client
from tests.support.serving import add, echo, has, number, running
from tests.support.waiting import until

RAISED = [KeyboardInterrupt, GeneratorExit, SystemExit, asyncio.CancelledError]


def handlers_that_raise(raised: type[BaseException]) -> dict[str, Handler[..., Any]]:
    """Return one handler of each kind."""

    def plain(event: Any) -> None:
        raise raised

    def generator(event: Any) -> Iterator[Effect]:
        yield Broadcast("never", "sent")
        raise raised

    async def asynchronous(event: Any) -> None:
        await asyncio.sleep(0)
        raise raised

    async def asynchronous_generator(event: Any) -> AsyncIterator[Effect]:
        yield Broadcast("never", "sent")
        raise raised

    single = {each.__name__: on("bad", retries=0)(each) for each in (plain, generator)}
    single |= {each.__name__: on("bad", retries=0)(each) for each in (asynchronous, asynchronous_generator)}
    batches = {f"{name} batch": on("bad", batch=10, retries=0)(each.function) for name, each in single.items()}
    return {**single, **batches}


KINDS = list(handlers_that_raise(RuntimeError))


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_handler_raises_is_its_failure(client: Client, kind: str, raised: type[BaseException]) -> None:
    """A dead letter that says what was raised; the event behind it is handled, by the same worker."""
    await add(client, "bad", number(1), number(2))
    await add(client, "numbers", number(3))
    async with running(Consumer(client, [handlers_that_raise(raised)[kind], echo])):
        await until(lambda: has(client, [3]), "the event behind them")
        letters = await until(lambda: _two(client), "the dead letters")
    assert {letter.kind for letter in letters} == {"failed"}
    said = "cancelled" if raised is asyncio.CancelledError and "asynchronous" in kind else raised.__name__
    assert all(said in letter.reason for letter in letters)


async def _two(client: Client) -> list[Any]:
    letters = list(await DeadLetters(client).list())
    return letters if len(letters) == 2 else []


class Fussy(msgspec.Struct):
    """Raises what no decoder expects."""

    n: int

    def __post_init__(self) -> None:
        raise LookupError("no such number")


@pytest.mark.parametrize("policy", [{"batch": 10}, {"debounce": "10ms", "by": "n"}, {}])
async def test_what_its_event_type_raises_is_its_failure_too(client: Client, policy: dict[str, Any]) -> None:
    """Where events wait to be handled together they are decoded before: that is the application's code as well."""

    @on("bad", Fussy, retries=0, **policy)
    def fussy(event: Any) -> Effects:
        return []

    await add(client, "bad", number(1), number(2))
    await add(client, "numbers", number(3))
    async with running(Consumer(client, [fussy, echo])):
        await until(lambda: has(client, [3]), "the event behind them")
        letters = await until(lambda: _two(client), "the dead letters")
    assert all("no such number" in letter.reason for letter in letters)


@pytest.mark.parametrize("batch", [0, 10])
async def test_a_real_ctrl_c_ends_whoever_runs_the_handler(batch: int) -> None:
    """Where the process leaves Ctrl-C to Python, it is raised in whatever runs at that moment, a handler too."""

    @on("bad", batch=batch)
    def interrupted(event: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    async def cut(plan: Plan) -> Plan:
        return plan

    record = EventRecord([b"1-1", [b"channel", b"bad", b"payload", b"1"]])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            await Dispatcher(Routes([interrupted])).work([record], Plan(), cut)
    finally:
        signal.signal(signal.SIGINT, before)
