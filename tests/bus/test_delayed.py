"""Delayed events: kept until they are due, published once, or cancelled before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from cachebus import Cache, PublishRefused, sync
from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Effects, Publish
from cachebus.bus.engine.consumer import Consumer, ConsumerOptions
from cachebus.bus.engine.local_consumer import LocalConsumer
from cachebus.bus.engine.mover import Mover
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.bus.signatures import Signatures
from cachebus.errors import NotDelayed, StreamFull
from cachebus.pubsub.pubsub import PubSub
from cachebus.redis.client import Client
from cachebus.testing.events import PublishedEvents
from cachebus.testing.server import PrivateServer
from tests.support.serving import data, running

Until = Callable[..., Any]


class Number(msgspec.Struct):
    n: int


@on("numbers", Number, name="echo")
def echo(event: Number) -> Effects:
    """Broadcast the number."""
    yield Broadcast("numbers", "n", event.n)


@on("orders", Number, name="placed")
def placed(event: Number) -> Effects:
    """Remind of it in a while."""
    yield Broadcast("numbers", "n", event.n)
    yield Publish("numbers", {"n": event.n + 100}, after="1h" if event.n > 10 else "20ms", id=f"remind:{event.n}")


async def age(client: Client, by_s: int = 2 * 3600) -> None:
    """Let so many seconds pass for everything that is delayed."""
    delayed = client.names.bus("delayed")
    for name in await client.store.call("ZRANGE", delayed, 0, -1):
        await client.store.call("ZINCRBY", delayed, -by_s * 1_000_000, name)


async def length(client: Client, shard: int = 0) -> int:
    """Return how many events are in a stream."""
    return int(await client.store.call("XLEN", client.names.bus("events", str(shard))))


async def test_a_delayed_event_is_handled_once_when_it_is_due(client: Client, until: Until) -> None:
    """Not before; plain listeners hear it then, too; a shorter delay overtakes a longer one."""
    heard: list[bytes] = []
    await client.subscriptions.subscribe("numbers", lambda _channel, payload: heard.append(payload))
    bus, consumer = Bus(client), Consumer(client, [echo])
    await bus.publish("numbers", {"n": 3}, delay="3h")
    await bus.publish("numbers", {"n": 2}, delay=timedelta(hours=1, milliseconds=80))
    await bus.publish("numbers", {"n": 1}, delay="30m", key="a", id="one")
    await age(client, by_s=3600)
    async with running(consumer, Mover(client)):
        await bus.publish("numbers", {"n": 0}, delay=0)
        await until(lambda: consumer.stats.events == 3)
        await until(lambda: len(heard) == 3, "what is published is heard")
    assert sorted(await data(client)) == [0, 1, 2]
    assert heard.index(b'{"n":1}') < heard.index(b'{"n":2}')
    assert await client.store.call("ZCARD", client.names.bus("delayed")) == 1


async def test_due_while_every_worker_was_down_each_is_handled_once_in_order(client: Client, until: Until) -> None:
    """Three movers start at once: nothing is lost, nothing doubled, and what was due first comes first."""
    bus = Bus(client)
    for n in range(250):
        await bus.publish("numbers", {"n": n}, delay=1 + n / 1000)
    await age(client)
    delayed = client.names.bus("delayed")
    movers, consumer = [Mover(client) for _ in range(3)], Consumer(client, [echo])
    async with running(consumer, *movers):
        await until(lambda: consumer.stats.events >= 250)
        await until(lambda: sum(mover.stats.moved for mover in movers) == 250, "each mover hearing what it moved")
    assert await data(client) == list(range(250))
    assert await client.store.call("EXISTS", delayed, client.names.bus("delayed-items")) == 0


async def test_many_are_delayed_together_in_their_order(client: Client, until: Until) -> None:
    """More than one script takes; each can be taken back by its id; what there is no room for is refused."""
    bus, consumer = Bus(client), Consumer(client, [echo])
    names = await bus.publish_many("numbers", [{"n": n} for n in range(150)], delay="1h")
    await bus.cancel(names[7])
    assert await client.store.call("ZRANGE", client.names.bus("delayed"), 0, -1) == [
        name.encode() for name in names if name != names[7]
    ]
    with pytest.raises(StreamFull):
        await Bus(client, max_events=150).publish_many("numbers", [{"n": 150}, {"n": 151}], delay="1h")
    await client.store.call("DEL", *[client.names.bus(each) for each in ("delayed", "delayed-items")])
    await bus.publish_many("numbers", [{"n": n} for n in range(5)], delay="1ms")
    assert await bus.publish_many("numbers", [], delay="1ms") == []
    async with running(consumer, Mover(client)):
        await until(lambda: consumer.stats.events == 5)
    assert await data(client) == [*range(5)]


async def test_an_event_is_cancelled_once(client: Client, until: Until) -> None:
    """It is gone; a second time, another id, or one that was published by now: one line. The id is free again."""
    bus, mover = Bus(client), Mover(client)
    await bus.publish("numbers", {"n": 1}, delay="1h", id="reminder")
    await bus.cancel("reminder")
    for unknown in ("reminder", "never"):
        with pytest.raises(NotDelayed, match=f"id: no event waits under '{unknown}': it was published, cancelled, or"):
            await bus.cancel(unknown)
    await bus.publish("numbers", {"n": 2}, delay="1h", id="reminder")
    await age(client)
    async with running(mover):
        await until(lambda: mover.stats.moved == 1)
    with pytest.raises(NotDelayed):
        await bus.cancel("reminder")
    assert await length(client) == 1


async def test_an_id_is_known_from_the_call_until_after_it_is_due(client: Client, until: Until) -> None:
    """Repeated with a delay or without one, before it is due and after: in the stream once."""
    bus, mover = Bus(client), Mover(client)
    for _ in range(2):
        await bus.publish("numbers", {"n": 1}, delay="1h", id="one")
    await bus.publish("numbers", {"n": 1}, id="one")
    assert await length(client) == 0
    await age(client)
    async with running(mover):
        await until(lambda: mover.stats.moved == 1)
        await bus.publish("numbers", {"n": 1}, delay="1ms", id="one")
        await bus.publish("numbers", {"n": 1}, id="one")
        await bus.publish("numbers", {"n": 2}, delay="1ms", id="two")
        await until(lambda: mover.stats.moved == 2)
    assert await length(client) == 2


async def test_a_handler_publishes_later_in_its_commit_and_it_can_be_cancelled(client: Client, until: Until) -> None:
    """`Publish(after=, id=)`; what cannot be written is a dead letter of the handler, and nothing of it is done."""

    @on("bad", Number, name="bad")
    def bad(event: Number) -> Effects:
        yield Broadcast("numbers", "n", -1)
        yield [
            Publish("numbers", 1, after="-1s"),
            Publish("numbers", 1, after=-1),
            Publish("numbers", 1, after="31d"),
            Publish("numbers", 1, id="x"),
        ][event.n]

    bus, consumer, letters = Bus(client), Consumer(client, [echo, placed, bad]), DeadLetters(client)
    async with running(consumer, Mover(client)):
        await bus.publish_many("orders", [Number(1), Number(11), Number(11)])
        await until(lambda: consumer.stats.events == 4)
        assert await data(client) == [1, 11, 11, 101]
        await bus.cancel("remind:11")
        with pytest.raises(NotDelayed):
            await bus.cancel("remind:11")
        await bus.publish_many("bad", [Number(n) for n in range(4)])
        await until(lambda: consumer.stats.events == 8)
    assert await data(client) == [1, 11, 11, 101]
    reasons = [letter.reason for letter in await letters.list()]
    assert [reason.partition(": ")[2] for reason in reasons] == [
        "after: '-1s' is in the past; leave it out to publish now",
        "after: -1 is in the past; leave it out to publish now",
        "after: '31d' is longer than 30d; keep the time in your database and publish from a job",
        "it names an event that waits; add after=, or leave it out",
    ]


@pytest.mark.parametrize(
    ("delay", "line"),
    [
        (-5, "delay: -5 is in the past; leave it out to publish now"),
        (timedelta(seconds=-1), "is in the past"),
        ("31d", "delay: '31d' is longer than 30d; keep the time in your database and publish from a job"),
        (float("inf"), "delay: inf is not a duration"),
        (float("nan"), "delay: nan is not a duration"),
        (datetime.max, "is not a duration"),
        ("tomorrow", "delay: 'tomorrow' is not a duration"),
    ],
)
async def test_a_delay_that_cannot_be_is_refused_and_nothing_is_stored(client: Client, delay: Any, line: str) -> None:
    """One line that names the field; over a server and without one."""
    for bus in (Bus(client), Bus(Cache.memory())):
        with pytest.raises(PublishRefused, match=line):
            await bus.publish("numbers", {"n": 1}, delay=delay, id="bad")
        with pytest.raises(NotDelayed):
            await bus.cancel("bad")
    with pytest.raises(PublishRefused, match="wait_replicas"):
        await Bus(client).publish("numbers", {"n": 1}, delay=1, wait_replicas=1)
    assert await client.store.call("EXISTS", client.names.bus("delayed")) == 0


async def test_too_many_are_refused_and_a_full_stream_holds_them_back(client: Client, until: Until) -> None:
    """StreamFull at the call; one that is due waits for room and then goes."""
    bus, mover = Bus(client, max_events=2), Mover(client, max_events=2)
    await bus.publish_many("numbers", [{"n": 0}, {"n": 1}])
    await bus.publish("numbers", {"n": 2}, delay="1ms")
    await bus.publish("numbers", {"n": 3}, delay="1h")
    with pytest.raises(StreamFull):
        await bus.publish("numbers", {"n": 4}, delay="1h")
    async with running(mover):
        await until(lambda: mover.stats.full)
        await client.store.call("XTRIM", client.names.bus("events", "0"), "MAXLEN", 1)
        await until(lambda: mover.stats.moved == 1)
    assert await length(client) == 2


async def test_a_signed_event_is_signed_when_it_is_due_and_goes_to_its_shard(client: Client, until: Until) -> None:
    """A signature bears a time that must be close: with the first one, an event that waited would be refused."""
    signatures = Signatures(["whsec_" + "A" * 32], {"numbers": "require"})
    bus = Bus(client, shards=4, signatures=signatures)
    consumers = [
        Consumer(client, [echo], shard=n, shards=4, options=ConsumerOptions(signatures=signatures)) for n in range(4)
    ]
    for n in range(8):
        await bus.publish("numbers", {"n": n}, delay="1h", key=f"user:{n}")
    await age(client)
    async with running(*consumers, Mover(client, shards=4, signatures=signatures)):
        await until(lambda: sum(consumer.stats.events for consumer in consumers) == 8)
    assert sorted(await data(client)) == list(range(8))
    assert sum(consumer.stats.events > 0 for consumer in consumers) > 1


async def test_what_is_no_event_holds_up_nobody(client: Client, until: Until) -> None:
    """Foreign bytes among the delayed events go to no channel; those behind them are published."""
    await client.store.call("HSET", client.names.bus("delayed-items"), "x", b"\xff\x00")
    await client.store.call("ZADD", client.names.bus("delayed"), 1, "x", 2, "there is no such item")
    await Bus(client).publish("numbers", {"n": 1}, delay="1ms")
    consumer, mover = Consumer(client, [echo]), Mover(client)
    async with running(consumer, mover):
        await until(lambda: consumer.stats.events == 2)
    assert await data(client) == [1]


async def test_it_outlives_a_restart_of_the_server(own_server: PrivateServer, until: Until) -> None:
    """The server dies while a mover sleeps, and comes back with its append-only file after the event was due."""
    async with Client(own_server.url) as client:
        mover, consumer = Mover(client), Consumer(client, [echo])
        async with running(mover, consumer):
            await Bus(client).publish("numbers", {"n": 1}, delay="1s")
            await asyncio.to_thread(own_server.restart)
            await until(lambda: consumer.stats.events == 1)
        assert await data(client) == [1]


async def test_without_a_server_it_is_the_same(until: Until) -> None:
    """Delayed, cancelled, published by a handler: in the memory of this process."""
    async with Cache.memory() as cache:
        heard: list[Any] = []
        bus, events = Bus(cache), PublishedEvents(cache)
        await PubSub(cache).subscribe("numbers", heard.append)
        async with running(LocalConsumer(cache, [echo, placed])):
            await bus.publish("numbers", {"n": 1}, delay="20ms", id="one")
            await bus.publish("numbers", {"n": 1}, delay="20ms", id="one")
            await bus.publish("numbers", {"n": 2}, delay="1h", id="two")
            await bus.publish("orders", {"n": 4})
            await until(lambda: len(events.broadcasts) == 3)
        assert [event.data for event in events.delayed] == [{"n": 2}]
        await bus.cancel("two")
        with pytest.raises(NotDelayed):
            await bus.cancel("two")
        assert sorted(sent.data for sent in events.broadcasts) == [1, 4, 104]
        assert len(heard) == 2


def test_from_code_without_an_event_loop() -> None:
    """`cachebus.sync`: the same call, the same errors."""
    with sync.Cache.memory() as cache:
        bus = sync.Bus(cache)
        bus.publish("numbers", {"n": 1}, delay="1h", id="one")
        bus.cancel("one")
        with pytest.raises(NotDelayed):
            bus.cancel("one")
        with pytest.raises(PublishRefused, match="in the past"):
            bus.publish("numbers", {"n": 1}, delay=-1)
