"""The same scripts on fakeredis' TCP server, which stands in where there is no Valkey for the platform."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from cachebus import Warmed
from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Effects, Invalidate, Publish, Refresh, Retry
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.engine.refresher import Refresher
from cachebus.bus.events import Event
from cachebus.bus.feed import Feed
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.serving import add, data, number, running


class Number(msgspec.Struct):
    n: int


class View:
    """A view with nothing to load."""

    name = "view:{n}"

    def key(self, n: int) -> str:
        return f"view:{n}"

    def encode_arguments(self, n: int) -> bytes:
        return b"[%d]" % n

    def decode_arguments(self, encoded: bytes) -> tuple[int]:
        return tuple(msgspec.json.decode(encoded))

    async def warm(self, n: int) -> Warmed:
        return Warmed(2**60, loaded=True)


view = View()


@on("numbers", Number, name="numbers")
def numbers(event: Number, envelope: Event) -> Effects:
    """Use every effect and every signal."""
    if envelope.attempt == 1:
        raise Retry("1ms")
    yield Invalidate(tags=[f"n:{event.n}"], keys=["k:1"], prefix="p:")
    yield Broadcast("numbers", "n", event.n)
    yield Refresh(view, event.n)
    yield Publish("later", event)


@on("later", Number, name="later", retries=0)
def later(event: Number) -> None:
    """Fail."""
    raise ValueError


@pytest.fixture(scope="module")
def fake() -> Iterator[PrivateServer]:
    """Return fakeredis as a server."""
    with PrivateServer.start(kind="fakeredis") as server:
        yield server


async def test_every_script_of_the_bus_runs_on_fakeredis(fake: PrivateServer, until: Callable[..., Any]) -> None:
    """Publish, bridge, retries, every effect, feed, dead letters, replay, refresh, hand-over: as on a real server."""
    async with Client(fake.url) as client:
        consumer, bridge = Consumer(client, [numbers, later], shards=2), Bridge(client, [numbers, later])
        other = Consumer(client, [numbers, later], shard=1, shards=2)
        refresher = Refresher(client, {view.name: view}, reading=lambda **_: contextlib.nullcontext())
        async with running(consumer, other, bridge, refresher):
            await until(lambda: bridge.listening)
            await Bus(client).publish("numbers", Number(1))
            await client.store.call("PUBLISH", "numbers", number(2))
            await add(client, "numbers", number(3), b"garbage")
            letters = DeadLetters(client)
            await until(lambda: has(letters, 4))
            assert sorted(await data(client)) == [1, 2, 3]
            kinds = {letter.kind: letter.letter_id for letter in await letters.list()}
            assert sorted(kinds) == ["failed", "invalid"]
            assert await letters.replay([kinds["failed"]]) == 1
            await until(lambda: has(letters, 4))
            await until(lambda: refresher.stats.loaded == 3)
            newest = await Feed(client).newest()
            assert (await Feed(client).read(newest)).recovered
            await consumer.drain()
        assert await client.store.call("EXISTS", client.names.bus("lease", "0")) == 0


async def has(letters: DeadLetters, count: int) -> bool:
    """Say whether there are so many dead letters."""
    return await letters.count() == count
