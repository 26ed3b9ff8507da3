"""A clock passes every border as plain text: whatever encodes text encodes a clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import msgspec
import pytest

from cachebus import Bus, Cache, Clock, Locks, PubSub, SessionStore
from cachebus.pubsub.pubsub import Message
from cachebus.testing import memory_cache
from tests.conftest import Connect


class Changed(msgspec.Struct):
    """An event, or the answer of an endpoint, with a clock in it."""

    fresh_after: Clock


@dataclasses.dataclass
class Answer:
    """The same as a dataclass."""

    fresh_after: str


WAYS: dict[str, Callable[[Cache], Awaitable[Clock]]] = {
    "a key": lambda cache: cache.invalidate(keys=["k"]),
    "everything": lambda cache: cache.clear(),
    "delete": lambda cache: cache.delete("k"),
    "the present": lambda cache: cache.clock(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["memory", "server"])
async def test_any_encoder_takes_a_clock(way: str, where: str, connect: Connect) -> None:
    """Msgspec, like other encoders, knows `str` itself and no class derived from it."""
    async with memory_cache() if where == "memory" else nullcontext(await connect()) as cache:
        clock = await WAYS[way](cache)
    for value in (clock, Changed(clock), Answer(clock), {"fresh_after": clock}):
        assert clock.encode() in msgspec.json.encode(value)
        assert clock.encode() in msgspec.msgpack.encode(value)
        assert msgspec.to_builtins(value)


async def test_a_view_may_return_a_clock_and_take_one() -> None:
    """It is cached like any other text."""
    loads = 0
    async with memory_cache() as cache:

        @cache.view("clocks:{since}", ttl="1m")
        async def newest(since: str) -> Changed:
            nonlocal loads
            loads += 1
            return Changed(clock)

        clock = await cache.invalidate(keys=["k"])
        assert [await newest(clock), await newest(clock)] == [Changed(clock)] * 2
        await cache.set("clock", clock)
        assert await cache.get("clock") == clock
    assert loads == 1


async def test_sessions_messages_events_and_guarded_values_carry_a_clock(cache: Cache) -> None:
    """What other parts of the library write into Redis."""
    clock = await cache.invalidate(keys=["k"])
    carried = {"fresh_after": clock}
    store, channels, locks = SessionStore(cache), PubSub(cache), Locks(cache)
    session = await store.get(await store.create(7, carried))
    assert session is not None
    assert session["fresh_after"] == clock
    async with channels.listen("clocks") as messages:
        await channels.publish("clocks", carried)
        message = await anext(messages)
        assert isinstance(message, Message)
        assert message.data == carried
    async with locks.lock("clocks") as held:
        await locks.guarded_set("clocks", carried, held.token)
    assert await locks.guarded_get("clocks") == carried
    assert await Bus(cache).publish("clocks", Changed(clock))
    await locks.close()
    await channels.close()
