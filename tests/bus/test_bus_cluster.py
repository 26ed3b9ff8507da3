"""The bus on a Redis Cluster: everything of one deployment shares a slot, whatever the number of shards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from cachebus.bus.effects import Broadcast, Effects, Invalidate
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.events import shard_of
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateCluster
from tests.support.serving import data, ledger, running

Until = Callable[..., Any]
SHARDS = 2


class Trade(msgspec.Struct):
    user: int
    n: int


@on("trades", Trade)
def trades(event: Trade) -> Effects:
    """Invalidate and broadcast."""
    yield Invalidate(tags=[f"user:{event.user}"])
    yield Broadcast(f"user:{event.user}", "trade", [event.user, event.n])


async def test_events_of_two_shards_are_handled_once_and_in_order_on_a_cluster(until: Until) -> None:
    """Three nodes, two shards: published, handled, in ledger and feed, each user's trades in order."""
    with PrivateCluster.start() as nodes:
        async with Client(nodes.url) as client:
            consumers = [Consumer(client, [trades], shard=shard, shards=SHARDS) for shard in range(SHARDS)]
            async with running(*consumers):
                await until(lambda: all(consumer.active for consumer in consumers))
                bus = Bus(client, shards=SHARDS)
                for n in range(10):
                    for user in range(8):
                        await bus.publish("trades", Trade(user, n), key=f"user:{user}")
                await until(lambda: sum(consumer.stats.events for consumer in consumers) == 80)
            fed = await data(client)
            for user in range(8):
                assert [n for who, n in fed if who == user] == list(range(10))
            assert {f"t:user:{user}" for user in range(8)} <= set(await ledger(client))
            assert {shard_of(f"user:{user}", SHARDS) for user in range(8)} == {0, 1}
            assert all(consumer.stats.events for consumer in consumers)
