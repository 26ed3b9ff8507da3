"""Several shards: spread over the workers there are, order kept for each key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from cachebus.bus.effects import Broadcast, Effects, Publish
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.events import shard_of
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.redis.client import Client
from tests.support.serving import data, running

Until = Callable[..., Any]
SHARDS = 4


class Step(msgspec.Struct):
    user: int
    n: int


@on("steps", Step)
def step(event: Step) -> Effects:
    """Broadcast the step."""
    yield Broadcast(f"user:{event.user}", "step", [event.user, event.n])


@on("begin", Step)
def begin(event: Step) -> Effects:
    """Publish to the shard of each user."""
    for user in range(20):
        yield Publish("steps", Step(user, 0), key=f"user:{user}")


def worker(client: Client, name: str, lease: str = "600ms") -> list[Consumer]:
    """Return what a worker runs: a consumer for every shard."""
    return [
        Consumer(client, [step, begin], shard=shard, shards=SHARDS, worker=name, lease=lease) for shard in range(SHARDS)
    ]


def held(consumers: list[Consumer]) -> int:
    """Return how many shards a worker holds."""
    return sum(consumer.active for consumer in consumers)


async def test_shards_spread_over_the_workers_there_are(client: Client, until: Until) -> None:
    """A worker alone holds all; a second one is given half; when it dies the first takes over."""
    first, second = worker(client, "first", "3s"), worker(client, "second", "3s")  # none is lost to a slow machine
    async with running(*first):
        await until(lambda: held(first) == SHARDS)
        async with running(*second) as tasks:
            await until(lambda: held(first) == held(second) == SHARDS // 2)
            assert all(not consumer.stats.lost for consumer in first)
            for consumer, task in zip(second, tasks, strict=True):
                task.cancel()
                consumer._shard.token = ""  # it ends without giving anything back, as by kill -9
            await until(lambda: held(first) == SHARDS)


async def test_each_key_keeps_its_order_while_shards_move(client: Client, until: Until) -> None:
    """400 events of 20 users over 4 shards while workers come and go: each once, each user's in order."""
    bus = Bus(client, shards=SHARDS)

    async def publish() -> None:
        for n in range(20):
            for user in range(20):
                await bus.publish("steps", Step(user, n), key=f"user:{user}")
            await asyncio.sleep(0.1)

    first = worker(client, "first")
    async with running(*first):
        publishing = asyncio.create_task(publish())
        for _ in range(2):
            second = worker(client, "second")
            async with running(*second):
                await until(lambda second=second: held(second) == 2)
                await asyncio.gather(*[consumer.drain() for consumer in second])
        await publishing
        await until(lambda: has(client, 400))
    steps = await data(client)
    for user in range(20):
        assert [n for who, n in steps if who == user] == list(range(20))


async def has(client: Client, count: int) -> bool:
    """Say whether the feed has so many records."""
    return bool(await client.store.call("XLEN", client.names.feed) == count)


async def test_a_published_effect_goes_to_the_shard_of_its_key(client: Client, until: Until) -> None:
    """Where `publish()` would put it, so that order is kept between the two."""
    consumers = worker(client, "only")
    async with running(*consumers):
        await Bus(client, shards=SHARDS).publish("begin", Step(0, 0))
        await until(lambda: has(client, 20))
        assert sum(consumer.stats.events > 0 for consumer in consumers) >= 3
    streams = [client.names.bus("events", str(shard)) for shard in range(SHARDS)]
    before = [await client.store.call("XLEN", stream) for stream in streams]
    for user in range(20):
        await Bus(client, shards=SHARDS).publish("steps", Step(user, 1), key=f"user:{user}")
    after = [await client.store.call("XLEN", stream) for stream in streams]
    grown = [later - earlier for earlier, later in zip(before, after, strict=True)]
    assert grown == [length - (index == shard_of("begin", SHARDS)) for index, length in enumerate(before)]
