"""The network between a worker and its server fails without a word: nothing is lost, and the worker notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cachebus.bus.effects import Broadcast, Effects
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.engine.refresher import Refresher
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.redis import subscriptions
from cachebus.redis.client import Client
from cachebus.testing import FaultProxy
from cachebus.testing.server import PrivateServer
from tests.support.serving import add, data, number, running

Until = Callable[..., Any]


class Number(msgspec.Struct):
    n: int


@on("numbers", Number, name="echo")
def echo(event: Number) -> Effects:
    """Broadcast the number."""
    yield Broadcast("numbers", "n", event.n)


async def test_five_thousand_events_published_while_the_worker_is_cut_off_are_each_handled_once_in_order(
    own_server: PrivateServer, until: Until
) -> None:
    """Its connections are reset and new ones refused for longer than its lease."""
    numbers = list(range(5000))
    async with FaultProxy(own_server.port) as proxy, Client(proxy.url) as cut_off, Client(own_server.url) as client:
        consumer = Consumer(cut_off, [echo], lease="5s")
        async with running(consumer):
            await until(lambda: consumer.active)
            proxy.refusing = True
            proxy.cut()
            bus = Bus(client)
            for first in range(0, 5000, 500):
                await asyncio.gather(*[bus.publish("numbers", {"n": n}) for n in numbers[first : first + 500]])
            await until(
                lambda: not own_server.ask("EXISTS", "{cachebus}:lease:0"), "the end of the lease", deadline_s=60.0
            )
            assert await data(client) == []
            proxy.resume()
            await until(lambda: consumer.stats.events == 5000)
        assert await data(client) == numbers


async def test_a_worker_that_never_reached_its_server_stops_at_once(
    own_server: PrivateServer, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """What waits for a subscription to be confirmed does not hold up a deploy."""
    monkeypatch.setattr(subscriptions, "CONFIRM_S", 3600.0)
    own_server.kill()
    async with Client(own_server.url) as client:
        consumer, bridge, refresher = (
            Consumer(client, [echo]),
            Bridge(client, [echo]),
            Refresher(client, {}, reading=dict),
        )  # type: ignore[arg-type] # it loads nothing here
        async with running(consumer, bridge, refresher):
            await until(lambda: len(client.subscriptions._wanted) == 2, "both to wait")
            async with asyncio.timeout(20.0):
                await asyncio.gather(consumer.drain(), bridge.drain(), refresher.drain())


async def test_half_open_connections_are_noticed_by_whoever_only_listens(
    own_server: PrivateServer, until: Until
) -> None:
    """Intake and subscriptions send nothing while nothing happens: each notices that nothing comes any more."""
    async with FaultProxy(own_server.port) as proxy, Client(proxy.url) as forgotten, Client(own_server.url) as client:
        consumer, bridge = Consumer(forgotten, [echo]), Bridge(forgotten, [echo])
        async with running(consumer, bridge):
            await until(lambda: consumer.active and bridge.listening)
            await add(client, "numbers", number(1))
            await until(lambda: consumer.stats.events == 1)
            proxy.half_open()
            await add(client, "numbers", number(2))
            await until(lambda: consumer.stats.events == 2, "the intake", deadline_s=30.0)
            await until(lambda: bridge.stats.gaps and bridge.listening, "the subscriptions", deadline_s=30.0)
            await client.store.call("PUBLISH", "numbers", number(3))
            await until(lambda: consumer.stats.events == 3, "the plain message", deadline_s=30.0)
        assert await data(client) == [1, 2, 3]
